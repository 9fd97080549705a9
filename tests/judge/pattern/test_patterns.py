"""Golden's arrays, what became of them, the adapter's config → the pattern. The table reads like the specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.observation import Array
from harness.judge.pattern import layers
from harness.judge.pattern.arrays import Change, described, explain

ALLOWANCE = 1e-6
SHAPE = (1, 6, 8)
CONFIG: dict[str, Any] = {"r": 4, "lora_alpha": 12, "lora_dropout": 0.0, "use_rslora": False}
NAMES = ("layers.0.q_proj", "layers.0.v_proj", "layers.1.q_proj", "layers.1.v_proj")

Turn = Callable[[Array], Array]


def effects(seed: int = 0) -> dict[str, Array]:
    """Each layer's effect in the golden."""
    draw = np.random.default_rng(seed)
    return {name: draw.uniform(-1, 1, SHAPE) for name in NAMES}


def noisy(array: Array, seed: int, allowance: float = ALLOWANCE) -> Array:
    """Off by up to the allowance."""
    return array + np.random.default_rng(seed).uniform(-allowance, allowance, array.shape)


def pattern(turn: Turn | dict[str, Turn], config: dict[str, Any] = CONFIG, allowance: float = ALLOWANCE) -> Any:
    """The pattern if each layer's effect is turned, with noise at the allowance.

    Args:
        turn: for all layers, or by name; layers without one stay.
    """
    turns = turn if isinstance(turn, dict) else dict.fromkeys(NAMES, turn)
    changes = {
        name: Change.of(value, noisy(turns.get(name, unchanged)(value), seed, 0.9 * allowance), allowance)
        for seed, (name, value) in enumerate(effects().items())
    }
    return layers.of(changes, config)


def times(factor: float) -> Turn:
    def turned(array: Array) -> Array:
        return np.asarray(factor * array)

    return turned


def unchanged(array: Array) -> Array:
    return array


def squared(array: Array) -> Array:
    return np.asarray(array**2)


def float16(array: Array) -> Array:
    return array.astype(np.float16).astype(np.float64)


def read_otherwise(array: Array) -> Array:
    return array.reshape(1, 6, 2, 4).swapaxes(2, 3).reshape(SHAPE)


def with_nan(array: Array) -> Array:
    turned = array.copy()
    turned[..., 0] = np.nan
    return turned


def shifted(array: Array) -> Array:
    return np.concatenate([np.ones_like(array[:, :1]), array[:, :-1]], axis=1)


def heads_exchanged(array: Array) -> Array:
    return array.reshape(1, 6, 4, 2)[:, :, [2, 0, 3, 1]].reshape(SHAPE)


