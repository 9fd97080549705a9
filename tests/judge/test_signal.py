"""A golden whose rounding is as large as what it shows proves nothing: it is refused, or not comparable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.core.matrix import CellId
from harness.core.observation import Done
from harness.judge import cell_result, new_golden, numbers, signal
from harness.judge.judgement import Judgement
from harness.judge.new_golden import CreationRefused
from tests.judge.test_kernels import quantised
from tests.support.observations import FORWARD, LAYERS, NOISE, Pair, told

BASE = "base/float32/logits"


def effect(pair: Pair) -> float:
    """How far the sound pair's adapter moves the output."""
    return float(np.abs(pair.golden.arrays[FORWARD] - pair.golden.arrays[BASE]).max())


def noisy(probe: str, by: float) -> Callable[[Pair], None]:
    """The creator's float32 is that far from its float64."""

    def change(pair: Pair) -> None:
        pair.golden.shift(probe, by, precision="float32")

    return change


def kernels_cost(value: float, *probes: str) -> Callable[[Pair], None]:
    def change(pair: Pair) -> None:
        spread = pair.golden.facts["kernel_spread"]["arithmetic"]
        for name in [name for name in spread if name.split("/")[0] in probes]:
            spread[name] = value

    return change


def overflowed(pair: Pair) -> None:
    """The base's kernels overflow, so that the adapter's output is noise too: seen with 8-bit layers."""
    for probe in ("base", "forward"):
        pair.golden.shift(probe, 2e8, precision="float32")


#: change of the golden, verdict of a replay that computes the truth, the probe that proves nothing, what is said of it
TABLE = [
    ("sound", lambda _: None, "close", "", ""),
    ("kernels that overflow", overflowed, "not-comparable", "forward", "rounding may move forward/float32/logits by"),
    ("rounding as large as the effect", kernels_cost(50.0, "forward"), "not-comparable", "forward", "moves it by"),
    ("NaN as a cost", kernels_cost(float("nan"), "forward"), "not-comparable", "forward", "is not finite"),
    ("an infinite cost", kernels_cost(float("inf"), "layers"), "not-comparable", "layers", "is not finite"),
    ("gradients alone", kernels_cost(1e6, "gradients"), "close", "gradients", "its greatest value is"),
    ("merged alone", kernels_cost(float("nan"), "merged"), "close", "merged", "is not finite"),
]


def judged(change: Callable[[Pair], None]) -> Judgement:
    pair = quantised()
    change(pair)
    return pair.judge()


@pytest.mark.parametrize(("change", "verdict", "probe", "words"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_a_probe_that_proves_nothing_is_not_comparable(
    change: Callable[[Pair], None], verdict: str, probe: str, words: str
) -> None:
    found = judged(change)
    assert found.verdict == verdict, told(found)
    if probe:
        assert found.probes[probe].verdict == "not-comparable"
        assert words in told(found)


def test_the_cell_says_why_with_both_figures() -> None:
    pair = quantised()
    kernels_cost(50.0, "forward")(pair)
    identity = CellId("sound", "bnb-047", "current", "cpu")
    made = cell_result.cell(identity, pair.golden.observed(), pair.now.observed(), Done("x", "done", "", "", 0.0))
    assert made.verdict == "not-comparable"
    assert "rounding may move forward/float32/logits by 50, " in made.reason
    assert f"the adapter moves it by {effect(pair):.2g}" in made.reason


def test_a_wrong_replay_is_no_better_proof() -> None:
    """Nothing can be said of a loader whose golden proves nothing, whatever it computes."""

    def change(pair: Pair) -> None:
        overflowed(pair)
        pair.now.shift("forward", 1e9)

    assert judged(change).verdict == "not-comparable"


def test_what_else_is_broken_is_still_reported() -> None:
    def change(pair: Pair) -> None:
        overflowed(pair)
        pair.now.raises("merged")

    found = judged(change)
    assert found.verdict == "run-error"


def test_one_array_without_a_cost_spoils_no_other() -> None:
    def change(pair: Pair) -> None:
        name = f"layers/float32/{LAYERS[0]}"
        pair.golden.facts["kernel_spread"]["arithmetic"][name] = float("nan")
        pair.now.shift("layers", 0.5, only=LAYERS[1])

    found = judged(change)
    assert found.verdict == "silent-wrong"
    assert f"the measured rounding noise of layers/float32/{LAYERS[0]} is not finite" in told(found)
    assert {f.array for f in found.probes["layers"].figures} == {
        f"layers/{precision}/{LAYERS[1]}" for precision in ("float32", "float64")
    } | {f"layers/float64/{LAYERS[0]}"}


@pytest.mark.parametrize(("change", "words"), [(row[1], row[4]) for row in TABLE[2:5]], ids=[r[0] for r in TABLE[2:5]])
def test_it_is_refused_when_it_is_made(change: Callable[[Pair], None], words: str) -> None:
    pair = quantised()
    new_golden.refuse_unfit(pair.golden.observed(), {"expects": None})
    change(pair)
    with pytest.raises(CreationRefused) as caught:
        new_golden.refuse_unfit(pair.golden.observed(), {"expects": None})
    assert words in str(caught.value)


def test_kernels_that_overflow_are_refused() -> None:
    pair = quantised()
    overflowed(pair)
    with pytest.raises(CreationRefused):
        new_golden.refuse_unfit(pair.golden.observed(), {"expects": None})


def test_one_layer_of_many_without_a_cost_is_refused_too() -> None:
    pair = quantised()
    pair.golden.facts["kernel_spread"]["scales"][f"layers/float32/{LAYERS[1]}"] = float("inf")
    with pytest.raises(CreationRefused, match="is not finite"):
        new_golden.refuse_unfit(pair.golden.observed(), {"expects": None})


def test_the_signal_of_an_output_is_the_adapters_effect_and_of_anything_else_its_size() -> None:
    pair = Pair()
    noisy("base", 0.9 * effect(pair))(pair)
    golden = pair.golden.observed()
    noise = numbers.measure(golden)
    found = signal.weak(golden, noise, noise, golden.probes)
    assert {"forward", "merged"} <= set(found)
    assert not {"base", "unloaded"} & set(found)  # an allowance of twice the effect hides no lost base
    assert found["forward"].signal == pytest.approx(effect(pair), rel=2)
    assert found["forward"].allowance > found["forward"].signal


def test_an_infinite_move_of_the_base_explains_nothing() -> None:
    pair = Pair()
    pair.now.arrays[BASE] = np.full_like(pair.now.arrays[BASE], np.inf)
    pair.now.shift("forward", 0.3)
    found = pair.judge()
    assert found.verdict == "silent-wrong", told(found)
    assert NOISE < 0.3
