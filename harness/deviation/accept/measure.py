"""Measures a known break: the shape and the sizes of its conditions, from the cells of a run. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.core.errors import UsageError
from harness.core.run import Cell, Run
from harness.deviation.accept import conditions
from harness.judge import expected, shape_measured
from harness.judge.breaks import Break, Condition
from harness.judge.shape import Line


def updated(run: Run, known: Break) -> Break:
    """The break, with each condition widened to what its cells show in the run.

    What was known of other scenarios and creators stays. A condition without a shape gets one, in the place of `kinds`.

    Raises:
        UsageError: no cell of the run has the verdict of a condition that selects it.
    """
    found = {id(one): list(_cells(run, one)) for one in known.condition}
    if not any(found.values()):
        raise UsageError(
            f"no cell of run {run.id} shows {known.id}",
            f"cells that its conditions select: {' or '.join(dict.fromkeys(one.stated for one in known.condition))}",
            "name another run with --run, or remove the break if it was fixed",
        )
    widened = [_widened(one, found[id(one)]) if found[id(one)] else one for one in known.condition]
    return known.model_copy(update={"condition": widened})


def _cells(run: Run, one: Condition) -> Iterator[Cell]:
    versions = conditions.versions_of(run)
    return (cell for cell in run.cells if cell.verdict is one.verdict and expected.selects(one, cell, versions))


def _widened(one: Condition, cells: list[Cell]) -> Condition:
    shape, size = shape_measured.measured(cells, one.shape, one.size)
    stated = {key.rpartition(" ")[2] for key in shape}
    shape |= {kind: Line() for kind in one.kinds or () if kind not in stated}
    return one.model_copy(update={"kinds": None, "shape": shape, "size": size} if shape else {})
