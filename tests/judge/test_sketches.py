"""How far rounding may move a sketch: no lucky sample makes a false alarm, and no change of a gradient is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.core import observation
from harness.core.observation import Array, Observed
from harness.core.verdict import Verdict
from harness.judge import numbers, sketches
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.judge.sketches import Sketches
from harness.runner.request import Places
from harness.store.fixtures import Store
from harness.worker.model import fill
from tests.support.observations import LAYERS, Mutation, Pair, mutated, told

EPSILON = float(np.finfo(np.float32).eps)
DRAW = np.random.default_rng(20261130)
_START = DRAW.bit_generator.state


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same numbers whatever ran before."""
    DRAW.bit_generator.state = _START


def sketch(tensor: Array) -> Array:
    """As the worker makes it."""
    flat = tensor.astype(np.float64).ravel()
    directions = fill.uniform("sketch", str(flat.size), flat.size * 4).reshape(4, -1)
    return np.array([flat.mean(), np.sqrt(np.mean(flat**2)), *(directions @ flat / np.sqrt(flat.size))])


def rounded(gradient: Array, noise: float) -> Array:
    return sketch(gradient * (1 + noise * DRAW.normal(size=gradient.shape)))


def noise_of(gradients: list[Array], noise: float) -> Sketches:
    return sketches.measure((str(at), rounded(one, noise), sketch(one)) for at, one in enumerate(gradients))


