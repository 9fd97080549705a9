"""Reads the RECORD of an installed package: its files with their digests."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from harness.core.files import read_text


def rows(info: Path) -> list[list[str]]:
    """Name, digest and size of each file, as the RECORD in a folder of metadata has them; none if it is unreadable."""
    try:
        text = read_text(info / "RECORD", errors="surrogateescape")
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row and row[0]]
    except (OSError, csv.Error):
        return []
