"""What the trials of a search show: which changes a deviation needs, and which of that is not known (pure).

The packages that differ have their old version in some trials and their new one in others. A deviation has a cause: a
set of changes that it needs. From this follows:

* A trial that deviates has the whole cause. What it has at the old version is not needed.
* A clean trial lacks at least one change of the cause. If it lacks only one of those that the deviating trial has, that
  one is needed.
* A trial that deviates otherwise, or could not be tested, shows neither.

Whatever the trials leave open is listed as not known, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.deviation.search.coupling import LIKELY, Ends, Mix, rank
from harness.deviation.search.outcome import Kind

_NEVER = "it was not put back alone"


@dataclass(frozen=True)
class Trial:
    """A set of versions that was tried.

    Attributes:
        new: the differing packages that have their new version.
        old: those that have their old version. A package in neither set has a third version.
        why: what the cell showed, or why it could not be tested.
    """

    words: str
    new: Mix
    old: Mix
    kind: Kind
    why: str = ""
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, ends: Ends, versions: Mapping[str, str], words: str, kind: Kind, why: str = "") -> Trial:
        """The trial of an environment with these packages."""
        new = frozenset(p for p in ends.differing if versions.get(p) == ends.version(p, "new"))
        old = frozenset(p for p in ends.differing if versions.get(p) == ends.version(p, "old"))
        return cls(words, new, old, kind, why, versions)


@dataclass(frozen=True)
class Unknown:
    """Why it is not known whether a change is needed.

    Attributes:
        kind: of the trial in which the package was put back; None if there is none.
        clean: how many clean trials have the package at its new version: it alone does not cause the deviation.
    """

    kind: Kind | None
    why: str
    clean: int = 0


@dataclass(frozen=True)
class Cause:
    """What the trials show of one cause.

    Attributes:
        deviation: in words.
        needed: packages whose change the deviation needs.
        companions: needed package → packages that must change together with it, because of their requirements.
        unknown: package → why it is not known whether its change is needed too.
        shown: True if a trial deviates in which nothing else is new: the needed changes suffice.
        free: packages that were put back while the cell deviated in the same way.
        put_back: in how many such trials.
        clean: a clean trial; None if there is none.
        bad: the trial that deviates with the fewest changes.
        start: the packages that were new when the search for it began.
        instead: True if the deviation came when the cause before this one was put back.
    """

    deviation: str
    needed: tuple[str, ...]
    companions: Mapping[str, tuple[str, ...]]
    unknown: Mapping[str, Unknown]
    shown: bool
    free: tuple[str, ...]
    put_back: int
    clean: Trial | None
    bad: Trial
    start: Mix
    instead: bool = False

    @property
    def suspects(self) -> tuple[str, ...]:
        """The needed packages, and those that may be needed; without companions."""
        return (*self.needed, *self.unknown)

    @property
    def put_right(self) -> tuple[str, ...]:
        """The packages to put back to be rid of it: those that are needed, or else all suspects."""
        return self.needed or tuple(self.unknown)

    @property
    def changes(self) -> Mix:
        """All packages that may belong to the cause, with companions."""
        return frozenset(self.suspects).union(*self.companions.values())


@dataclass(frozen=True)
class Blame:
    """The result of a search.

    Attributes:
        causes: in the order in which they were found. If the trials do not fit any cause, there is none.
        misfits: clean trials that have a whole cause: the trials do not fit together. Empty if they do.
        unexplained: trials that deviate without any of the causes.
        complete: True if the cell is clean with all causes put back.
        why_not: why there may be further causes.
    """

    causes: tuple[Cause, ...]
    misfits: tuple[Trial, ...] = ()
    unexplained: tuple[Trial, ...] = ()
    complete: bool = True
    why_not: str = ""


def conclude(
    ends: Ends, trials: Sequence[Trial], start: Mix | None = None, deviation: str = "it", instead: bool = False
) -> Cause | None:
    """What the trials show of the cause that a mix has.

    Args:
        trials: judged by the deviation in question. One of them has the mix and deviates.
        start: the mix; default: everything new.
    """
    start = frozenset(ends.differing) if start is None else start
    bads = sorted(
        (one for one in trials if one.kind == "bad" and _not_old(ends, one) <= start),
        key=lambda one: (len(_not_old(ends, one)), [rank(p) for p in sorted(one.new, key=rank)]),
    )
    clean = [one for one in trials if one.kind == "good"]
    possible = [one for one in bads if not _held_by(_not_old(ends, one), clean)]
    if not possible:
        return None
    least, held = possible[0], _not_old(ends, possible[0])
    for one in bads:
        fewer = held & _not_old(ends, one)
        if fewer and not _held_by(fewer, clean):
            held = fewer
    needed, companions = _needed(ends, held, clean)
    along = frozenset(package for those in companions.values() for package in those)
    rest = sorted(held - along - set(needed), key=rank)
    within = [one for one in trials if _not_old(ends, one) <= start]
    unknown = {package: _unknown(package, held, within) for package in rest}
    free = tuple(p for p in ends.differing if p in start - held)
    return Cause(
        deviation, needed, companions, unknown, shown=any(_not_old(ends, one) <= held for one in bads) and not unknown,
        free=free, put_back=sum(bool(one.old & set(free)) for one in bads), clean=_nearest(held, clean), bad=least,
        start=start, instead=instead,
    )  # fmt: skip


def counted(cause: Cause, trials: Sequence[Trial]) -> Cause:
    """The cause with its clean trials counted among all trials, those of later causes too."""
    unknown = {package: replace(one, clean=_clean_with(package, trials)) for package, one in cause.unknown.items()}
    return replace(cause, unknown=unknown)


def misfits(causes: Sequence[Cause], judged: Sequence[Sequence[Trial]]) -> tuple[Trial, ...]:
    """Clean trials that have all changes of a cause.

    Args:
        judged: for each cause all trials, judged by its deviation.
    """
    pairs = [(cause, one) for cause, trials in zip(causes, judged, strict=True) for one in trials]
    return tuple(dict.fromkeys(one for cause, one in pairs if one.kind == "good" and cause.changes <= one.new))


def unexplained(causes: Sequence[Cause], ends: Ends, judged: Sequence[Sequence[Trial]]) -> tuple[Trial, ...]:
    """Trials that deviate without any of the causes that were found for that deviation."""
    found: list[Trial] = []
    for place, trials in enumerate(judged):
        alike = _of_the_same_deviation(causes, place)
        bads = [one for one in trials if one.kind == "bad" and _not_old(ends, one) <= alike[0].start]
        found += [one for one in bads if not any(_explains(other, _not_old(ends, one)) for other in alike)]
    return tuple(dict.fromkeys(found))


def _explains(cause: Cause, mix: Mix) -> bool:
    """True if a mix has all that the cause needs; if that is not known, one of its suspects."""
    return set(cause.needed) <= mix if cause.needed else not mix.isdisjoint(cause.suspects)


def _of_the_same_deviation(causes: Sequence[Cause], place: int) -> Sequence[Cause]:
    first = max((at for at in range(place + 1) if causes[at].instead), default=0)
    last = next((at for at in range(place + 1, len(causes)) if causes[at].instead), len(causes))
    return causes[first:last]


def _not_old(ends: Ends, trial: Trial) -> Mix:
    return frozenset(ends.differing) - trial.old


def _held_by(mix: Mix, clean: Iterable[Trial]) -> bool:
    return any(mix <= one.new for one in clean)


def _needed(ends: Ends, held: Mix, clean: Sequence[Trial]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The packages that a clean trial lacks as the only ones, and what else must have its new version with them."""
    lacking = sorted({held - one.new for one in clean}, key=len)
    needed: list[str] = []
    companions: dict[str, tuple[str, ...]] = {}
    for group in lacking:
        head = _head(ends, group)
        if head is None or group & set(needed):
            continue
        needed.append(head)
        if along := tuple(p for p in sorted(held - {head}, key=rank) if p in group or _goes_along(ends, p, head)):
            companions[head] = along
    return tuple(sorted(needed, key=rank)), companions


def _goes_along(ends: Ends, package: str, head: str) -> bool:
    """True if a package, which is no likely culprit, cannot be put back while another is new."""
    return package in ends.companions(head) and package not in LIKELY


def _head(ends: Ends, group: Mix) -> str | None:
    """The package of a group that all others must change together with; None if they could be separated."""
    for package in sorted(group, key=rank):
        rest = group - {package}
        if rest <= ends.companions(package) and not rest & set(LIKELY):
            return package
    return None


def _unknown(package: str, held: Mix, trials: Sequence[Trial]) -> Unknown:
    clean = _clean_with(package, trials)
    back = [one for one in trials if package in one.old and one.kind in ("other", "untestable")]
    alone = sorted(back, key=lambda one: (len(held - one.new), one.kind == "untestable", len(one.old)))
    if not alone:
        return Unknown(None, _NEVER, clean)
    return Unknown(alone[0].kind, alone[0].why, clean)


def _clean_with(package: str, trials: Sequence[Trial]) -> int:
    return sum(one.kind == "good" and package in one.new for one in trials)


def _nearest(held: Mix, clean: Sequence[Trial]) -> Trial | None:
    return min(clean, key=lambda one: (len(held - one.new), len(one.old)), default=None)
