"""The outcome of trying a candidate: does the cell still show the deviation in question? (pure)"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from harness.core.run import Cell, Finding
from harness.core.verdict import Verdict
from harness.judge import causes

Kind = Literal["good", "bad", "other", "untestable"]
"""`bad`: the deviation is there; `good`: nothing deviates, and the cell was compared; `other`: something else deviates,
so it is not known whether the deviation in question is there; `untestable`: the cell could not be compared."""

KIND_WORDS: Mapping[Kind, str] = {
    "good": "clean",
    "bad": "deviates",
    "other": "deviates otherwise",
    "untestable": "untestable",
}


def result_words(kind: Kind, verdict: str) -> str:
    """An outcome in a word or two. A cell that still shows lesser findings is not called clean."""
    if kind == "good" and verdict and not Verdict(verdict).is_clean:
        return "without it"
    return KIND_WORDS[kind]


ALIKE = 1.2
"""How many times greater one difference may be than another of the same size. One cause under two releases of a
library that it does not depend on differs by less than 1.01; other causes by a factor."""
_SIMILAR = 0.6
"""The least similarity (`difflib`) of two messages of one error: a release may reword a message."""
_PLACE = re.compile(r" \(/[^()]*\)")
"""The path of a module within the message of an ImportError."""


@dataclass(frozen=True)
class Sign:
    """What one finding says, so that it can be recognised under other environments.

    Attributes:
        what: for an error its stage and type, else probe and kind.
        text: an error's message without numbers and names; for other findings the tensors or layers concerned.
        shape: of the array with the greatest difference.
        size: the greatest difference; None if the finding has no array.
        pattern: what turns one into the other, such as a factor; empty if none was recognised.
    """

    verdict: str
    what: tuple[str, ...]
    text: str = ""
    array: str = ""
    shape: tuple[int, ...] = ()
    size: float | None = None
    pattern: str = ""

    def is_like(self, other: Sign) -> bool:
        """True if both say the same: one finding, about the same tensors, of one pattern and about one size."""
        if (self.verdict, self.what) != (other.verdict, other.what) or not self._same_text(other):
            return False
        if self.array == other.array and self.shape != other.shape:
            return False
        if self.pattern and other.pattern and self.pattern != other.pattern:
            return False
        return _alike(self.size, other.size)

    def _same_text(self, other: Sign) -> bool:
        if self.what[0] != "error" or self.text == other.text:
            return self.text == other.text
        return difflib.SequenceMatcher(None, self.text, other.text, autojunk=False).ratio() >= _SIMILAR


@dataclass(frozen=True)
class Seen:
    """What a candidate showed.

    Attributes:
        verdict: the cell's verdict; empty if there was no cell.
        words: the verdict with its main finding, or why the candidate could not be tested.
        signs: the deviating findings, the main one first.
    """

    verdict: str
    words: str
    signs: tuple[Sign, ...] = ()

    @classmethod
    def of(cls, cell: Cell) -> Self:
        """What a cell shows."""
        found = sorted((one for one in cell.findings if one.verdict.is_deviation), key=causes.importance)
        signs = tuple(dict.fromkeys(map(_sign, found)))
        if cell.verdict.is_deviation and not signs:
            signs = (Sign(str(cell.verdict), (str(cell.verdict),)),)
        return cls(str(cell.verdict), words(cell), signs)

    @classmethod
    def untestable(cls, why: str) -> Self:
        """A candidate that has no cell."""
        return cls("", why)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` made of it, from JSON."""
        signs = (
            Sign(**{**one, "what": tuple(one["what"]), "shape": tuple(one["shape"])}) for one in data["signs"]
        )  # fmt: skip
        return cls(str(data["verdict"]), str(data["words"]), tuple(signs))

    @property
    def is_judged(self) -> bool:
        """True if the cell was compared."""
        return bool(self.verdict) and Verdict(self.verdict).is_judged

    @property
    def deviates(self) -> bool:
        """True if the cell was compared and deviates."""
        return bool(self.verdict) and Verdict(self.verdict).is_deviation


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
        main: the main finding.
        all: all deviating findings.
        accepted: deviating findings that do not count; a candidate with no others is `good`.
    """

    main: Sign
    all: tuple[Sign, ...]
    words: str
    accepted: tuple[Sign, ...] = ()

    @classmethod
    def of(cls, seen: Seen, accepted: tuple[Sign, ...] = ()) -> Self:
        """The deviation that a candidate showed."""
        return cls(seen.signs[0], seen.signs, seen.words, accepted)

    def accepting_lesser(self) -> Self:
        """The same deviation, where a cell that shows its lesser findings alone is `good`.

        They appear beside the main finding, so they do not hide it.
        """
        return replace(self, accepted=tuple(one for one in self.all if not one.is_like(self.main)))

    def accepting(self, good: Seen) -> Self:
        """The same deviation, where the good end shows some of its lesser findings too."""
        return replace(self, accepted=good.signs)

    def leaves(self, good: Seen) -> bool:
        """True if a good end shows nothing that the deviation does not, and not its main finding."""
        return good.is_judged and all(_among(one, self.all) and not one.is_like(self.main) for one in good.signs)

    def outcome(self, seen: Seen) -> Outcome:
        """The outcome of a candidate: `good` only if nothing deviates that does not deviate in the good end."""
        if not seen.is_judged:
            return Outcome("untestable", seen.words, seen.verdict)
        if seen.deviates and _among(self.main, seen.signs):
            return Outcome("bad", seen.words, seen.verdict)
        if all(_among(one, self.accepted) for one in seen.signs):
            return Outcome("good", seen.words, seen.verdict)
        return Outcome("other", self._contrast(seen), seen.verdict)

    def _contrast(self, seen: Seen) -> str:
        """What came instead; with both sizes where only these differ."""
        for one in seen.signs:
            sizes = one.size is not None and self.main.size is not None and not _alike(one.size, self.main.size)
            if one.what == self.main.what and sizes:
                return f"{seen.words}, by {one.size:.2g} instead of {self.main.size:.2g}"
        return seen.words


def words(cell: Cell) -> str:
    """A cell's verdict with its main finding, in a few words."""
    plain = cell.model_copy(update={"expected": False})
    said = causes.title(plain).partition("; expected: ")[0]
    plainly = cell.verdict.is_clean or cell.verdict is Verdict.REFUSED
    return str(cell.verdict) if plainly else f"{cell.verdict}: {_PLACE.sub('', said)}"


def _sign(finding: Finding) -> Sign:
    verdict = str(finding.verdict)
    if causes.is_error(finding):
        text = causes.normalised(causes.raised(finding))
        return Sign(verdict, ("error", finding.stage or finding.probe, finding.error_type), text)
    what = (finding.probe, finding.kind)
    if (figures := finding.figures) is not None:
        return Sign(verdict, what, "", figures.array, figures.shape, figures.max_abs, _pattern(finding))
    return Sign(verdict, what, "\n".join(sorted(finding.details)) or causes.normalised(finding.message))


def _pattern(finding: Finding) -> str:
    if (one := finding.pattern) is None:
        return ""
    return f"{one.kind} {one.short} {'' if one.factor is None else f'{one.factor:.3g}'}".strip()


def _among(sign: Sign, signs: tuple[Sign, ...]) -> bool:
    return any(sign.is_like(one) for one in signs)


def _alike(one: float | None, other: float | None) -> bool:
    if one is None or other is None or not (math.isfinite(one) and math.isfinite(other)):
        return repr(one) == repr(other)
    small, great = sorted((one, other))
    return great <= ALIKE * small
