"""Tries the points of a row, releases or commits, until it is known where the verdict changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.deviation.search.bisection import Border, bisection
from harness.deviation.search.candidates import PeriodTrue
from harness.deviation.search.journal import Entry
from harness.deviation.search.outcome import Kind, Outcome
from harness.deviation.search.work import Work
from harness.envs.environment import EnvFailed, Environment

Kinds = tuple[Kind, Kind]
"""What the first and the last point of a row are: clean and deviating, or the reverse when a fix is searched."""


@dataclass
class Line:
    """A row of points to bisect.

    Attributes:
        names: `peft 0.13.2` or `peft at b1fd97dc3e71`, in order.
        environment: makes the environment of a point.
        fallback: makes another environment for a point that cannot be tested in the first; None if there is no other.
        days: name → day, or day and subject.
        prefix: what a list of several points need not repeat.
        entries: what was tried, by point.
    """

    names: Sequence[str]
    environment: Callable[[int], Environment]
    fallback: Callable[[int], Environment] | None = None
    days: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    entries: dict[int, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """A release or commit that was tried.

    Attributes:
        day: of a release its day, of a commit its day and subject; empty if unknown.
        result: `good`, `bad`, `other` or `untestable`.
        why: the verdict with its main finding, or why the point could not be tested.
    """

    name: str
    day: str
    result: Kind
    why: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.name} ({self.day})" if self.day else self.name


@dataclass(frozen=True)
class TurningPoint:
    """Where in a row the verdict changes.

    Attributes:
        before: the last point that is like the first of the row.
        after: the first point that is like the last of the row.
        skipped: the points between them, which could not be tested; empty if the answer is exact.
        tried: all points that were tried, in order.
    """

    sentence: str
    exact: bool
    before: Point
    after: Point
    skipped: tuple[Point, ...]
    tried: tuple[Point, ...]


def wrong_end(work: Work, line: Line, kinds: Kinds, context: str = "") -> int | None:
    """Try both ends of a row.

    Args:
        context: which packages are around the points, for the log.

    Returns:
        The first end that is not what it should be; None if both are.
    """
    for point, kind in zip((0, len(line.names) - 1), kinds, strict=True):
        work.announce(line.names[point] + context, "an end")
        entry = line.entries[point] = _tried(work, line.names[point], line.environment, point)
        work.report(entry)
        if entry.kind != kind:
            return point
    return None


def border(work: Work, line: Line, kinds: Kinds, most: int | None = None, *, any_deviation: bool = False) -> Border:
    """Bisect a row whose ends were tried. Environments that may come next are built meanwhile.

    Args:
        most: stop after that many tries.
        any_deviation: a point that deviates otherwise is bad too, instead of being skipped.
    """
    search = bisection(len(line.names), *kinds, most)
    try:
        ask = next(search)
        while True:
            work.announce(line.names[ask.point], f"at most {ask.left} left, {ask.between} between")
            if (now := _environment(line, ask.point)) is not None:
                work.trials.ahead([now])
                following = [_environment(line, point) for point in ask.ahead]
                work.trials.ahead([one for one in following if one is not None])
            entry = line.entries[ask.point] = _try(work, line, ask.point)
            work.report(entry)
            is_bad = any_deviation and entry.kind == "other"
            ask = search.send(Outcome("bad") if is_bad else entry.outcome)
    except StopIteration as stop:
        found: Border = stop.value
        return found


def turning_point(line: Line, border: Border, kinds: Kinds) -> TurningPoint:
    """The answer, in a sentence and as data."""

    def point(index: int) -> Point:
        entry, name = line.entries[index], line.names[index]
        return Point(name, line.days.get(name, ""), entry.kind, entry.why, entry.verdict)

    before, after = point(border.before), point(border.after)
    was = "is clean" if kinds[0] == "good" else "deviates"
    becomes = "deviates" if kinds[1] == "bad" else "is clean again"
    if border.exact:
        sentence = f"{after} is the first that {becomes}; {before} is the last that {was}"
    else:
        skipped = ", ".join(line.names[index].removeprefix(line.prefix) for index in border.skipped)
        sentence = (
            f"the verdict changes between {before}, which {was}, and {after}, which {becomes}; "
            f"these in between could not be tested: {skipped}"
        )
    return TurningPoint(
        sentence, border.exact, before, after, tuple(point(index) for index in border.skipped),
        tuple(point(index) for index in sorted(line.entries)),
    )  # fmt: skip


def _environment(line: Line, point: int) -> Environment | None:
    """The environment of a point; None if it cannot be resolved, which the try itself reports."""
    try:
        return line.environment(point)
    except EnvFailed:
        return None


def _try(work: Work, line: Line, point: int) -> Entry:
    """Try a point; if it cannot be tested among the held packages, try it among those of its release day."""
    entry = _tried(work, line.names[point], line.environment, point)
    if entry.outcome.is_answer or line.fallback is None:
        return entry
    work.report(entry)
    words = f"{line.names[point]}, {PeriodTrue().words}"
    work.announce(words, "instead")
    return _tried(work, words, line.fallback, point)


def _tried(work: Work, words: str, make: Callable[[int], Environment], point: int) -> Entry:
    try:
        environment = make(point)
    except EnvFailed as error:
        return work.trials.untestable(words, words, error)
    return work.trials.outcome(environment, words)
