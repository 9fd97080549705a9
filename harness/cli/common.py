"""What the commands share: where things are, and how they speak to the user."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.core.matrix import NEEDS_HUB, Declared, Matrix, of_families
from harness.envs.environments import Environments
from harness.judge import breaks
from harness.judge.breaks import Break
from harness.runner.request import Places
from harness.runner.request import cores as cores
from harness.store.fixtures import Store


def say(line: str) -> None:
    """Tell the user something that is no result: to stderr."""
    print(line, file=sys.stderr, flush=True)


def out(text: str) -> None:
    """Print a result."""
    print(text, flush=True)


def out_json(data: Any) -> None:
    """Print a result for a program."""
    out(json.dumps(data, indent=1, default=str))


def known_breaks(places: Places) -> tuple[Break, ...]:
    """The known breaks; says on stderr if some are in the old form.

    Raises:
        UsageError: a file is wrong.
    """
    folder = places.matrix().folder
    if note := breaks.old_form(folder):
        say(note)
    return breaks.load(folder)


def console(stderr: bool = False) -> Console:
    """A console that knows whether it is a terminal."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def path(text: str | None) -> Path | None:
    """A path of the command line, made absolute."""
    return Path(text).expanduser().resolve() if text else None


def shown(place: Path) -> str:
    """A path for a command to copy: relative to the current folder where it is inside."""
    return str(place.relative_to(Path.cwd())) if place.is_relative_to(Path.cwd()) else str(place)


def places(arguments: argparse.Namespace) -> Places:
    """The folders that a command works on."""
    return Places(*(path(getattr(arguments, name, None)) for name in ("matrices", "fixtures", "reports")))


def reports_folder(arguments: argparse.Namespace) -> Path:
    """Where runs are written."""
    return places(arguments).reports_folder


def store_of(arguments: argparse.Namespace) -> Store:
    """The fixtures that a command works on."""
    return places(arguments).store()


def matrix_of(arguments: argparse.Namespace) -> Matrix:
    """The matrix that a command works on."""
    return places(arguments).matrix()


def environments_of(arguments: argparse.Namespace) -> Environments:
    """The environments that a command works on; says on stderr what takes time."""
    return places(arguments).environments(say)


def chosen(declared: Iterable[Declared], expression: str | None, families: Collection[str] = ()) -> list[Declared]:
    """Scenarios whose name or family holds one of the expression's alternatives (`lokr or loha`); all without one.

    Raises:
        UsageError: no scenario is of one of the families.
    """
    wanted = [part.strip() for part in (expression or "").split(" or ") if part.strip()]
    return [
        one
        for one in of_families(declared, families)
        if not wanted or any(part in one.name or part == one.family for part in wanted)
    ]


def left_out(declared: Iterable[Declared], arguments: argparse.Namespace) -> dict[str, str]:
    """Scenarios on models of the hub that a command does not run, and why: nobody said `--hub`."""
    if arguments.hub:
        return {}
    return {one.name: NEEDS_HUB for one in chosen(declared, arguments.keyword, arguments.families) if one.needs_hub}
