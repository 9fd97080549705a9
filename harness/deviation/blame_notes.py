"""What `blame` found of cells: one sentence each, kept beside the runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.core.run import Cell

FOLDER = "blame"


def known(reports: Path) -> dict[str, str]:
    """Cell → sentence, of all that `blame` left in a reports folder, the newest where there are several.

    A file that can't be read says nothing: it is a help for readers, and no evidence.
    """
    files = sorted((reports / FOLDER).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    found = (_read(file) for file in files)
    return {cell: sentence for cell, sentence in found if cell and sentence}


def _read(file: Path) -> tuple[str, str]:
    try:
        data = json.loads(file.read_bytes())
        cell, sentence = data["cell"], data["sentence"]
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""
    return (cell, sentence) if isinstance(cell, str) and isinstance(sentence, str) else ("", "")


def of(cells: Iterable[Cell], known: Mapping[str, str]) -> str:
    """The sentence about the first of the cells that has one; a cause's cells begin with its representative."""
    return next((known[cell.id] for cell in cells if cell.id in known), "")
