"""`fixtures verify`, `fixtures prune` and `fixtures convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common
from harness.cli import create as creating
from harness.cli.parser import Output, choice, command, count, handler, saying, where
from harness.core import data
from harness.core.errors import ExitCode
from harness.core.text import many, visible_lines
from harness.runner import create as creation
from harness.runner.create import CreateRequest
from harness.runner.request import Places, Selection
from harness.store import convert as conversion
from harness.store import integrity
from harness.store.fixtures import Store


@dataclass(frozen=True)
class VerifyOptions:
    places: Places = Places()
    selection: Selection = Selection()
    output: Output = Output()
    recreate: str = ""
    jobs: int = 0
    worker_handler: Path | None = None


@dataclass(frozen=True)
class PruneOptions:
    places: Places = Places()
    dry_run: bool = False


@dataclass(frozen=True)
class ConvertOptions:
    places: Places = Places()


def add_to(inner: Any) -> None:
    one = command(inner, "verify", verify, "check every stored file against its size and SHA-256",
                  "  peft-regress fixtures verify\n"
                  "  peft-regress fixtures verify --recreate v061    create them again: the same bytes?",
                  VerifyOptions)  # fmt: skip
    one.add_argument("--recreate", metavar="CREATOR", help="create this creator's fixtures again, and compare bytes")
    where(one)
    choice(one)
    saying(one)
    one.add_argument("--jobs", type=count, default=0, help="fixtures at once (default: cores)")
    handler(one)
    one = command(inner, "prune", prune, "remove files that no manifest refers to",
                  "  peft-regress fixtures prune --dry-run", PruneOptions)  # fmt: skip
    where(one)
    one.add_argument("--dry-run", action="store_true", help="list what would be removed")
    one = command(inner, "convert", convert, "convert fixtures of older formats to the present one",
                  "  peft-regress fixtures convert", ConvertOptions)  # fmt: skip
    where(one)


def _store(places: Places) -> Store:
    """The store.

    Raises:
        UsageError: its folder does not exist.
    """
    store = places.store()
    if not store.folder.is_dir():
        raise data.fixtures_missing(store.folder)
    return store


def verify(options: VerifyOptions) -> int:
    """Check every stored file's size and SHA-256; with --recreate, create a creator's fixtures again, compare bytes."""
    checked = integrity.check(_store(options.places))
    if options.output.json and not options.recreate:
        common.out_json([{"path": str(p.path), "kind": p.kind, "message": p.message} for p in checked.problems])
    else:
        for problem in checked.problems:
            common.out(f"{problem.kind}: {visible_lines(problem.message)}")
    common.say(
        f"{checked.fixtures} fixtures of {checked.creators} creators, {checked.size / 1e6:.1f} MB, "
        f"{len(checked.broken)} problems"
    )
    if checked.broken or not checked.fixtures:
        return ExitCode.CANNOT_TELL
    if not options.recreate:
        return ExitCode.CLEAN
    request = CreateRequest(
        options.recreate, options.places, options.selection, options.jobs, worker_handler=options.worker_handler
    )
    return creating.show(creation.recreate(request, common.say), options.output)


def prune(options: PruneOptions) -> int:
    """Remove files that no manifest refers to."""
    removed = integrity.prune(_store(options.places), dry_run=options.dry_run)
    for file in removed:
        common.out(str(file))
    common.say(f"{len(removed)} files {'would be ' if options.dry_run else ''}removed")
    return ExitCode.CLEAN


def convert(options: ConvertOptions) -> int:
    """Convert fixtures of older formats to the present one."""
    done = conversion.convert(_store(options.places))
    for problem in done.problems:
        common.out(f"{problem.kind}: {visible_lines(problem.message)}")
    for creator, scenarios in done.fixtures.items():
        common.out(f"{creator}: {many(len(scenarios), 'fixture')}")
    count = sum(map(len, done.fixtures.values()))
    common.say(f"{many(count, 'fixture')} converted, {many(len(done.problems), 'problem')}")
    return ExitCode.CANNOT_TELL if done.problems else ExitCode.CLEAN
