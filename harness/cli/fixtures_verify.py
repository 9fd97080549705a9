"""`fixtures verify` and `fixtures prune`: whether the stored fixtures are whole, and what nothing names any more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common
from harness.cli import create as creating
from harness.cli.parser import Output, choice, command, handler, saying, where
from harness.core.errors import ExitCode
from harness.runner import create as creation
from harness.runner.create import Create
from harness.runner.request import Places, Selection


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `fixtures verify`."""

    places: Places = Places()
    selection: Selection = Selection()
    output: Output = Output()
    recreate: str = ""
    jobs: int = 0
    worker_handler: Path | None = None


@dataclass(frozen=True)
class PruneOptions:
    """Options of `fixtures prune`."""

    places: Places = Places()
    dry_run: bool = False


def add_to(inner: Any) -> None:
    """Add `fixtures verify` and `fixtures prune`."""
    one = command(inner, "verify", verify, "check every stored file against its size and SHA-256",
                  "  peft-regress fixtures verify\n"
                  "  peft-regress fixtures verify --recreate v061    create them again: the same bytes?",
                  VerifyOptions)  # fmt: skip
    one.add_argument("--recreate", metavar="CREATOR", help="create this creator's fixtures again, and compare bytes")
    where(one)
    choice(one)
    saying(one)
    one.add_argument("--jobs", type=int, default=0, help="fixtures at once (default: cores)")
    handler(one)
    one = command(inner, "prune", prune, "remove blobs that no manifest names",
                  "  peft-regress fixtures prune --dry-run", PruneOptions)  # fmt: skip
    where(one)
    one.add_argument("--dry-run", action="store_true", help="list what would be removed")


def verify(options: VerifyOptions) -> int:
    """Check every stored file's size and SHA-256; with --recreate, create a creator's fixtures again, compare bytes."""
    store = options.places.store()
    problems = store.verify()
    broken = [problem for problem in problems if problem.kind != "orphan"]
    if options.output.json and not options.recreate:
        common.out_json([{"path": str(p.path), "kind": p.kind, "message": p.message} for p in problems])
    else:
        for problem in problems:
            common.out(f"{problem.kind}: {problem.message}")
    count = sum(len(store.scenarios(creator)) for creator in store.creators())
    common.say(
        f"{count} fixtures of {len(store.creators())} creators, {store.size() / 1e6:.1f} MB, {len(broken)} problems"
    )
    if broken or not count:
        return ExitCode.CANNOT_TELL
    if not options.recreate:
        return ExitCode.CLEAN
    request = Create(
        options.recreate, options.places, options.selection, options.jobs, worker_handler=options.worker_handler
    )
    return creating.show(creation.recreate(request, common.say), options.output)


def prune(options: PruneOptions) -> int:
    """Remove blobs that no manifest names."""
    removed = options.places.store().prune(dry_run=options.dry_run)
    for file in removed:
        common.out(str(file))
    common.say(f"{len(removed)} blobs {'would be ' if options.dry_run else ''}removed")
    return ExitCode.CLEAN
