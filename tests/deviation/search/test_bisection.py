"""Bisection over rows of every length, with points that cannot be tested."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.deviation.search.bisection import Border, bisection, bound
from harness.deviation.search.outcome import Outcome


def played(kinds: list[str], first: str = "good", last: str = "bad") -> tuple[Border, list[int]]:
    """The border for given outcomes of the points, and the points that were tried."""
    asked = []
    search = bisection(len(kinds), first, last)  # type: ignore[arg-type]
    try:
        ask = next(search)
        while True:
            asked.append(ask.point)
            assert ask.point not in ask.ahead
            assert all(0 < point < len(kinds) - 1 for point in ask.ahead)
            ask = search.send(Outcome(kinds[ask.point]))  # type: ignore[arg-type]
    except StopIteration as stop:
        return stop.value, asked


@given(st.integers(2, 200), st.data())
def test_the_border_is_found_within_the_bound(count: int, data: st.DataObject) -> None:
    turn = data.draw(st.integers(1, count - 1))
    border, asked = played(["good"] * turn + ["bad"] * (count - turn))
    assert (border.before, border.after, border.exact) == (turn - 1, turn, True)
    assert len(asked) == len(set(asked)) <= bound(0, count - 1, {})


@given(st.integers(3, 60), st.data())
def test_points_that_cannot_be_tested_are_skipped(count: int, data: st.DataObject) -> None:
    turn = data.draw(st.integers(1, count - 1))
    skipped = data.draw(st.sets(st.integers(1, count - 2)))
    kinds = ["good"] * turn + ["bad"] * (count - turn)
    border, asked = played(["untestable" if point in skipped else kind for point, kind in enumerate(kinds)])
    assert border.before < turn <= border.after
    assert set(border.skipped) <= skipped
    assert {border.before, border.after}.isdisjoint(skipped)
    assert len(asked) == len(set(asked))


def test_a_fix_is_found_as_a_break_is() -> None:
    border, _ = played(["bad", "bad", "bad", "good", "good"], "bad", "good")
    assert (border.before, border.after) == (2, 3)


def test_another_deviation_decides_nothing() -> None:
    border, _ = played(["good", "other", "other", "bad"])
    assert (border.before, border.after, border.skipped) == (0, 3, (1, 2))


def test_ends_that_do_not_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="no border"):
        next(bisection(5, "good", "good"))
