"""Which cell is asked about, and between which environments its verdict turns."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.core.errors import UsageError
from harness.core.matrix import CellId, Declared
from harness.runner.plan import Planned


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


def about(planned: Planned, good: str = "", bad: str = "", *, made: bool = False) -> Question:
    """What is asked about a cell.

    Args:
        good: specification of the environment in which it is sound; by default the creator's.
        bad: of the one in which it deviates; by default the loader's.

    Raises:
        UsageError: the two are one.
    """
    creator = planned.creator_spec
    question = Question(planned.id, planned.declared, creator, good or creator, bad or planned.loader_spec, made)
    if question.good == question.bad:
        raise UsageError(
            f"{planned.id}: both ends are {question.good!r}", "two environments, one in which it is sound",
            "name others: `peft-regress blame --help` says how",
        )  # fmt: skip
    return question
