"""The cells that a change made worse when it was last checked: what its author wants to see again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.core import run_file
from harness.core.errors import HarnessError, UsageError
from harness.core.run import Run
from harness.judge import change as judge
from harness.runner.change.sides import Sides

_LOOKED_AT = 30
"""Runs that are read, the newest first."""


def cells(reports: Path, sides: Sides) -> tuple[str, ...]:
    """The ids of these cells.

    A cell that the last check did not judge (it was interrupted, did not build, or was narrowed by `-k`) is red if the
    check before it says so.

    Raises:
        UsageError: the change was not checked yet, or nothing was red.
    """
    red: list[str] = []
    judged: set[judge.Key] = set()
    last = ""
    for run in _runs(reports):
        against = run.against
        if not against or (against.package, against.source) != (sides.package, sides.source):
            continue
        last = last or run.id
        regressed = {comparison.cell for comparison in run.comparisons if comparison.change == "regressed"}
        known = [cell for cell in run.cells if cell.verdict.is_judged and judge.key_of(cell) not in judged]
        red += [cell.id for cell in known if cell.id in regressed]
        judged.update(map(judge.key_of, known))
        whole = not (run.interrupted or run.not_run or any(cell.verdict.cannot_tell for cell in run.cells))
        if whole and not (against.narrowed or against.failed):
            break
    if red:
        return tuple(red)
    if last:
        raise UsageError(
            f"--last-red: the last check of {sides.source} ({last}) has no red cell", "a check with red cells",
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
