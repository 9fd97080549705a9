"""Accepting cells: the new break, its file, and what the run would be with it. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from harness.core.errors import UsageError
from harness.core.run import Cell, Run
from harness.deviation.accept import break_file, conditions
from harness.deviation.accept.break_file import Change
from harness.deviation.accept.conditions import Said
from harness.judge import expected
from harness.judge.breaks import Break

_BY_CONTENT = ("checkout", "git", "interpreter")
"""Kinds of environments whose name comes from their content or place."""


@dataclass(frozen=True)
class Proposal:
    """A break that would be written, and its effect."""

    known: Break
    change: Change
    cells: tuple[Cell, ...]
    """Those that are accepted."""
    after: Run
    """The run with the break."""
    notes: tuple[str, ...] = ()


def propose(
    run: Run, cells: Sequence[Cell], said: Said, there: Sequence[Break], matrices: Path, today: date
) -> Proposal:
    """A break for cells of a run.

    Args:
        run: with the breaks that are there applied.

    Raises:
        UsageError: the break would state more or less than these cells.
    """
    _refuse_expired(run, cells, there)
    fields = conditions.drafted(run, cells, said, [one.id for one in there])
    known = conditions.checked(run, cells, fields)
    return Proposal(
        known,
        break_file.added(matrices, fields),
        tuple(cells),
        conditions.applied(run, [*there, known], today),
        _notes(run, cells, said),
    )


def _refuse_expired(run: Run, cells: Sequence[Cell], there: Sequence[Break]) -> None:
    """A second break for what an expired one states would leave the run failing because of the first."""
    expired = {one.id for one in run.expectation_problems if one.problem == "expired"}
    versions = conditions.versions_of(run)
    for one in there:
        covered = [cell.id for cell in cells if one.id in expired and expected.covers(one, cell, versions)]
        if covered:
            raise UsageError(
                f"{covered[0]} deviates as {one.id!r} says, which expired on {one.expires}",
                "one known break for one deviation",
                f"if it still does: `peft-regress accept --renew {one.id} --expires DATE`; else --remove it first",
            )


def _notes(run: Run, cells: Sequence[Cell], said: Said) -> tuple[str, ...]:
    """What the writer may not know: a name that no other run will have."""
    kinds = {environment.name: environment.kind for environment in run.environments}
    used = [] if said.creators or said.ranges else sorted({cell.creator for cell in cells})
    used += [] if said.loaders or said.until or said.ranges else sorted({cell.loader for cell in cells})
    passing = [name for name in dict.fromkeys(used) if kinds.get(name) in _BY_CONTENT]
    return tuple(
        f"{name} is the name of this {kinds[name]} only: another commit or folder has another name, and the break "
        "does not cover it. Use `--range peft` or a condition to select by version"
        for name in passing
    )
