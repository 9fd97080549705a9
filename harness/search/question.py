"""Which cell is asked about, and between which environments its verdict turns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness import planning
from harness.envs import Environments
from harness.errors import UsageError
from harness.matrix import CellId, Declared, Matrix
from harness.results import Run


@dataclass(frozen=True)
class Question:
    """A cell that deviates, to be explained.

    Attributes:
        id: the cell.
        creator: specification of the environment that made the fixture.
        good: specification of an environment in which the cell is sound; the creator's, if nobody says otherwise.
        bad: of one in which it deviates.
        made: True where the fixture is made first, as `pair` does.
    """

    id: CellId
    declared: Declared
    creator: str
    good: str
    bad: str
    made: bool = False

    @property
    def file_stem(self) -> str:
        """The cell's id as the name of a file."""
        return re.sub(r"[^A-Za-z0-9._+-]", "_", str(self.id))


def ask(
    cell: str, run: Run | None, matrix: Matrix, environments: Environments, *, good: str = "", bad: str = "",
    scenarios: list[Path] | None = None, hub: bool = False,
) -> Question:  # fmt: skip
    """What is asked about a cell that is given by its id, or by its scenario where the run has just one cell of it.

    Args:
        run: where the cell was checked; None: the id alone tells, and names environments that are declared.
        good: specification of the environment in which it is sound; by default the creator's.
        bad: of the one in which it deviates; by default the cell's loader.

    Raises:
        UsageError: no such cell, scenario or environment.
    """
    identity = _identity(cell, run)
    declared = {one.name: one for one in matrix.scenarios(scenarios, hub=hub)}
    if identity.scenario not in declared:
        raise UsageError(
            f"no scenario {identity.scenario!r}", "one that `peft-regress list` shows",
            "check the name; --scenarios and --matrices say where else scenarios are",
        )  # fmt: skip
    specs = {one.name: one.spec for one in run.environments if one.spec} if run else {}
    creator = specs.get(identity.creator, identity.creator)
    cells = {one.id: one for one in run.cells} if run else {}
    found = cells.get(str(identity))
    made = found is not None and found.fixture_origin == "created" and identity.creator not in environments.names()
    loader = specs.get(identity.loader, identity.loader)
    question = Question(identity, declared[identity.scenario], creator, good or creator, bad or loader, made)
    if question.good == question.bad:
        raise UsageError(
            f"{identity}: both ends are {question.good!r}", "two environments, one in which it is sound",
            "name another with --good or --bad",
        )  # fmt: skip
    return question


def _identity(cell: str, run: Run | None) -> CellId:
    ids = [one.id for one in run.cells] if run else []
    if cell in ids or _is_id(cell):
        return planning.parsed(cell)
    named = [one.id for one in run.cells if one.scenario == cell] if run else []
    named = named or [one for one in ids if cell in one]
    if len(named) != 1:
        among = f" of run {run.id}" if run else ""
        shown = ", ".join((named or ids)[:6])
        raise UsageError(
            f"{'no cell' if not named else f'{len(named)} cells'}{among} match {cell!r}",
            "one cell: scenario@creator:loader[device]" + (f", for example {shown}" if shown else ""),
            "give the whole id, or name a run with --run",
        )
    return planning.parsed(named[0])


def _is_id(cell: str) -> bool:
    return re.fullmatch(r"[^@]+@.+:.+\[[\w+.-]+\]", cell) is not None
