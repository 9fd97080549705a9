"""What a cell under a candidate says about the deviation that is asked about (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from harness.core.run import Cell, Finding
from harness.core.verdict import Verdict
from harness.judge import causes

Kind = Literal["good", "bad", "other", "untestable"]
"""`bad`: the deviation is there; `good`: it is not, and the cell was compared; `other`: it deviates in a way that the
question is not about; `untestable`: it could not be compared."""

_PLACE = re.compile(r" \(/[^()]*\)")
"""Where a module lies, as an ImportError tells it."""
_CONFIRMED = (Verdict.EXACT, Verdict.CLOSE, Verdict.WARNED)


@dataclass(frozen=True)
class Outcome:
    """What became of one candidate.

    Attributes:
        why: for a person: the verdict with its main finding, or why it could not be tested.
        verdict: as the cell's; empty where there was no cell.
    """

    kind: Kind
    why: str = ""
    verdict: str = ""

    @property
    def told(self) -> bool:
        """True where it answers the question."""
        return self.kind in ("good", "bad")


@dataclass(frozen=True)
class Deviation:
    """The deviation that is asked about, so that it is known again elsewhere.

    Attributes:
        main: the finding that decides what is the matter.
        all: all that deviates with it. Elsewhere a part of them may show without the main one: that is another matter,
            of another library perhaps, and leaves the candidate `good` as far as this question goes.
    """

    verdict: Verdict
    main: tuple[str, ...]
    all: frozenset[tuple[str, ...]]
    words: str

    @classmethod
    def of(cls, cell: Cell) -> Deviation:
        """What deviates in a cell that does."""
        main = causes.main_finding(cell)
        signature = _signature(main) if main else (str(cell.verdict),)
        return cls(
            cell.verdict, signature, _signatures(cell), causes.title(cell.model_copy(update={"expected": False}))
        )

    def outcome(self, cell: Cell) -> Outcome:
        """What a cell of the same fixture under another loader says."""
        said = words(cell)
        if cell.verdict.cannot_tell or cell.verdict is Verdict.UNSUPPORTED:
            return Outcome("untestable", said, str(cell.verdict))
        if cell.verdict.is_deviation and self.main in (_signatures(cell) or {(str(cell.verdict),)}):
            return Outcome("bad", said, str(cell.verdict))
        if cell.verdict in _CONFIRMED or _signatures(cell) < self.all:
            return Outcome("good", said, str(cell.verdict))
        return Outcome("other", f"deviates otherwise: {said}", str(cell.verdict))


def words(cell: Cell) -> str:
    """A cell in a few words."""
    plain = cell.model_copy(update={"expected": False})
    said = causes.title(plain).partition("; expected: ")[0]
    return str(cell.verdict) if cell.verdict.is_clean else f"{cell.verdict}: {_PLACE.sub('', said)}"


def _signatures(cell: Cell) -> frozenset[tuple[str, ...]]:
    return frozenset(_signature(finding) for finding in cell.findings if finding.verdict.is_deviation)


def _signature(finding: Finding) -> tuple[str, ...]:
    if causes.is_error(finding):
        return ("error", finding.stage or finding.probe, finding.error_type)
    return (finding.probe, finding.kind)
