"""Delta debugging over the pins: the smallest set of version changes that changes a verdict (pure).

Some packages differ between an environment in which the cell is sound and one in which it deviates. Starting from the
bad one, the search puts packages back to their old version: the likely culprits one by one, all others together and in
halves.

* Still bad: the packages are innocent and stay at their old version.
* Sound: the package is needed and stays at its new version.
* Untestable (it cannot be installed or imported, or deviates otherwise): skipped, as in a bisection.

So each answer is based on two environments that were tried, one sound and one bad, that differ only in the culprits.
Requirements between packages (`coupling`) prevent mixes that cannot work. A library that cannot be put back because of
them is tried once more, with the other packages resolved around it.

After Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.deviation.search.coupling import LIKELY, Ends, Mix, Side
from harness.deviation.search.outcome import Kind, Outcome

Label = Literal["needed", "innocent", "tied"]
MOST_CULPRITS = 3
"""How many independent sets of culprits are searched."""


@dataclass(frozen=True)
class Candidate:
    """An environment to try.

    Attributes:
        versions: all packages; if `pins` is set, the preferred versions of the other packages.
        words: the candidate in words, for the log.
        pins: packages that are pinned while the others are resolved; None if `versions` is exact.
    """

    versions: Mapping[str, str]
    words: str
    pins: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Ask:
    """The candidate to try next.

    Attributes:
        ahead: candidates that will probably follow; they can be built meanwhile.
        left: how many candidates remain at most, including this one.
    """

    candidate: Candidate
    ahead: tuple[Candidate, ...] = ()
    left: int = 1


@dataclass(frozen=True)
class Culprits:
    """One set of version changes that changes the verdict.

    Attributes:
        packages: the set; each of them is needed.
        companions: package of the set → packages that must change together with it.
        sound: a candidate that is sound.
        bad: a candidate that deviates; it differs from `sound` only in `packages` and their companions.
        still_bad_without: packages that were put back while the cell still deviated.
        tied: package → why it could not be put back.
    """

    packages: tuple[str, ...]
    companions: Mapping[str, tuple[str, ...]]
    sound: Candidate
    bad: Candidate
    still_bad_without: tuple[str, ...]
    tied: Mapping[str, str]


@dataclass(frozen=True)
class Blame:
    """The result of the search.

    Attributes:
        culprits: the sets, in the order in which they were found.
        complete: False if there may be further sets.
        why_not: why the search is incomplete.
    """

    culprits: tuple[Culprits, ...]
    complete: bool = True
    why_not: str = ""


Search = Generator[Ask, Outcome, Blame]


def search(ends: Ends) -> Search:
    """Find the sets of version changes that change the verdict. A generator: it yields candidates and is sent outcomes.

    Both ends must have been verified.
    """
    found: list[Culprits] = []
    start: Mix = frozenset(ends.differing)
    while len(found) < MOST_CULPRITS:
        hunt = _Hunt(ends, start)
        one = yield from hunt.run()
        if one is None:
            return Blame(tuple(found), False, hunt.why_not)
        found.append(one)
        put_back = ends.with_sides(start, dict.fromkeys(one.packages, "old"))
        if put_back is None or not put_back:
            return Blame(tuple(found), put_back is not None, "" if put_back is not None else "they depend on others")
        outcome = yield Ask(_exact(ends, put_back))
        if outcome.kind != "bad":
            return Blame(tuple(found), outcome.kind == "good", "" if outcome.kind == "good" else outcome.why)
        start = put_back  # there is another, independent cause
    return Blame(tuple(found), False, f"the search stops after {MOST_CULPRITS} sets")


@dataclass
class _Hunt:
    """The search for one set, starting from a bad mix."""

    ends: Ends
    mix: Mix
    labels: dict[str, Label] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    """Needed package → all packages that were put back together with it in the sound candidate."""
    witness: tuple[Candidate, Candidate] | None = None
    """A sound candidate and the bad one that it was made from."""
    why_not: str = ""
    jumped: Kind | None = None
    """Outcome of putting back at once all packages not known to be needed; None if that was not tried."""

    def run(self) -> Generator[Ask, Outcome, Culprits | None]:
        """The set; None if there is none, and `why_not` says why."""
        for package in self.ends.likely:
            if package in self.mix and package not in self.labels:
                yield from self._put_back_one(package)
        if not self._needed() or self.jumped == "good":
            yield from self._put_back_rest()  # there is a culprit among the unlikely packages
        for package in [p for p, label in self.labels.items() if label == "tied" and p in LIKELY and p in self.mix]:
            yield from self._try_again(package)
        return (yield from self._confirmed())

    # -- steps ------------------------------------------------------------------------------------------------------

    def _put_back_one(self, package: str) -> Generator[Ask, Outcome, None]:
        to = self._without([package])
        if to is None:
            self._tie(package, self._needed_by(package))
            return
        candidate = self._candidate(to)
        outcome = yield Ask(candidate, self._ahead(package, to), self._left())
        self._learn([package], to, candidate, outcome)
        if outcome.kind == "good":
            yield from self._jump()

    def _jump(self) -> Generator[Ask, Outcome, None]:
        """Put back at once all packages not known or implied to be needed. Usually this finishes the search."""
        needed = self._needed()
        least = self.ends.with_sides(frozenset(), dict.fromkeys(needed, "new"))
        if least is None or not least < self.mix:
            return
        candidate = self._candidate(least)
        outcome = yield Ask(candidate, (), self._left())
        self.jumped = outcome.kind
        if outcome.kind == "bad":
            self._accept(least)
            for package in least - set(needed):
                self._tie(package, self._needed_by(package))

    def _put_back_rest(self) -> Generator[Ask, Outcome, None]:
        """Put back the remaining packages: together, or in halves if the cell does not stay bad."""
        waiting = [self._unknown()] if self._unknown() else []
        while waiting:
            part = [package for package in waiting.pop(0) if package in self.mix and package not in self.labels]
            if not part:
                continue
            to = self._without(part)
            if to is None and len(part) == 1:
                self._tie(part[0], self._needed_by(part[0]))
            elif to is None:
                waiting = [*_halves(part), *waiting]
            else:
                candidate = self._candidate(to)
                outcome = yield Ask(candidate, (), self._left())
                if outcome.kind == "bad" or len(part) == 1:
                    self._learn(part, to, candidate, outcome)
                else:
                    waiting = [*_halves(part), *waiting]

    def _try_again(self, package: str) -> Generator[Ask, Outcome, None]:
        """Try again to put back a package that was tied: in the smaller mix, or with the others resolved around it."""
        to = self._without([package])
        if to is not None:
            candidate = self._candidate(to)
            outcome = yield Ask(candidate, (), self._left())
            self._learn([package], to, candidate, outcome)
        elif self.ends.version(package, "old") is not None:
            yield from self._resolve_around(package)

    def _resolve_around(self, package: str) -> Generator[Ask, Outcome, None]:
        now = self.ends.versions(self.mix)
        held = [name for name in self.ends.likely if self.labels.get(name) in ("needed", "innocent")]
        pins = {name: now[name] for name in (*self._needed(), *held) if name in now and name != package}
        pins[package] = str(self.ends.version(package, "old"))
        candidate = Candidate(now, f"{package} {pins[package]} put back, the rest resolved around it", pins)
        outcome = yield Ask(candidate, (), self._left())
        if outcome.kind == "bad":
            self.labels[package] = "innocent"
            self.reasons.pop(package, None)
        elif outcome.kind == "good":
            self.labels[package] = "needed"
            self.reasons.pop(package, None)
            self.witness = self.witness or (candidate, self._candidate(self.mix))
        else:
            self.reasons[package] = outcome.why

    def _confirmed(self) -> Generator[Ask, Outcome, Culprits | None]:
        needed = self._needed()
        if not needed or self.witness is None:
            said = "; ".join(f"{package}: {why}" for package, why in self.reasons.items())
            self.why_not = said or "putting packages back never makes the cell sound"
            return None
        sound, bad = self.witness
        if len(needed) > 1:
            to = self._without(list(needed), keep=())
            if to is not None:
                candidate = self._candidate(to)
                outcome = yield Ask(candidate, (), 1)
                if outcome.kind == "good":
                    sound, bad = candidate, self._candidate(self.mix)
        innocent = tuple(sorted(p for p, label in self.labels.items() if label == "innocent"))
        companions = self._companions(needed)
        along = {package for those in companions.values() for package in those}
        tied = {package: why for package, why in self.reasons.items() if package not in along and package not in needed}
        return Culprits(needed, companions, sound, bad, innocent, tied)

    # -- what is known ----------------------------------------------------------------------------------------------

    def _learn(self, asked: Sequence[str], to: Mix, candidate: Candidate, outcome: Outcome) -> None:
        back = self.mix - to
        if outcome.kind == "bad":
            self._accept(to)
        elif outcome.kind == "good":
            self.witness = (candidate, self._candidate(self.mix))
            head = asked[0]
            self.labels[head] = "needed"
            self.groups[head] = back
            for package in back - {head}:  # they cannot be told apart: each requires the other
                if package in self.ends.companions(head) and head in self.ends.companions(package):
                    self.labels[package] = "tied"
        else:
            self._tie(asked[0], outcome.why)

    def _accept(self, to: Mix) -> None:
        for package in self.mix - to:
            self.labels[package] = "innocent"
            self.reasons.pop(package, None)
        self.mix = to

    def _tie(self, package: str, why: str) -> None:
        self.labels[package] = "tied"
        self.reasons[package] = why

    def _needed(self) -> tuple[str, ...]:
        return tuple(p for p in self.ends.differing if self.labels.get(p) == "needed")

    def _unknown(self) -> list[str]:
        return [package for package in self.ends.differing if package in self.mix and package not in self.labels]

    def _companions(self, needed: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {
            package: tuple(p for p in self.ends.differing if p in self.ends.companions(package) and p in group)
            for package in needed
            if len(group := self.groups.get(package, frozenset())) > 1
        }

    # -- candidates -------------------------------------------------------------------------------------------------

    def _without(self, packages: Sequence[str], keep: Sequence[str] | None = None) -> Mix | None:
        held = self._needed() if keep is None else keep
        must: dict[str, Side] = dict.fromkeys(held, "new")
        back: dict[str, Side] = dict.fromkeys(packages, "old")
        to = self.ends.with_sides(self.mix, must | back)
        return None if to == self.mix or (to is not None and not to < self.mix) else to

    def _needed_by(self, package: str) -> str:
        for needed in self._needed():
            if package in self.ends.companions(needed):
                return f"{_at(self.ends, needed, 'new')} cannot be installed with {_at(self.ends, package, 'old')}"
        return "it cannot be put back alone: the remaining versions require it"

    def _candidate(self, mix: Mix) -> Candidate:
        return _exact(self.ends, mix)

    def _ahead(self, package: str, to: Mix) -> tuple[Candidate, ...]:
        """The next candidates: if this one is sound, and if it is bad."""
        least = self.ends.with_sides(frozenset(), {package: "new"})
        following = [p for p in self.ends.likely if p in to and p not in self.labels and p != package]
        then = self.ends.with_sides(to, {following[0]: "old"}) if following else None
        found = [least if least is not None and least < self.mix else None, then]
        return tuple(self._candidate(mix) for mix in found if mix)

    def _left(self) -> int:
        """Upper bound: each likely culprit with a jump or second try, the others in halves, and two checks."""
        unknown = self._unknown()
        actors = sum(package in LIKELY for package in unknown)
        others = len(unknown) - actors
        tied = sum(label == "tied" and package in LIKELY for package, label in self.labels.items())
        halves = 2 * others - 1 if others > 1 else others
        return 2 * actors + halves + tied + 2


def _halves(part: list[str]) -> list[list[str]]:
    middle = (len(part) + 1) // 2
    return [part[:middle], part[middle:]]


def _exact(ends: Ends, mix: Mix) -> Candidate:
    return Candidate(ends.versions(mix), _words(ends, mix))


def _words(ends: Ends, mix: Mix) -> str:
    back = [package for package in ends.differing if package not in mix]
    if len(back) <= len(mix):
        return f"{_named(ends, back, 'old')} put back" if back else "all at their new version"
    forth = [package for package in ends.differing if package in mix]
    return f"only {_named(ends, forth, 'new')} at the new version" if forth else "all at their old version"


def _named(ends: Ends, packages: Sequence[str], side: Side) -> str:
    """The first three packages with their version on a side. The rest is counted."""
    more = [f"{len(packages) - 3} more"] if len(packages) > 3 else []
    return ", ".join([*(_at(ends, package, side) for package in packages[:3]), *more])


def _at(ends: Ends, package: str, side: Side) -> str:
    version = ends.version(package, side)
    return f"{package} {version}" if version else f"no {package}"
