"""Quantised bases: what a kernel may cost, and that a wrong meaning is not taken for it."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest

from harness.core import data
from harness.judge import breaks, numbers
from harness.judge.judgement import Judgement
from tests.support.observations import FORWARD, LAYERS, LIKE_FORWARD, NOISE, Pair, swapped_layers, told

NARROW, MERGE = 0.02, 0.3
"""What bfloat16 kernels cost the outputs of this base, and what merging into its few bits costs."""
OUTPUTS = ("forward", "base", "unloaded", "train", "fresh", *LIKE_FORWARD)
MERGES = ("merged", "unmerged", "safe_merged", "merge_and_unload", "merged_saved")


def quantised() -> Pair:
    """A sound pair on a quantised base: float64 is dequantised, merges cost what they cost."""
    pair = Pair()
    spread: dict[str, dict[str, float]] = {"arithmetic": {}, "scales": {}, "plain": {}}
    for name in pair.golden.arrays:
        probe, _, rest = name.partition("/")
        if not rest.startswith("float32") or "sketch" in name:
            continue
        # the adapter's own effect is computed in float32 beside the kernels
        narrow = 3 * NOISE if probe == "layers" else NARROW / 2
        spread["arithmetic"][name] = spread["scales"][name] = narrow
        spread["plain"][name] = 3 * NOISE
    pair.golden.facts["kernel_spread"] = spread
    for side in (pair.golden, pair.now):
        side.facts["forward"]["kernels"] = {"layers": 14, "repacked": 0, "classes": ["Linear4bit"]}
        for probe in MERGES:
            side.shift(probe, MERGE, precision="float32")
    return pair


def other_kernel(pair: Pair) -> None:
    """The loader's processor has a bfloat16 kernel: every output moves, the adapter's own effect does not."""
    for probe in (*OUTPUTS, "gradients"):
        pair.now.shift(probe, 0.9 * NARROW, precision="float32")
    pair.now.facts["forward"]["kernels"]["repacked"] = 14


def judged(*changes: Callable[[Pair], None]) -> Judgement:
    pair = quantised()
    for change in changes:
        change(pair)
    return pair.judge()


def test_the_same_kernels_agree_and_what_a_merge_costs_is_the_creators_own() -> None:
    found = judged()
    assert (found.verdict, found.findings) == ("close", ()), told(found)
    assert any("merging in place changes the output (by 0.3), as for the creator" in s for s in found.standing_defects)


def test_another_kernel_is_noise_and_is_told() -> None:
    found = judged(other_kernel)
    assert (found.verdict, found.findings) == ("close", ()), told(found)
    assert any("14 of 14 quantised weights" in note for note in found.notes)


def test_known_breaks_match_the_note_by_its_words() -> None:
    rules = {condition.noted for each in breaks.load(data.matrices()) for condition in each.condition}
    globs = {rule.removeprefix("!") for rule in rules if rule}
    notes = judged(other_kernel).notes
    assert globs
    assert all(any(fnmatchcase(note, glob) for note in notes) for glob in globs)


def test_without_measured_kernels_the_same_is_a_deviation() -> None:
    found = judged(other_kernel, lambda pair: pair.golden.facts.pop("kernel_spread"))
    assert found.verdict.is_deviation


def scaling(pair: Pair) -> None:
    for layer in LAYERS:
        pair.now.shift("layers", 0.01, only=layer)
    for probe in ("forward", *LIKE_FORWARD):
        pair.now.shift(probe, 0.01)


def kernels_of_the_adapter_alone(pair: Pair) -> None:
    """In the quantised layers' class, which the dequantised reference has no part in."""
    pair.now.shift("layers", 0.01, precision="float32")
    pair.now.shift("forward", 0.01, precision="float32")


def dropped_bias(pair: Pair) -> None:
    for probe in OUTPUTS:
        pair.now.shift(probe, 0.3)


def bias_dropped_by_the_kernel(pair: Pair) -> None:
    for probe in OUTPUTS:
        pair.now.shift(probe, 0.3, precision="float32")


def stale_state(pair: Pair) -> None:
    """Merged weights that are read with the scales of those before."""
    for probe in ("merged", "safe_merged", "merge_and_unload"):
        pair.now.shift(probe, 0.2, precision="float32")


def narrow_adapter(pair: Pair) -> None:
    for layer in LAYERS:
        pair.now.shift("layers", 4e-3, only=layer, precision="float32")


def other_meaning(pair: Pair) -> None:
    """What the stored codes stand for the meaning of the weights changed by less than any kernel's error."""
    for probe in OUTPUTS:
        pair.now.shift(probe, 1e-3)


MUTANTS = [
    (scaling, "silent-wrong", "values"),
    (kernels_of_the_adapter_alone, "silent-wrong", "values"),
    (swapped_layers, "silent-wrong", "values"),
    (dropped_bias, "base-moved", "base-moved"),
    (bias_dropped_by_the_kernel, "base-moved", "base-moved"),
    (stale_state, "silent-wrong", "differs-from-forward"),
    (narrow_adapter, "silent-wrong", "values"),
    (other_meaning, "base-moved", "base-moved"),
]


@pytest.mark.parametrize("kernel", [None, other_kernel], ids=["same kernel", "another kernel"])
@pytest.mark.parametrize(("mutant", "verdict", "kind"), MUTANTS, ids=[m[0].__name__ for m in MUTANTS])
def test_a_wrong_meaning_is_no_kernels_error(
    mutant: Callable[[Pair], None], verdict: str, kind: str, kernel: Callable[[Pair], None] | None
) -> None:
    found = judged(*([kernel] if kernel else []), mutant)
    assert (found.verdict, kind in {f.kind for f in found.findings}) == (verdict, True), told(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dropped_bias, "the meaning of the weights changed"),
        (bias_dropped_by_the_kernel, "the quantised layers cause it"),
    ],
)
def test_the_dequantised_reference_says_whose_doing_it_is(change: Callable[[Pair], None], words: str) -> None:
    assert words in told(judged(change))


def test_a_layer_that_is_no_longer_quantised_is_told() -> None:
    def fewer(pair: Pair) -> None:
        pair.now.facts["forward"]["kernels"]["layers"] = 12

    assert {f.kind for f in judged(fewer).findings} == {"quantised-layers"}


def test_a_loaders_own_distance_from_the_reference_is_no_excuse() -> None:
    pair = quantised()
    before = pair.allowance(FORWARD)
    pair.now.shift("forward", 5.0, precision="float32")
    assert pair.allowance(FORWARD) == before


def test_the_reference_is_judged_by_rounding_alone() -> None:
    pair = quantised()
    assert pair.allowance("forward/float64/logits") < 100 * NOISE < NARROW < pair.allowance(FORWARD)


def test_what_a_merge_costs_is_no_noise_of_other_outputs() -> None:
    noise = numbers.measure(quantised().golden.observed())
    assert noise.relative["outputs"] < 10 * NOISE
