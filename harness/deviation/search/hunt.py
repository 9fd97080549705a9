"""The search for all causes of a deviation, one after the other (pure).

`delta` reduces a mix that deviates, and `conclusion` says what the trials show. Then the cause is put back: what still
deviates has another cause, of the same deviation or of another one that comes instead.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from harness.deviation.search import conclusion, delta
from harness.deviation.search.conclusion import Blame, Cause, Trial
from harness.deviation.search.coupling import Ends, Mix
from harness.deviation.search.delta import Ask
from harness.deviation.search.outcome import Deviation, Outcome, Seen

MOST_CAUSES = 3
"""How many causes are searched, one after the other."""
MOST_SUSPECTS = 4
"""The search ends if more packages than this may be needed."""


@dataclass(frozen=True)
class Result:
    """What a candidate showed, and its packages as resolved."""

    seen: Seen
    versions: Mapping[str, str]


Hunt = Generator[Ask, Result, Blame]


def hunt(ends: Ends, deviation: Deviation, good: Seen, bad: Seen) -> Hunt:
    """Find the causes of a deviation. A generator: it yields candidates and is sent what they showed.

    Args:
        good: what the good end showed.
        bad: what the bad end showed.
    """
    table = _Table(ends, deviation)
    table.add("the good end", Result(good, ends.old))
    table.add("the bad end", Result(bad, ends.new))
    start: Mix = frozenset(ends.differing)
    words, instead = deviation.words, False
    while True:
        yield from _reduced(ends, table, start)
        one = conclusion.conclude(ends, table.trials(), start, words, instead)
        if one is None:
            return table.blame("no trial tells packages apart")
        table.conclude(one)
        if not one.needed and len(one.unknown) > MOST_SUSPECTS:
            return table.blame(f"{len(one.unknown)} packages could not be put back one by one")
        put_right = ends.with_sides(start, dict.fromkeys(one.put_right, "old"))
        if put_right is None or not put_right < start:
            return table.blame(f"{', '.join(one.put_right)} cannot be put back: other packages depend on it")
        if not put_right:
            return table.blame()
        left = yield from _tried(table, Ask(delta.exact(ends, put_right), last="the cause put back"))
        if table.outcome(left).kind in ("good", "untestable"):
            return table.blame("" if table.outcome(left).kind == "good" else left.words)
        if len(table.causes) == MOST_CAUSES:
            return table.blame(f"the search stops after {MOST_CAUSES} causes")
        start, instead = put_right, table.outcome(left).kind == "other"
        if instead:
            words = table.outcome(left).why
            table.deviation = Deviation.of(left, deviation.accepted)


def _reduced(ends: Ends, table: _Table, start: Mix) -> Generator[Ask, Result, None]:
    search = delta.search(ends, start)
    try:
        ask = next(search)
        while True:
            seen = yield from _tried(table, ask)
            ask = search.send(table.outcome(seen))
    except StopIteration:
        return


def _tried(table: _Table, ask: Ask) -> Generator[Ask, Result, Seen]:
    if (known := table.known(ask)) is not None:
        return known
    result = yield ask
    table.add(ask.candidate.words, result)
    return result.seen


@dataclass
class _Table:
    """What was tried, and the causes that were concluded."""

    ends: Ends
    deviation: Deviation
    results: list[tuple[str, Result]] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)

    def add(self, words: str, result: Result) -> None:
        self.results.append((words, result))

    def known(self, ask: Ask) -> Seen | None:
        """What a candidate showed before; None if it is new, or has to be resolved."""
        if ask.candidate.pins is not None:
            return None
        return next((one.seen for _, one in self.results if one.versions == ask.candidate.versions), None)

    def outcome(self, seen: Seen) -> Outcome:
        return self.deviation.outcome(seen)

    def trials(self) -> list[Trial]:
        """All trials, judged by the deviation in question."""
        return [self._trial(words, one, self.deviation) for words, one in self.results]

    def conclude(self, cause: Cause) -> None:
        self.causes.append(cause)
        self.deviations.append(self.deviation)

    def blame(self, why_not: str = "") -> Blame:
        judged = [[self._trial(words, one, by) for words, one in self.results] for by in self.deviations]
        misfits = conclusion.misfits(self.causes, judged)
        unexplained = conclusion.unexplained(self.causes, self.ends, judged)
        causes = tuple(conclusion.counted(one, trials) for one, trials in zip(self.causes, judged, strict=True))
        return Blame(causes, misfits, unexplained, not why_not and not unexplained, why_not)

    def _trial(self, words: str, one: Result, deviation: Deviation) -> Trial:
        outcome = deviation.outcome(one.seen)
        return Trial.of(self.ends, one.versions, words, outcome.kind, outcome.why)
