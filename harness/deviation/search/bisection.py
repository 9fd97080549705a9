"""Where in a row of releases or commits a verdict turns: bisection with skips (pure)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from harness.deviation.search.outcome import Kind, Outcome


@dataclass(frozen=True)
class AskPoint:
    """What the search wants to know next.

    Attributes:
        point: place in the row.
        ahead: the points that come next, whichever way this one goes, so that they may be built meanwhile.
        left: how many more points there can be at most, this one included, if none of them has to be skipped.
        between: how many points are still between the two that are told.
    """

    point: int
    ahead: tuple[int, ...]
    left: int
    between: int


@dataclass(frozen=True)
class Border:
    """Between which two points the verdict turns.

    Attributes:
        before: the last point that is as the first of the row.
        after: the first one that is as the last of the row.
        skipped: what lies between them and could not be tested.
        outcomes: all that was tried, by point.
    """

    before: int
    after: int
    skipped: tuple[int, ...]
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """True where nothing lies between."""
        return not self.skipped


Dissection = Generator[AskPoint, Outcome, Border]


def dissect(count: int, first: Kind, last: Kind) -> Dissection:
    """Find the border in a row whose two ends are verified and differ.

    A point that can't be tested is passed over, and its nearest untried neighbours are taken instead, as `git bisect`
    does. Where the verdict turns more than once, one of the borders is found.

    Args:
        count: points in the row, at least 2; the first and the last are the ends.
        first: outcome of the first (`good`, or `bad` where a fix is looked for).
        last: of the last; the other one.

    Raises:
        ValueError: no two ends, or they don't differ.
    """
    if count < 2 or {first, last} != {"good", "bad"}:
        raise ValueError(f"a row of {count} points from {first} to {last} has no border")
    low, high = 0, count - 1
    outcomes: dict[int, Outcome] = {}
    while (point := _next(low, high, outcomes)) is not None:
        outcome = yield AskPoint(point, _ahead(low, point, high, outcomes), bound(low, high, outcomes), high - low - 1)
        outcomes[point] = outcome
        if outcome.kind == first:
            low = point
        elif outcome.kind == last:
            high = point
    return Border(low, high, tuple(range(low + 1, high)), outcomes)


def bound(low: int, high: int, outcomes: dict[int, Outcome]) -> int:
    """How many points are tried at most before the border is known, if none of them has to be skipped."""
    return (len(_untried(low, high, outcomes))).bit_length()


def _next(low: int, high: int, outcomes: dict[int, Outcome]) -> int | None:
    """The untried point nearest to the middle; None where there is none."""
    untried = _untried(low, high, outcomes)
    return min(untried, key=lambda point: (abs(2 * point - low - high), point), default=None)


def _ahead(low: int, point: int, high: int, outcomes: dict[int, Outcome]) -> tuple[int, ...]:
    tried = {**outcomes, point: Outcome("untestable")}
    both = (_next(point, high, tried), _next(low, point, tried))
    return tuple(one for one in both if one is not None)


def _untried(low: int, high: int, outcomes: dict[int, Outcome]) -> list[int]:
    return [point for point in range(low + 1, high) if point not in outcomes]
