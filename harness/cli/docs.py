"""`docs`: writes the generated pages, or says which of them is not what would be written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.cli import common
from harness.core import data
from harness.core.errors import ExitCode
from harness.core.files import write_atomically
from harness.core.matrix import Declared
from harness.judge import expectations
from harness.report.pages import format_history, known_breaks, methods, trl_structure
from harness.store import saved_adapter
from harness.store.saved_adapter import Written


def docs(arguments: argparse.Namespace) -> int:
    """Write docs/known-breaks.md, methods.md, format-history.md and trl-structure.md; with --check only compare."""
    folder = common.path(arguments.out) or data.docs()
    stale = []
    for name, text in pages(arguments).items():
        path = folder / name
        if _there(path) == text:
            continue
        stale.append(path)
        if not arguments.check:
            write_atomically(path, text.encode())
            common.say(str(path))
    if not arguments.check:
        return ExitCode.CLEAN
    for path in stale:
        common.out(
            f"{path}: {'not up to date' if path.exists() else 'not there'}; next: `peft-regress docs`, and commit it"
        )
    return ExitCode.REGRESSED if stale else ExitCode.CLEAN


def _there(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def pages(arguments: argparse.Namespace) -> dict[str, str]:
    """File name → text of every generated page."""
    matrix = common.matrix_of(arguments)
    declared = matrix.scenarios()
    found = _written(arguments)
    made: Mapping[str, Callable[[], str]] = {
        "known-breaks.md": lambda: known_breaks.render(
            expectations.load(matrix.folder / "expectations.toml"), declared
        ),
        "methods.md": lambda: methods.render(_in_file_order(declared), _stored(found)),
        "format-history.md": lambda: format_history.render(found),
        "trl-structure.md": lambda: trl_structure.render(_prepared(arguments)),
    }
    return {name: render() for name, render in made.items()}


def _prepared(arguments: argparse.Namespace) -> list[trl_structure.Seen]:
    """What the goldens that SFTTrainer had a part in say of it."""
    store, found = common.store_of(arguments), []
    for creator in store.creators():
        for name in store.scenarios(creator):
            manifest = store.manifest(creator, name)
            if "sft" in manifest.resolved and "cpu" in manifest.goldens:
                facts = json.loads(store.content(manifest, "golden/observation.json")).get("facts", {})
                steps = facts.get("sft", {}).get("steps", {})
                found.append(trl_structure.Seen(name, creator, manifest.versions, steps))
    return found


def _in_file_order(declared: Sequence[Declared]) -> list[Declared]:
    return sorted(declared, key=lambda one: one.file.name)


def _written(arguments: argparse.Namespace) -> list[Written]:
    store = common.store_of(arguments)
    return [
        saved_adapter.read(store, store.manifest(creator, name))
        for creator in store.creators()
        for name in store.scenarios(creator)
    ]


def _stored(found: Sequence[Written]) -> list[methods.Stored]:
    order = sorted({saved_adapter.release_order(one.release, one.creator) for one in found})
    place = {key: index for index, key in enumerate(order)}
    return [
        methods.Stored(
            one.scenario,
            one.creator,
            one.release,
            one.method,
            place[saved_adapter.release_order(one.release, one.creator)],
        )
        for one in found
    ]
