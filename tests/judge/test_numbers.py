"""How far apart arrays are, and how far apart they may be."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.core.observation import Array
from harness.judge import numbers
from harness.judge.numbers import BELIEVED, Noise
from tests.support.observations import FORWARD, Pair

EPSILON = float(np.finfo(np.float32).eps)
SIZES = st.floats(0, 1e3)
FINITE = st.floats(-1e6, 1e6, width=32)
ANY = st.floats(width=32)


def _arrays(elements: st.SearchStrategy[float], count: int) -> st.SearchStrategy[tuple[Array, ...]]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)
    return shapes.flatmap(
        lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=elements) for _ in range(count)])
    )


def _gap(golden: Array, now: Array, allowance: float = 0.0) -> float:
    return numbers.difference("x", golden, now, allowance).max_abs


# -- differences ------------------------------------------------------------------------------------------------------


@given(_arrays(ANY, 2))
def test_a_difference_is_symmetric_in_size(pair: tuple[Array, Array]) -> None:
    assert _gap(pair[0], pair[1]) == _gap(pair[1], pair[0])


@given(_arrays(ANY, 1))
def test_nothing_differs_from_itself(one: tuple[Array]) -> None:
    figures = numbers.difference("x", one[0], one[0].copy(), 0.0)
    assert (figures.max_abs, figures.differing, figures.ratio) == (0.0, 0, 0.0)


@given(_arrays(ANY, 2), SIZES)
def test_the_histogram_counts_every_element_once(pair: tuple[Array, Array], allowance: float) -> None:
    figures = numbers.difference("x", *pair, allowance)
    assert sum(figures.histogram) == figures.elements == pair[0].size
    assert len(figures.histogram) == len(numbers.histogram(np.zeros(1)))


@given(_arrays(ANY, 2), SIZES)
def test_elements_beyond_the_allowance_and_the_greatest_agree(pair: tuple[Array, Array], allowance: float) -> None:
    figures = numbers.difference("x", *pair, allowance)
    assert (figures.differing > 0) == numbers.beyond(figures)


@given(_arrays(FINITE, 2), SIZES)
def test_the_place_is_that_of_the_greatest_difference(pair: tuple[Array, Array], allowance: float) -> None:
    figures = numbers.difference("x", *pair, allowance)
    gap = np.abs(pair[0].astype(np.float64) - pair[1])
    assert gap[figures.index] == gap.max() == figures.max_abs
    assert (figures.golden, figures.now) == (pair[0][figures.index], pair[1][figures.index])


@given(_arrays(FINITE, 2))
def test_no_position_differs_by_more_than_the_whole(pair: tuple[Array, Array]) -> None:
    assert numbers.positions(*pair).max() == _gap(*pair)


@pytest.mark.parametrize(
    ("golden", "now", "expected"),
    [
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([np.inf], [np.inf], 0.0),
        ([np.inf], [-np.inf], np.inf),
        ([np.nan], [np.inf], np.inf),
        ([1.0], [np.nan], np.inf),
        ([np.nan], [1.0], np.inf),
        ([0.0], [-0.0], 0.0),
        ([], [], 0.0),
        ([1.0], [1.0, 2.0], np.inf),
        ([1e300], [-1e300], 2e300),
    ],
)
def test_what_is_not_finite(golden: list[float], now: list[float], expected: float) -> None:
    assert _gap(np.array(golden), np.array(now)) == expected


def test_integers_and_booleans_differ_by_their_values() -> None:
    assert _gap(np.array([1, 2]), np.array([1, 7])) == 5
    assert _gap(np.array([True, False]), np.array([True, True])) == 1


@pytest.mark.parametrize(
    ("gap", "decade"), [(0.0, 0), (1e-30, 1), (5e-19, 1), (2e-18, 2), (3.0, 20), (50.0, 21), (np.inf, 21)]
)
def test_decades_of_the_histogram(gap: float, decade: int) -> None:
    counts = numbers.histogram(np.array([gap]))
    assert [place for place, count in enumerate(counts) if count] == [decade]


def test_same_bits_tells_signs_of_zero_dtypes_and_shapes_apart() -> None:
    zero = np.zeros(2, np.float32)
    assert numbers.same_bits(zero, zero.copy())
    assert not numbers.same_bits(zero, -zero)
    assert not numbers.same_bits(zero, zero.astype(np.float64))
    assert not numbers.same_bits(zero, zero.reshape(1, 2))


def test_figures_come_by_error_over_allowance() -> None:
    small, great = (numbers.difference(n, np.zeros(1), np.ones(1), a) for n, a in (("small", 10.0), ("great", 0.1)))
    boundless = numbers.difference("boundless", np.zeros(1), np.array([np.inf]), np.inf)
    assert [f.array for f in numbers.by_ratio([boundless, small, great])] == ["great", "small", "boundless"]


# -- allowances -------------------------------------------------------------------------------------------------------


@given(SIZES, SIZES, SIZES, SIZES)
def test_the_allowance_grows_with_either_noise(golden: float, now: float, more: float, spread: float) -> None:
    array = np.ones(3, np.float32)

    def allowance(own: float, theirs: float, apart: float) -> float:
        creator = Noise({"p/x": own}, {"outputs": 0.0}, {"p/float32/x": apart})
        return numbers.allowance("p/float32/x", array, creator, Noise({"p/x": theirs}, {"outputs": 0.0}))

    plain = allowance(golden, now, 0.0)
    assert plain >= golden
    assert allowance(golden + more, now, 0.0) >= plain
    assert allowance(golden, now + more, 0.0) >= plain
    assert allowance(golden, now, spread) >= plain


@given(SIZES, SIZES)
def test_the_loaders_noise_is_believed_up_to_a_limit(golden: float, now: float) -> None:
    array = np.ones(3, np.float32)
    creator, loader = (Noise({"p/x": own}, {"outputs": 0.0}) for own in (golden, now))
    limit = (1 + BELIEVED) * max(golden, EPSILON)
    assert numbers.allowance("p/float32/x", array, creator, loader) <= limit * (1 + 1e-12)


def test_noise_is_what_two_precisions_differ_by() -> None:
    pair = Pair()
    narrow, wide = (pair.golden.arrays[f"forward/{p}/logits"].astype(np.float64) for p in ("float32", "float64"))
    noise = numbers.measure(pair.golden.observed())
    assert noise.own["forward/logits"] == np.abs(narrow - wide).max()
    assert noise.of(FORWARD, narrow) >= noise.own["forward/logits"]


def test_a_lucky_array_has_the_noise_of_its_group() -> None:
    pair = Pair()
    pair.golden.arrays[FORWARD] = pair.golden.arrays["forward/float64/logits"].copy()
    noise = numbers.measure(pair.golden.observed())
    assert noise.own["forward/logits"] == 0
    assert noise.of(FORWARD, pair.golden.arrays[FORWARD]) > numbers.measure(Pair().golden.observed()).own["base/logits"]


def test_an_element_that_is_not_finite_neither_hides_the_noise_nor_allows_everything() -> None:
    pair = Pair()
    sound = pair.allowance(FORWARD)
    for side in (pair.golden, pair.now):
        for precision, value in (("float32", np.inf), ("float64", np.inf)):
            side.arrays[f"forward/{precision}/logits"].flat[0] = value
    assert sound / 2 < pair.allowance(FORWARD) < sound * 2


def test_without_float64_the_resolution_stands_in() -> None:
    pair = Pair()
    for side in (pair.golden, pair.now):
        side.without_float64()
    greatest = float(np.abs(pair.golden.arrays[FORWARD]).max())
    assert pair.allowance(FORWARD) == pytest.approx(2 * numbers.UNMEASURED * EPSILON * greatest)


def test_without_float64_a_narrow_type_has_its_own_resolution() -> None:
    pair = Pair()
    for side in (pair.golden, pair.now):
        side.without_float64()
    pair.golden.facts["stored_wider"] = {FORWARD: "torch.bfloat16"}
    greatest = float(np.abs(pair.golden.arrays[FORWARD]).max())
    assert pair.allowance(FORWARD) == pytest.approx(2 * 2**-7 * greatest)


def test_a_loader_without_float64_is_believed_as_much_as_the_creator() -> None:
    pair = Pair()
    pair.now = copy.deepcopy(pair.golden)
    both_measured = pair.allowance(FORWARD)
    pair.now.without_float64()
    assert pair.allowance(FORWARD) == both_measured


def test_integers_have_no_noise() -> None:
    assert Noise().of("generate/float32/tokens", np.array([1, 2])) == 0


@pytest.mark.parametrize(
    ("array", "expected"), [([], 0.0), ([3.0, 4.0], 12.5**0.5), ([np.nan, 2.0], 2.0), ([1e300, 0.0], 1e300 * 0.5**0.5)]
)
def test_rms(array: list[float], expected: float) -> None:
    assert numbers.rms(np.array(array)) == pytest.approx(expected)
