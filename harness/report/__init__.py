"""Renderers of a run. Each reads `harness.core.run.Run` (most through `harness.report.view`) and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.core.files import must_take_files, write_together
from harness.core.run import Run
from harness.core.run_file import content
from harness.report import junit, markdown, sentence
from harness.report.html import render

FORMATS: dict[str, tuple[str, Callable[[Run], bytes]]] = {
    "md": ("report.md", lambda run: markdown.render(run, verbose=True).encode()),
    "junit": ("junit.xml", junit.render),
    "html": ("report.html", render.render),
}
"""Format → its file in a run's folder, and its renderer. `report.json` is their source and not in this table; tables
(csv, parquet) are written on demand by `harness.report.tables.write`."""


def write(run: Run, folder: Path) -> list[Path]:
    """Write `report.json` and then every format to a run's folder, all of them or none.

    Raises:
        UsageError: `folder` is a file, or nothing can be written there.
    """
    must_take_files(folder)
    run = run.model_copy(update={"sentence": str(sentence.of(run))})
    contents = {"report.json": content(run), **{name: rendered(run) for name, rendered in FORMATS.values()}}
    write_together(folder, contents)
    return [folder / name for name in contents]
