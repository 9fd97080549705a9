"""Reads, changes and damages stored manifests, as another program would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.store import creator_file
from harness.store.creator_file import Line


def file_of(fixtures: Path, creator: str) -> Path:
    """The creator's file."""
    return fixtures / f"{creator}.jsonl"


def read(fixtures: Path, creator: str, scenario: str) -> dict[str, Any]:
    """The data of a manifest."""
    data: dict[str, Any] = json.loads(_line(fixtures, creator, scenario).opened()[0])
    return data


def write(fixtures: Path, creator: str, scenario: str, data: Any) -> None:
    """Put other data into the line, with its digest."""
    raw = creator_file.line_of(scenario, json.dumps(data).encode())
    damage(fixtures, creator, scenario, lambda _: raw)


def damage(fixtures: Path, creator: str, scenario: str, change: Callable[[bytes], bytes]) -> None:
    """Replace the bytes of the line."""
    old, path = _line(fixtures, creator, scenario), file_of(fixtures, creator)
    lines = path.read_bytes().split(b"\n")
    lines[old.number - 1] = change(old.raw)
    path.write_bytes(b"\n".join(lines))


def remove(fixtures: Path, creator: str, scenario: str) -> None:
    """Remove the line; the file too if it was the last one."""
    old, path = _line(fixtures, creator, scenario), file_of(fixtures, creator)
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[old.number - 1]
    if lines:
        path.write_bytes(b"".join(lines))
    else:
        path.unlink()


def _line(fixtures: Path, creator: str, scenario: str) -> Line:
    return creator_file.read(file_of(fixtures, creator).read_bytes()).fixtures[scenario]
