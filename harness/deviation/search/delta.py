"""Delta debugging over the pins: which mix of two environments to try next (pure).

Some packages differ between an environment in which the cell is clean and one in which it deviates. Starting from the
bad one, the search puts packages back to their old version: the likely culprits one by one, all others together and in
halves.

* It deviates in the same way: the packages are free and stay at their old version.
* It is clean: the package is needed and stays at its new version.
* It deviates otherwise, or cannot be tested: the package stays at its new version for now, and is tried once more when
  fewer packages are new.

`conclusion` says what the trials show in the end. Requirements between packages (`coupling`) prevent mixes that cannot
work. A library that cannot be put back because of them is tried with the other packages resolved around it.

After Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.deviation.search.coupling import LIKELY, Ends, Mix, Side
from harness.deviation.search.outcome import Outcome

Label = Literal["needed", "free", "open"]
MOST_IN_VAIN = 6
"""Once a needed package is known, the halving of the others ends after so many parts that could not be tested."""


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
        last: why this one is tried when the others are done; empty for the others.
    """

    candidate: Candidate
    ahead: tuple[Candidate, ...] = ()
    left: int = 1
    last: str = ""


Search = Generator[Ask, Outcome, Mix]


def search(ends: Ends, start: Mix | None = None) -> Search:
    """Reduce a mix that deviates to the fewest changes. A generator: it yields candidates and is sent outcomes.

    Args:
        start: a mix that deviates; default: everything new. Both ends must have been verified.

    Returns:
        The smallest mix that still deviates.
    """
    return _Hunt(ends, frozenset(ends.differing) if start is None else start).run()


@dataclass
class _Hunt:
    """The reduction of one bad mix."""

    ends: Ends
    mix: Mix
    labels: dict[str, Label] = field(default_factory=dict)

    def run(self) -> Search:
        for package in self.ends.likely:
            if package in self.mix and package not in self.labels:
                yield from self._put_back_one(package)
        yield from self._jump("open")
        yield from self._put_back_rest()
        for package in [p for p in self.ends.likely if self.labels.get(p) == "open" and p in self.mix]:
            yield from self._try_again(package)
        return self.mix

    # -- steps ------------------------------------------------------------------------------------------------------

    def _put_back_one(self, package: str) -> Generator[Ask, Outcome, None]:
        to = self._without([package])
        if to is None:
            self.labels[package] = "open"
            return
        outcome = yield Ask(self._candidate(to), self._ahead(package, to), self._left())
        self._learn([package], to, outcome)
        if outcome.kind == "good":
            yield from self._jump()

    def _jump(self, *labels: Label) -> Generator[Ask, Outcome, None]:
        """Put back at once all packages that nothing needed requires. Usually this finishes the search.

        Args:
            labels: packages with these labels stay too.
        """
        kept = [p for p in self.ends.differing if p in self.mix and self.labels.get(p) in ("needed", *labels)]
        least = self.ends.with_sides(frozenset(), dict.fromkeys(kept, "new"))
        if least is None or not least < self.mix or not (kept and self._unlabelled()):
            return
        outcome = yield Ask(self._candidate(least), (), self._left())
        if outcome.kind == "bad":
            self._accept(least)
            self.labels |= dict.fromkeys([p for p in least if p not in self.labels], "open")

    def _put_back_rest(self) -> Generator[Ask, Outcome, None]:
        """Put back the remaining packages: together, or in halves if the cell does not deviate in the same way."""
        waiting, in_vain = [self._unlabelled()], 0
        while waiting:
            part = [package for package in waiting.pop(0) if package in self.mix and package not in self.labels]
            if not part:
                continue
            to = self._without(part)
            if to is None and len(part) == 1:
                self.labels[part[0]] = "open"
            elif to is None:
                waiting = [*_halves(part), *waiting]
            elif self._needed() and in_vain >= MOST_IN_VAIN:
                return
            else:
                outcome = yield Ask(self._candidate(to), (), self._left())
                in_vain += not outcome.is_answer
                if outcome.kind == "bad" or len(part) == 1:
                    self._learn(part, to, outcome)
                else:
                    waiting = [*_halves(part), *waiting]

    def _try_again(self, package: str) -> Generator[Ask, Outcome, None]:
        """Try once more to put a package back: in the smaller mix, or with the others resolved around it."""
        to = self._without([package])
        if to is not None:
            outcome = yield Ask(self._candidate(to), (), self._left())
            self._learn([package], to, outcome)
        elif self.ends.version(package, "old") is not None:
            yield self._around(package)

    def _around(self, package: str) -> Ask:
        now = self.ends.versions(self.mix)
        held = [name for name in self.ends.likely if self.labels.get(name) in ("needed", "free")]
        pins = {name: now[name] for name in (*self._needed(), *held) if name in now and name != package}
        pins[package] = str(self.ends.version(package, "old"))
        return Ask(Candidate(now, f"{package} {pins[package]} put back, the rest resolved around it", pins), (), 1)

    # -- what is known ----------------------------------------------------------------------------------------------

    def _learn(self, asked: Sequence[str], to: Mix, outcome: Outcome) -> None:
        if outcome.kind == "bad":
            self._accept(to)
        elif outcome.kind == "good":
            head = asked[0]
            self.labels[head] = "needed"
            for package in self.mix - to - {head}:  # they cannot be told apart: each requires the other
                if package in self.ends.companions(head) and head in self.ends.companions(package):
                    self.labels[package] = "open"
        else:
            self.labels[asked[0]] = "open"

    def _accept(self, to: Mix) -> None:
        self.labels |= dict.fromkeys(self.mix - to, "free")
        self.mix = to

    def _needed(self) -> tuple[str, ...]:
        return tuple(p for p in self.ends.differing if self.labels.get(p) == "needed")

    def _unlabelled(self) -> list[str]:
        return [package for package in self.ends.differing if package in self.mix and package not in self.labels]

    # -- candidates -------------------------------------------------------------------------------------------------

    def _without(self, packages: Sequence[str]) -> Mix | None:
        must: dict[str, Side] = dict.fromkeys(self._needed(), "new")
        back: dict[str, Side] = dict.fromkeys(packages, "old")
        to = self.ends.with_sides(self.mix, must | back)
        return None if to == self.mix or (to is not None and not to < self.mix) else to

    def _candidate(self, mix: Mix) -> Candidate:
        return exact(self.ends, mix)

    def _ahead(self, package: str, to: Mix) -> tuple[Candidate, ...]:
        """The next candidates: if this one is clean, and if it is bad."""
        least = self.ends.with_sides(frozenset(), {package: "new"})
        following = [p for p in self.ends.likely if p in to and p not in self.labels and p != package]
        then = self.ends.with_sides(to, {following[0]: "old"}) if following else None
        found = [least if least is not None and least < self.mix else None, then]
        return tuple(self._candidate(mix) for mix in found if mix)

    def _left(self) -> int:
        """Upper bound: each likely culprit with a jump or second try, and the others in halves."""
        unknown = self._unlabelled()
        actors = sum(package in LIKELY for package in unknown)
        others = len(unknown) - actors
        again = sum(label == "open" and package in LIKELY for package, label in self.labels.items())
        halves = 2 * others - 1 if others > 1 else others
        return 2 * actors + halves + again + 1


def _halves(part: list[str]) -> list[list[str]]:
    middle = (len(part) + 1) // 2
    return [part[:middle], part[middle:]]


def exact(ends: Ends, mix: Mix) -> Candidate:
    """The candidate that is a mix of both ends."""
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
