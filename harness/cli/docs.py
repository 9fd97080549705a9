"""`docs`: writes the generated pages, or lists those that are out of date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common
from harness.cli.parser import command, where
from harness.core import data
from harness.core.errors import ExitCode
from harness.core.files import must_take_files, read_text, write_atomically
from harness.core.matrix import Declared
from harness.core.versions import release_order
from harness.judge import breaks
from harness.own import written_by
from harness.report.pages import consumers, format_history, known_breaks, methods, trl_structure
from harness.runner.request import Places
from harness.store import saved_adapter
from harness.store.fixtures import Store
from harness.store.saved_adapter import Written
from harness.worker.files import parse_json

KNOWN = "known-breaks"
"""The folder of the pages of known breaks."""


@dataclass(frozen=True)
class DocsOptions:
    check: bool = False
    out: Path | None = None
    places: Places = Places()


def add_to(commands: Any) -> None:
    one = command(
        commands, "docs", docs, "write the generated pages under docs/, and matrices/written-by.json",
        "  peft-regress docs\n  peft-regress docs --check      exit 1 if a page is not up to date", DocsOptions,
    )  # fmt: skip
    one.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not up to date")
    one.add_argument("--out", metavar="DIR", help="where the pages are (default: docs/)")
    where(one)


def docs(options: DocsOptions) -> int:
    """Write docs/known-breaks/, methods.md, format-history.md, trl-structure.md and the table that dates adapters.

    With --check only compare.
    """
    folder = options.out or data.docs()
    must_take_files(folder)
    stale = []
    written = _written(options.places.store())
    made = {folder / name: text for name, text in pages(options.places, written).items()}
    gone = [path for path in sorted((folder / KNOWN).glob("*.md")) if path not in made]
    made |= written_by.again(options.places.matrix().folder, written, {} if options.check else _known(options.places))
    for path in gone:
        stale.append(path)
        if not options.check:
            path.unlink()
    for path, text in made.items():
        if _there(path) == text:
            continue
        stale.append(path)
        if not options.check:
            write_atomically(path, text.encode())
            common.say(str(path))
    if not options.check:
        return ExitCode.CLEAN
    for path in stale:
        found = "no such known break" if path in gone else "not up to date" if path.exists() else "not there"
        common.out(f"{path}: {found}; next: `peft-regress docs`, and commit it")
    return ExitCode.REGRESSED if stale else ExitCode.CLEAN


def _known(places: Places) -> dict[str, str]:
    """Release of PEFT → day, as the package index said when it was last asked."""
    known = places.environments().releases.kept("peft")
    return {version: known.releases[version].day for version in known.stable()}


def _there(path: Path) -> str | None:
    try:
        return read_text(path)
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def pages(places: Places, found: Sequence[Written]) -> dict[str, str]:
    """File name → text of every generated page."""
    matrix = places.matrix()
    declared = matrix.scenarios()
    made: Mapping[str, Callable[[], str]] = {
        "consumers.md": lambda: consumers.render(declared, _measured(matrix.folder)),
        "methods.md": lambda: methods.render(_in_file_order(declared), _stored(found)),
        "format-history.md": lambda: format_history.render(found),
        "trl-structure.md": lambda: trl_structure.render(_prepared(places.store())),
    }
    known = known_breaks.render(breaks.load(matrix.folder), declared)
    return {f"{KNOWN}/{name}": text for name, text in known.items()} | {name: render() for name, render in made.items()}


def _measured(folder: Path) -> list[consumers.Row]:
    return consumers.read(_there(folder / consumers.FILE) or "[]")


def _prepared(store: Store) -> list[trl_structure.Seen]:
    """What the goldens of SFTTrainer's scenarios record about its steps."""
    found = []
    for creator in store.creators():
        for name in store.scenarios(creator):
            manifest = store.manifest(creator, name)
            if "sft" in manifest.resolved and "cpu" in manifest.goldens:
                facts = parse_json(store.content(manifest, "golden/observation.json")).get("facts", {})
                steps = facts.get("sft", {}).get("steps", {})
                found.append(trl_structure.Seen(name, creator, manifest.versions, steps))
    return found


def _in_file_order(declared: Sequence[Declared]) -> list[Declared]:
    return sorted(declared, key=lambda one: one.file.name)


def _written(store: Store) -> list[Written]:
    return [
        saved_adapter.read(store, store.manifest(creator, name))
        for creator in store.creators()
        for name in store.scenarios(creator)
    ]


def _stored(found: Sequence[Written]) -> list[methods.Stored]:
    order = sorted({release_order(one.release, one.creator) for one in found})
    place = {key: index for index, key in enumerate(order)}
    return [
        methods.Stored(
            one.scenario,
            one.creator,
            one.release,
            one.method,
            place[release_order(one.release, one.creator)],
        )
        for one in found
    ]
