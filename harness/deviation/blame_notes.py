"""The answers of `blame`: one sentence for each cell, kept in the reports folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.core.run import Cell
from harness.worker.files import read_json

FOLDER = "blame"


def known(reports: Path) -> dict[str, str]:
    """Cell → the newest sentence of `blame` in a reports folder.

    Unreadable files are ignored: the sentences help readers and are not evidence.
    """
    files = sorted((reports / FOLDER).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    found = (_read(file) for file in files)
    return {cell: sentence for cell, sentence in found if cell and sentence}


def _read(file: Path) -> tuple[str, str]:
    try:
        data = read_json(file, links=True)
        cell, sentence = data["cell"], data["sentence"]
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""
    return (cell, sentence) if isinstance(cell, str) and isinstance(sentence, str) else ("", "")


def of(cells: Iterable[Cell], known: Mapping[str, str]) -> str:
    """The sentence of the first cell that has one; empty if none has. A cause's representative is its first cell."""
    return next((known[cell.id] for cell in cells if cell.id in known), "")
