"""The question of a search: which cell, and between which environments its verdict changes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.core.errors import UsageError
from harness.core.matrix import CellId, Declared
from harness.runner.plan import Planned


@dataclass(frozen=True)
class Question:
    """A deviating cell to explain. Environments are given by their specifications.

    Attributes:
        creator: the environment that made the fixture.
        good: an environment in which the cell is clean.
        bad: an environment in which the cell deviates.
        made: True if the fixture is not stored and has to be made first, as `pair` does.
    """

    id: CellId
    declared: Declared
    creator: str
    good: str
    bad: str
    made: bool = False

    @property
    def file_stem(self) -> str:
        """The cell's id as a file name without its suffix."""
        return re.sub(r"[^A-Za-z0-9._+-]", "_", str(self.id))


def about(planned: Planned, good: str = "", bad: str = "", *, made: bool = False) -> Question:
    """The question about a planned cell.

    Args:
        good: the environment in which it is clean; default: the creator's.
        bad: the environment in which it deviates; default: the loader's.

    Raises:
        UsageError: both are the same.
    """
    creator = planned.creator_spec
    question = Question(planned.id, planned.declared, creator, good or creator, bad or planned.loader_spec, made)
    if question.good == question.bad:
        raise UsageError(
            f"{planned.id}: both ends are {question.good!r}", "two environments, one in which the cell is clean",
            "name another end: see `peft-regress blame --help`",
        )  # fmt: skip
    return question