# -- false alarms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tensors", [1, 2, 8, 40])
@pytest.mark.parametrize("elements", [3, 64, 1000])
def test_rounding_is_no_alarm_even_if_only_one_side_is_measured(tensors: int, elements: int) -> None:
    worst = 0.0
    for _ in range(200 // tensors):
        gradients = [DRAW.normal(size=elements) * 10.0 ** DRAW.uniform(-2, 0) for _ in range(tensors)]
        measured = noise_of(gradients, 3 * EPSILON)
        for at, gradient in enumerate(gradients):
            golden, now = rounded(gradient, 3 * EPSILON), rounded(gradient, 3 * EPSILON)
            worst = max(worst, np.abs(golden - now).max() / (2 * measured.noise(str(at), golden)))
    assert worst < 1


def test_a_tensor_with_lucky_errors_has_the_noise_of_the_others() -> None:
    gradients = [DRAW.normal(size=64) for _ in range(8)]
    twins = [(str(at), rounded(one, 3 * EPSILON), sketch(one)) for at, one in enumerate(gradients)]
    lucky = sketches.measure([("0", sketch(gradients[0]), sketch(gradients[0])), *twins[1:]])
    usual = sketches.measure(twins)
    assert lucky.noise("0", sketch(gradients[0])) > usual.noise("0", sketch(gradients[0])) / 2


def test_a_tensor_that_is_noisier_than_the_others_has_its_own_noise() -> None:
    gradients = [DRAW.normal(size=64) for _ in range(8)]
    noisy = 300 * EPSILON
    twins = [(str(at), rounded(one, EPSILON), sketch(one)) for at, one in enumerate(gradients)]
    found = sketches.measure([("0", rounded(gradients[0], noisy), sketch(gradients[0])), *twins[1:]])
    gap = np.abs(rounded(gradients[0], noisy) - rounded(gradients[0], noisy)).max()
    assert gap < 2 * found.noise("0", sketch(gradients[0]))
    assert found.noise("1", sketch(gradients[1])) < 200 * EPSILON


def only_layers_in_float64(pair: Pair) -> None:
    """Experts that run in one go do not run in float64; each layer alone does."""
    for side in (pair.golden, pair.now):
        for probe in ("forward", "base", "gradients", "merged", "merge_and_unload"):
            side.raises(probe, "float64")


def _rounds(pair: Pair, by: float = 1.5e-6) -> None:
    only_layers_in_float64(pair)
    for probe in ("gradients", "forward"):
        pair.now.shift(probe, by)


def test_what_was_not_measured_is_not_taken_for_exact() -> None:
    judgement = mutated(_rounds)
    assert judgement.verdict is Verdict.CLOSE, told(judgement)
    assert any("the golden has no float64 of base, forward, gradients" in note for note in judgement.notes)


def test_a_gradient_of_a_loader_without_float64_rounds_as_the_creators() -> None:
    pair = Pair()
    for probe in ("forward", "base", "gradients", "merged", "merge_and_unload"):
        pair.now.raises(probe, "float64")
    name = f"gradients/float32/{LAYERS[0]}.lora_A.weight"
    before = pair.allowance(name)
    pair.now.without_float64()
    assert pair.allowance(name) == before


# -- real changes -----------------------------------------------------------------------------------------------------


def _scaled(by: float, names: tuple[str, ...] = LAYERS) -> Mutation:
    def mutate(pair: Pair) -> None:
        for name in pair.now.names("gradients"):
            if any(layer in name for layer in names):
                pair.now.arrays[name] = (pair.now.arrays[name] * by).astype(pair.now.arrays[name].dtype)

    return mutate


@pytest.mark.parametrize("by", [1.001, -1.0, 0.0, 0.9, 1.5])
@pytest.mark.parametrize("names", [LAYERS, LAYERS[:1]])
@pytest.mark.parametrize("measured", [True, False])
def test_another_gradient_is_red(by: float, names: tuple[str, ...], measured: bool) -> None:
    def mutate(pair: Pair) -> None:
        _scaled(by, names)(pair)
        if not measured:
            only_layers_in_float64(pair)

    judgement = mutated(mutate)
    assert ("gradients", "values") in {(f.probe, f.kind) for f in judgement.findings}, told(judgement)


def _cancels(pair: Pair) -> None:
    """The gradient of one more parameter is 0 but for rounding, as that of an attention's key bias."""
    for side, sign in ((pair.golden, 1), (pair.now, -1)):
        name = "k_proj.bias"
        side.arrays[f"gradients/float32/{name}"] = sign * np.array([1e-9, 3e-8, 2e-8, -1e-8, 3e-8, -2e-8])
        side.arrays[f"gradients/float64/{name}"] = sign * np.array([1e-18, 3e-17, 2e-17, -1e-17, 3e-17, -2e-17])


def test_a_gradient_that_cancels_makes_no_alarm_and_allows_the_others_nothing() -> None:
    assert mutated(_cancels).verdict is Verdict.CLOSE

    def mutate(pair: Pair) -> None:
        _scaled(1.001)(pair)
        _cancels(pair)

    assert mutated(mutate).verdict is Verdict.SILENT_WRONG


# -- layers -----------------------------------------------------------------------------------------------------------


def test_a_great_layer_does_not_hide_where_a_small_one_differs() -> None:
    pair = Pair()
    for side in (pair.golden, pair.now):
        exact = np.stack([np.full(6, 1e-3), np.full(6, 1e3)])
        side.arrays["forward/float64/sketch"] = exact
        side.arrays["forward/float32/sketch"] = exact * (1 + EPSILON * DRAW.uniform(-1, 1, exact.shape))
    pair.now.arrays["forward/float64/sketch"][:] *= 1 + 1e-3
    assert [row.max_abs > row.allowance for row in pair.judge().layers] == [True, True]


def test_a_table_of_sketches_has_the_noise_of_its_noisiest_row() -> None:
    side = Pair().golden.observed()
    noise, table = numbers.measure(side), side.arrays["forward/float32/sketch"]
    assert noise.of("forward/float32/sketch", table) == max(noise.of("forward/float32/sketch/x", row) for row in table)


# -- the stored goldens -----------------------------------------------------------------------------------------------


def _golden(store: Store, creator: str, scenario: str) -> Observed:
    manifest = store.manifest(creator, scenario)
    text, arrays = (store.content(manifest, f"golden/{name}") for name in ("observation.json", "arrays.safetensors"))
    return observation.parse(Path(creator) / scenario, text, arrays)


def _gradients(side: Observed) -> Iterator[tuple[str, Array]]:
    for name, array in side.group("gradients", "float32").items():
        yield f"gradients/float32/{name}", array


def test_no_stored_golden_hides_a_gradient_that_is_scaled_by_a_thousandth() -> None:
    store, count = Places().store(), 0
    for scenario in store.scenarios("v061"):
        golden = _golden(store, "v061", scenario)
        noise = numbers.measure(golden)
        largest = max((abs(array[1]) for _, array in _gradients(golden)), default=0.0)
        for name, array in _gradients(golden):
            if abs(array[1]) > 1e-6 * largest:
                count += 1
                assert np.abs(array).max() * 1e-3 > numbers.allowance(name, array, noise, noise), (scenario, name)
    assert count > 500


@pytest.mark.parametrize(("one", "other"), [("v040", "v090"), ("v061", "v0100"), ("v062", "v071")])
def test_gradients_of_equal_adapters_agree_across_releases_without_the_loaders_float64(one: str, other: str) -> None:
    """Releases that made the same adapter on the same base: what a loader would have computed."""
    store, count = Places().store(), 0
    for scenario in sorted(set(store.scenarios(one)) & set(store.scenarios(other))):
        golden, now = (_golden(store, creator, scenario) for creator in (one, other))
        if golden.fact("accounting", "digests") != now.fact("accounting", "digests"):
            continue
        evidence = Evidence(golden, now)
        if any(beyond(f) for probe in ("base", "forward", "layers") for f in evidence.figures(probe)):
            continue
        for name, array in _gradients(golden):
            if (there := now.arrays.get(name)) is not None:
                allowance = numbers.allowance(name, array, evidence.noise, numbers.Noise())
                assert np.abs(array - there).max() <= allowance, (scenario, name)
                count += 1
    assert count > 100
