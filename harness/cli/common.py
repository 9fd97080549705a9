"""What commands share: how they print, and the known breaks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness.core.text import harmless
from harness.judge import breaks
from harness.judge.breaks import Break
from harness.runner.request import Places


def say(line: str) -> None:
    """Print a message that is not a result, to stderr."""
    print(harmless(line), file=sys.stderr, flush=True)


def out(text: str) -> None:
    """Print a result."""
    print(harmless(text), flush=True)


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


def shown(place: Path) -> str:
    """A path for a command to copy: relative to the current folder where it is inside."""
    return str(place.relative_to(Path.cwd())) if place.is_relative_to(Path.cwd()) else str(place)
