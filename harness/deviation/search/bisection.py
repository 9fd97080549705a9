"""Bisection with skips: where in a row the outcome changes (pure)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from harness.deviation.search.outcome import Kind, Outcome


@dataclass(frozen=True)
class Ask:
    """The point to try next.

    Attributes:
        point: index in the row.
        ahead: the points that may come next, whatever the outcome; they can be prepared meanwhile.
        left: how many more tries are needed at most, including this one, if no point is skipped.
        between: how many points lie between the two that enclose the border.
    """

    point: int
    ahead: tuple[int, ...]
    left: int
    between: int


@dataclass(frozen=True)
class Border:
    """The two points between which the outcome changes.

    Attributes:
        before: the last point that is like the first of the row.
        after: the first point that is like the last of the row.
        skipped: the points between them; none could be tested, or was tried.
        outcomes: all outcomes, by point.
    """

    before: int
    after: int
    skipped: tuple[int, ...]
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """True if no point lies between."""
        return not self.skipped


Bisection = Generator[Ask, Outcome, Border]


def bisection(count: int, first: Kind, last: Kind, most: int | None = None) -> Bisection:
    """Find the border in a row whose ends are verified. A generator: it yields points and is sent their outcomes.

    A point that cannot be tested is skipped in favour of its nearest untried neighbour, as `git bisect skip` does. If
    the outcome changes more than once, one of the borders is found.

    Args:
        count: points in the row, including both ends; at least 2.
        first: outcome of the first point: `good`, or `bad` when a fix is searched.
        last: outcome of the last point: the other of the two.
        most: stop after that many tries; default: go on until the border is known.

    Raises:
        ValueError: there are no two ends, or they do not differ.
    """
    if count < 2 or {first, last} != {"good", "bad"}:
        raise ValueError(f"a row of {count} points from {first} to {last} has no border")
    low, high = 0, count - 1
    outcomes: dict[int, Outcome] = {}
    while (point := _next(low, high, outcomes)) is not None and len(outcomes) != most:
        outcome = yield Ask(point, _ahead(low, point, high, outcomes), bound(low, high, outcomes), high - low - 1)
        outcomes[point] = outcome
        if outcome.kind == first:
            low = point
        elif outcome.kind == last:
            high = point
    return Border(low, high, tuple(range(low + 1, high)), outcomes)


def bound(low: int, high: int, outcomes: dict[int, Outcome]) -> int:
    """How many tries are needed at most until the border is known, if no point is skipped."""
    return (len(_untried(low, high, outcomes))).bit_length()


def _next(low: int, high: int, outcomes: dict[int, Outcome]) -> int | None:
    """The untried point nearest to the middle; None if there is none."""
    untried = _untried(low, high, outcomes)
    return min(untried, key=lambda point: (abs(2 * point - low - high), point), default=None)


def _ahead(low: int, point: int, high: int, outcomes: dict[int, Outcome]) -> tuple[int, ...]:
    tried = {**outcomes, point: Outcome("untestable")}
    both = (_next(point, high, tried), _next(low, point, tried))
    return tuple(one for one in both if one is not None)


def _untried(low: int, high: int, outcomes: dict[int, Outcome]) -> list[int]:
    return [point for point in range(low + 1, high) if point not in outcomes]
