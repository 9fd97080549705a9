"""The cells that a change made worse when it was last checked: what its author wants to see again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.core import run_file
from harness.core.errors import HarnessError, UsageError
from harness.core.run import Run
from harness.runner.change.sides import Sides

_LOOKED_AT = 30
"""Runs that are read, the newest first."""


def cells(reports: Path, sides: Sides) -> tuple[str, ...]:
    """The ids of these cells.

    Raises:
        UsageError: the change was not checked yet, or nothing was red.
    """
    for run in _runs(reports):
        against = run.against
        if against and (against.package, against.source) == (sides.package, sides.source):
            red = tuple(comparison.cell for comparison in run.comparisons if comparison.change == "regressed")
            if red:
                return red
            raise UsageError(
                f"--last-red: the last check of {sides.source} ({run.id}) has no red cell", "a check with red cells",
                "leave --last-red out: all that the change can affect is checked",
            )  # fmt: skip
    raise UsageError(
        f"--last-red: no check of {sides.source} in {reports}", "an earlier check of the same change",
        "leave --last-red out, or name the folder of its runs with --reports",
    )  # fmt: skip


def _runs(reports: Path) -> Iterator[Run]:
    """The runs of a folder, the newest first; names of folders begin with the time."""
    for place in sorted(reports.glob("*/report.json"), reverse=True)[:_LOOKED_AT]:
        try:
            yield run_file.load(place)
        except HarnessError:  # not finished, or of another format
            continue