def bfloat16(array: Array) -> Array:
    words = array.astype(np.float32).view(np.uint32)
    return ((words + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


EACH_FEATURE = np.linspace(0.5, 1.5, SHAPE[-1])

ORDER = "the effect has its values in another order"
TABLE: list[tuple[str, Turn | dict[str, Turn], dict[str, Any], str]] = [
    ("scaled by alpha/r", times(3), CONFIG, "×3.000 = alpha/r in 4 of 4 layers"),
    ("the scaling is lost", times(1 / 3), CONFIG, "×0.333 = r/alpha in 4 of 4 layers"),
    ("two expressions with one value", times(2), CONFIG, "×2.000 = √r = 2 in 4 of 4 layers"),
    ("rank-stabilised", times(6**0.5), CONFIG | {"r": 6}, "×2.449 = √r in 4 of 4 layers"),
    ("scaled by alpha alone", times(12), CONFIG, "×12.000 = alpha in 4 of 4 layers"),
    ("added twice", times(2), {"r": 6, "alpha": 9}, "×2.000 = 2 in 4 of 4 layers"),
    ("no expression of the config", times(1.001), CONFIG, "×1.0010 in 4 of 4 layers"),
    (
        "each layer's own rank and alpha",
        dict(zip(NAMES, map(times, (6, 2.5, 6, 3)), strict=True)),
        CONFIG | {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.0.v_proj": 10}},
        "×2.500 to ×6.000 = alpha/r in 4 of 4 layers",
    ),
    (
        "alpha equals the rank in some layers",
        {NAMES[0]: times(3), NAMES[2]: times(3)},
        CONFIG | {"alpha_pattern": {"v_proj": 4}},
        "×3.000 = alpha/r in 2 of 4 layers, and ×1 in 2 more",
    ),
    (
        "the alpha pattern is ignored",
        {NAMES[1]: times(12 / 7), NAMES[3]: times(12 / 7)},
        CONFIG | {"alpha_pattern": {"v_proj": 7}},
        "×1.714 = alpha_pattern ignored in 2 of 4 layers, and ×1 in 2 more",
    ),
    (
        "the alpha pattern is ignored, the rank pattern is not",
        {NAMES[1]: times(12 / 7), NAMES[3]: times(12 / 7)},
        CONFIG | {"alpha_pattern": {"v_proj": 7}, "rank_pattern": {"q_proj": 2}},
        "×1.714 = alpha_pattern ignored in 2 of 4 layers, and ×1 in 2 more",
    ),
    (
        "both patterns are ignored",
        {NAMES[0]: times(1 / 2), NAMES[1]: times(12 / 7), NAMES[2]: times(1 / 2), NAMES[3]: times(12 / 7)},
        CONFIG | {"alpha_pattern": {"v_proj": 7}, "rank_pattern": {"q_proj": 2}},
        "×0.500 to ×1.714 = alpha_pattern and rank_pattern ignored in 4 of 4 layers",
    ),
    ("dropout always scales", times(1 / 0.9), CONFIG | {"lora_dropout": 0.1}, "×1.111 = 1/(1 − lora_dropout) in 4"),
    (
        "a factor of each layer's own",
        dict(zip(NAMES, map(times, (1.1, 2.1, 3.1, 4.1)), strict=True)),
        CONFIG,
        "×1.100 to ×4.100 (each layer has its own) in 4 of 4 layers",
    ),
    ("the adapter is absent", times(0), CONFIG, "the effect is 0, as if there were no adapter, in 4 of 4 layers"),
    ("the sign", times(-1), CONFIG, "the effect has the opposite sign in 4 of 4 layers"),
    ("NaN", with_nan, CONFIG, "the effect is NaN in some elements only in 4 of 4 layers"),
    ("all NaN", times(np.nan), CONFIG, "the effect is NaN in 4 of 4 layers"),
    ("a bias", lambda a: a + np.arange(8), CONFIG, "the effect differs by the same vector in each row, as a bias does"),
    ("features reversed", lambda a: a[..., ::-1], CONFIG, f"{ORDER} (features reversed)"),
    ("tokens reversed", lambda a: a[:, ::-1], CONFIG, f"{ORDER} (tokens reversed)"),
    ("features read otherwise", read_otherwise, CONFIG, f"{ORDER} (features read as 2×4 instead of 4×2)"),
    ("heads", heads_exchanged, CONFIG, f"{ORDER} (features in blocks of 2 (as heads are): in another order)"),
    ("a token's position", shifted, CONFIG, "the effect is shifted (tokens by +1) in 4 of 4 layers"),
    ("clipped", lambda a: np.clip(a, -0.5, 0.5), CONFIG, "the effect is clipped"),
    ("factors", lambda a: a * EACH_FEATURE, CONFIG, "the effect has another factor for each of its features in 4"),
    ("bfloat16", bfloat16, CONFIG, "the effect differs by as much as rounding to bfloat16 in 4 of 4 layers"),
    ("float16", float16, CONFIG, "the effect differs by as much as rounding to float16 in 4 of 4 layers"),
    (
        "most layers have it, one differs in another way",
        {NAMES[0]: squared, **dict.fromkeys(NAMES[1:], times(3))},
        CONFIG,
        "×3.000 = alpha/r in 3 of 4 layers; 1 other differs in another way",
    ),
]


@pytest.mark.parametrize(("turn", "config", "says"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_pattern_is_recognised(turn: Turn, config: dict[str, Any], says: str) -> None:
    found = pattern(turn, config)

    assert found is not None
    assert found.says.startswith(says)


NOTHING: list[tuple[str, Turn | dict[str, Turn]]] = [
    ("equal", unchanged),
    ("another function", squared),
    ("one element", lambda a: a + 0.1 * (np.arange(a.size) == 3).reshape(a.shape)),
    ("other values", lambda a: np.random.default_rng(9).uniform(-1, 1, a.shape)),
    ("two layers of four, each in its own way", {NAMES[0]: squared, NAMES[1]: lambda a: a**3}),
    ("just beyond the allowance", lambda a: a * (1 + 5 * ALLOWANCE)),
]


@pytest.mark.parametrize("turn", [row[1] for row in NOTHING], ids=[row[0] for row in NOTHING])
def test_nothing_is_claimed_without_a_pattern(turn: Turn) -> None:
    assert pattern(turn) is None


def test_an_allowance_as_large_as_the_values_proves_nothing() -> None:
    assert pattern(times(3), allowance=0.5) is None


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([3, 2, 1, 0], "reversed"),
        ([3, 0, 1, 2], "rotated by 1"),
        ([1, 0, 2, 3], "0 ↔ 1"),
        ([0, 3, 1, 4, 2, 5], "read as 2×3 instead of 3×2"),
        ([4, 5, 6, 7, 2, 3, 0, 1], "in blocks of 2 (as heads are): in another order"),
        ([1, 2, 0, 3, 5, 6, 4, 7], "within each block of 4: in another order"),
        ([2, 0, 3, 1, 4], "in another order"),
    ],
)
def test_an_order_in_words(order: list[int], words: str) -> None:
    assert described(np.array(order)) == words


seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("value", [0.0, 1e-310], ids=["zeros", "a division overflows"])
def test_a_row_without_values_is_not_in_the_way(value: float) -> None:
    golden = effects()[NAMES[0]]
    golden[..., 0] = value
    now = golden * np.linspace(2, 3, SHAPE[-1])
    explained = explain(Change.of(golden, noisy(now, 0, 0.9 * ALLOWANCE), ALLOWANCE))
    assert explained is None, "factors are only said of columns that show them"


@settings(max_examples=200, deadline=None)
@given(seeds, seeds)
def test_random_arrays_have_no_pattern(one: int, other: int) -> None:
    golden, now = (np.random.default_rng([seed, k]).normal(size=SHAPE) for k, seed in enumerate((one, other)))

    assert explain(Change.of(golden, now, ALLOWANCE)) is None


@settings(max_examples=200, deadline=None)
@given(seeds, st.floats(-8, 8).filter(lambda f: abs(f) > 1e-2 and abs(abs(f) - 1) > 1e-2))
def test_a_factor_of_random_arrays_is_recognised_through_noise(seed: int, factor: float) -> None:
    golden = np.random.default_rng(seed).normal(size=SHAPE)
    found = explain(Change.of(golden, noisy(factor * golden, seed, 0.9 * ALLOWANCE), ALLOWANCE))

    assert found is not None
    assert found.kind == "factor"
    assert found.factor == pytest.approx(factor, abs=ALLOWANCE * 10)
    assert found.left <= 1


@settings(max_examples=200, deadline=None)
@given(seeds, st.integers(0, 2), st.randoms(use_true_random=False))
def test_a_permutation_of_random_arrays_is_recognised_through_noise(seed: int, axis: int, chance: Any) -> None:
    shape = (4, 6, 8)
    golden = np.random.default_rng(seed).normal(size=shape)
    order = list(range(shape[axis]))
    chance.shuffle(order)
    change = Change.of(golden, noisy(np.take(golden, order, axis=axis), seed, 0.9 * ALLOWANCE), ALLOWANCE)
    found = explain(change)

    if order == sorted(order):
        assert found is None
    else:
        assert found is not None
        assert found.kind == "permutation"
        assert found.detail.startswith(("batch", "tokens", "features")[axis])
