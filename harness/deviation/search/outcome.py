"""The outcome of trying a candidate: does the cell still show the deviation in question? (pure)"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.core.run import Cell, Finding
from harness.core.verdict import Verdict
from harness.judge import causes

Kind = Literal["good", "bad", "other", "untestable"]
"""`bad`: the deviation is there; `good`: it is not, and the cell was compared; `other`: another deviation is there;
`untestable`: the cell could not be compared."""

KIND_WORDS: Mapping[Kind, str] = {
    "good": "sound",
    "bad": "deviates",
    "other": "deviates otherwise",
    "untestable": "untestable",
}

_PLACE = re.compile(r" \(/[^()]*\)")
"""The path of a module within the message of an ImportError."""
_CONFIRMED = (Verdict.EXACT, Verdict.CLOSE, Verdict.WARNED)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one candidate.

    Attributes:
        why: the verdict with its main finding, or why the candidate could not be tested.
        verdict: the cell's verdict; empty if there was no cell.
    """

    kind: Kind
    why: str = ""
    verdict: str = ""

    @property
    def is_answer(self) -> bool:
        """True if it answers the question."""
        return self.kind in ("good", "bad")


@dataclass(frozen=True)
class Deviation:
    """A deviation, described so that it can be recognised under other environments.

    Attributes:
        main: signature of the main finding.
        all: signatures of all deviating findings. A candidate that shows some of them without the main one is `good`:
            they may have another cause.
    """

    verdict: Verdict
    main: tuple[str, ...]
    all: frozenset[tuple[str, ...]]
    words: str

    @classmethod
    def of(cls, cell: Cell) -> Deviation:
        """The deviation of a cell that deviates."""
        main = causes.main_finding(cell)
        signature = _signature(main) if main else (str(cell.verdict),)
        return cls(
            cell.verdict, signature, _signatures(cell), causes.title(cell.model_copy(update={"expected": False}))
        )

    def outcome(self, cell: Cell) -> Outcome:
        """The outcome of the same fixture under another loader."""
        said = words(cell)
        if not cell.verdict.is_judged:
            return Outcome("untestable", said, str(cell.verdict))
        if cell.verdict.is_deviation and self.main in (_signatures(cell) or {(str(cell.verdict),)}):
            return Outcome("bad", said, str(cell.verdict))
        if cell.verdict in _CONFIRMED or _signatures(cell) < self.all:
            return Outcome("good", said, str(cell.verdict))
        return Outcome("other", f"deviates otherwise: {said}", str(cell.verdict))


def words(cell: Cell) -> str:
    """A cell's verdict with its main finding, in a few words."""
    plain = cell.model_copy(update={"expected": False})
    said = causes.title(plain).partition("; expected: ")[0]
    return str(cell.verdict) if cell.verdict.is_clean else f"{cell.verdict}: {_PLACE.sub('', said)}"


def _signatures(cell: Cell) -> frozenset[tuple[str, ...]]:
    return frozenset(_signature(finding) for finding in cell.findings if finding.verdict.is_deviation)


def _signature(finding: Finding) -> tuple[str, ...]:
    if causes.is_error(finding):
        return ("error", finding.stage or finding.probe, finding.error_type)
    return (finding.probe, finding.kind)
