"""A replay in a narrower type: what rounding explains passes, the rest is reported."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.core.cell_settings import Settings
from harness.core.matrix import CellId
from harness.core.observation import Done
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.judge import precision as narrow
from harness.judge.cell_result import cell
from tests.support.observations import BOTH_PRECISIONS, LAYERS, Pair

DTYPE = "bfloat16"
ID = CellId("sound", "v061", "current", "cpu", Settings(DTYPE))
NOISE = 2.0**-8

Change = Callable[[Pair], None]


def narrowed() -> Pair:
    """The sound pair, whose replay was in bfloat16 too: rounded by half of what rounding was measured to cost."""
    pair = Pair()
    cost: dict[str, float] = {}
    for probe in BOTH_PRECISIONS:
        pair.now.probes[probe][DTYPE] = {"outcome": "ok"}
        for name in pair.now.names(probe, "float64"):
            rest = name.split("/", 2)[2]
            array = pair.now.arrays[name]
            cost[f"{probe}/{rest}"] = NOISE * float(np.abs(array).max())
            pair.now.arrays[f"{probe}/{DTYPE}/{rest}"] = (array * (1 + NOISE / 2)).astype(np.float32)
    pair.now.facts["settings"] = {
        "asked": {"dtype": DTYPE, "attention": ""}, "dtype": DTYPE, "base": {"outcome": "ok"}, "overflows": [],
        "reference": "float64", "cost": {"nearest": cost, "truncated": dict(cost)}, "unmeasured": [],
    }  # fmt: skip
    return pair


def judged(*changes: Change) -> Cell:
    pair = narrowed()
    for change in changes:
        change(pair)
    return cell(ID, pair.golden.observed(), pair.now.observed(), Done("x", "done", "", "", 0.1))


def scaled(probe: str, by: float, only: str = "") -> Change:
    def apply(pair: Pair) -> None:
        for name in list(pair.now.arrays):
            if name.startswith(f"{probe}/{DTYPE}/") and name.endswith(only):
                pair.now.arrays[name] = pair.now.arrays[name] * np.float32(by)

    return apply


def says(**facts: Any) -> Change:
    return lambda pair: pair.now.facts["settings"].update(facts)


def kinds(found: Cell) -> set[tuple[str, str]]:
    return {(f.probe, f.kind) for f in found.findings}


def test_what_rounding_explains_passes_and_is_never_exact() -> None:
    found = judged()

    assert found.verdict is Verdict.CLOSE
    assert (found.settings, found.id) == (DTYPE, "sound@v061:current[cpu+bfloat16]")
    assert any(f"/{DTYPE}/" in f.array for f in found.probes["forward"].figures)


def test_without_settings_nothing_is_asked() -> None:
    assert narrow.undetermined(Pair().now.observed()) is None
    assert narrow.hindered(Pair().now.observed()) is None


@pytest.mark.parametrize("by", [0.5, 2.0, 0.0, 1.1, math.nan])
def test_another_scaling_in_the_narrow_type_alone(by: float) -> None:
    found = judged(scaled("layers", by), scaled("forward", by))

    assert found.verdict is Verdict.SILENT_WRONG
    assert {("layers", "bfloat16-values"), ("forward", "bfloat16-values")} <= kinds(found)


def test_one_layer_whose_tensor_was_dropped() -> None:
    found = judged(scaled("layers", 0.0, only=LAYERS[1]))

    assert found.verdict is Verdict.SILENT_WRONG
    assert {f.subject for f in found.findings} == {LAYERS[1]}


def test_two_layers_that_changed_places() -> None:
    def swap(pair: Pair) -> None:
        one, other = (f"layers/{DTYPE}/{layer}" for layer in LAYERS)
        pair.now.arrays[one], pair.now.arrays[other] = pair.now.arrays[other], pair.now.arrays[one]

    assert judged(swap).verdict is Verdict.SILENT_WRONG


def test_a_wrong_merge() -> None:
    assert kinds(judged(scaled("merged", 1.2))) == {("merged", "bfloat16-values")}


def test_what_is_wrong_in_float32_is_wrong_here_too() -> None:
    assert judged(lambda pair: pair.move_outputs(1e-2)).verdict is Verdict.SILENT_WRONG


def test_a_base_that_moved_takes_the_output_with_it() -> None:
    found = judged(*(scaled(probe, 1.1) for probe in ("base", "forward", "merged", "merge_and_unload")))

    assert found.verdict is Verdict.BASE_MOVED
    assert kinds(found) == {("base", "bfloat16-base")}


def test_gradients_are_a_note() -> None:
    found = judged(scaled("gradients", 1.5))

    assert found.verdict is Verdict.CLOSE
    assert any("gradients" in note for note in found.notes)


def test_what_raises_there_alone_is_an_error() -> None:
    found = judged(lambda pair: pair.now.raises("merged", DTYPE))

    assert (found.verdict, kinds(found)) == (Verdict.RUN_ERROR, {("merged", "bfloat16-error")})
    assert "on a base in bfloat16 merged raised ValueError: no" in found.findings[0].message


def test_an_adapter_that_does_not_load_there() -> None:
    error = {"stage": "injection", "type": "ValueError", "message": "no", "traceback": ""}
    found = judged(lambda pair: pair.now.load.update({DTYPE: {"outcome": "error", "error": error}}))

    assert found.verdict is Verdict.LOAD_ERROR


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        ("\"addmm_impl_cpu_\" not implemented for 'Half'", Verdict.NO_DEVICE),
        ("expected scalar type Float", Verdict.NOT_COMPARABLE),
    ],
)
def test_a_base_that_does_not_run_there_alone(message: str, verdict: Verdict) -> None:
    error = {"stage": "base", "type": "RuntimeError", "message": message, "traceback": ""}
    found = judged(says(base={"outcome": "error", "error": error}))

    assert found.verdict is verdict
    assert message in found.reason


def test_a_base_that_overflows() -> None:
    found = judged(says(overflows=["logits"]))

    assert (found.verdict, found.reason) == (
        Verdict.NOT_COMPARABLE, "the base alone is not finite in bfloat16 (logits)",
    )  # fmt: skip


def test_a_cost_as_great_as_the_adapters_effect_tells_nothing() -> None:
    def coarse(pair: Pair) -> None:
        for kind in pair.now.facts["settings"]["cost"].values():
            kind.update(dict.fromkeys(kind, 10.0))

    found = judged(coarse)
    assert found.verdict is Verdict.NOT_COMPARABLE
    assert "says nothing" in found.reason


def test_a_cost_that_nobody_could_measure() -> None:
    found = judged(says(cost={"nearest": {}, "truncated": {}}, unmeasured=["forward: ValueError: sparse"]))

    assert found.verdict is Verdict.NOT_COMPARABLE
    assert "forward: ValueError: sparse" in found.reason


def test_an_attention_that_the_model_does_not_have_by_its_own_word() -> None:
    found = judged(says(asked={"dtype": "", "attention": "sdpa"}, dtype="", attention="eager"))

    assert found.verdict is Verdict.NOT_COMPARABLE
    assert "attention sdpa was requested, but the model reports eager" in found.reason


@pytest.mark.parametrize("verdict", ["unsupported", "no-device", "not-comparable"])
def test_what_can_not_be_had_is_told_before_anything_else(verdict: str) -> None:
    def hinder(pair: Pair) -> None:
        pair.now.load, pair.now.arrays, pair.now.probes = (
            {"settings": {"outcome": verdict, "reason": "it has none"}}, {}, {},
        )  # fmt: skip

    found = judged(hinder)
    assert (str(found.verdict), found.reason) == (verdict, "it has none")


class TestAttention:
    @staticmethod
    def moved(alone: float) -> Cell:
        """The base moved, with the attention that was asked for; with its release's own it is off by `alone`."""
        pair = Pair()
        pair.now.facts["settings"] = {"asked": {"dtype": "", "attention": "sdpa"}, "attention": "sdpa"}
        for precision in ("float32", "float64"):
            pair.now.arrays[f"plain/{precision}/logits"] = pair.golden.arrays[f"base/{precision}/logits"] + alone
        pair.move_base(1e-2)
        return cell(ID, pair.golden.observed(), pair.now.observed(), Done("x", "done", "", "", 0.1))

    def test_what_the_attention_moves_is_no_base_that_moved(self) -> None:
        found = self.moved(0.0)

        assert found.verdict is Verdict.CLOSE
        assert any("the attention itself changes the base's output" in note for note in found.notes)

    def test_a_base_that_moves_without_it_too_has_moved(self) -> None:
        assert self.moved(1e-2).verdict is Verdict.BASE_MOVED
