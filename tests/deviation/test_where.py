"""Where a deviation starts: conclusions from a trace, as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.core.run import Cell, Finding
from harness.core.verdict import Verdict
from harness.deviation import where
from harness.deviation import where_text as report
from harness.deviation.where import Where
from harness.deviation.where_layers import Parameter
from tests.support.observations import BIAS, KEYS, LAYERS, Pair, lost, now, refuses

FIRST, SECOND = LAYERS


def traced(mutation: Callable[[Pair], None], findings: tuple[Finding, ...] = ()) -> Where:
    """The conclusion for the sound pair after a mutation."""
    pair = Pair()
    draw = np.random.default_rng(3)
    for layer in LAYERS:
        given = draw.uniform(-1, 1, (1, 5, 4)).astype(np.float32)
        pair.golden.arrays[f"layers/input/{layer}"] = given
        pair.now.arrays[f"trace/input/{layer}"] = given.copy()
    pair.now.facts["trace"] = {"layers": {layer: facts(layer) for layer in LAYERS}, "order": list(LAYERS)}
    mutation(pair)
    cell = Cell(id="s@a:b[cpu]", scenario="s", creator="a", loader="b", verdict=Verdict.SILENT_WRONG, findings=findings)
    return where.find(cell, pair.golden.observed(), pair.now.observed())


def facts(layer: str) -> dict[str, Any]:
    rows = [
        {"name": key.removeprefix("base_model.model."), "dtype": "float32", "shape": [4, 4], "key": key, "max_abs": 0.0,
         "found": "by value"}
        for key in KEYS if f".{layer}." in key
    ]  # fmt: skip
    return {"class": "Linear", "scalars": {"scaling": 2.0}, "parameters": rows}


def parameter(layer: str, **changes: Any) -> Callable[[Pair], None]:
    return lambda pair: pair.now.facts["trace"]["layers"][layer]["parameters"][0].update(changes)


def together(*mutations: Callable[[Pair], None]) -> Callable[[Pair], None]:
    def apply(pair: Pair) -> None:
        for mutation in mutations:
            mutation(pair)

    return apply


def effect(layer: str) -> Callable[[Pair], None]:
    return lambda pair: pair.now.shift("layers", 0.2, only=layer)


def given(layer: str) -> Callable[[Pair], None]:
    def apply(pair: Pair) -> None:
        pair.now.arrays[f"trace/input/{layer}"] += 0.3

    return apply


def put_out(place: int) -> Callable[[Pair], None]:
    def apply(pair: Pair) -> None:
        for precision in ("float32", "float64"):
            pair.now.arrays[f"forward/{precision}/sketch"] = pair.now.arrays[f"forward/{precision}/sketch"].copy()
            pair.now.arrays[f"forward/{precision}/sketch"][place] += 1.0

    return apply


def a_block(pair: Pair) -> None:
    for side in (pair.golden, pair.now):
        side.facts["forward"]["sketch"][1] = ["layers.0", "block"]


#: name, mutation of a sound pair, the first layer, the cause, words
TABLE: list[tuple[str, Callable[[Pair], None], str, str, str]] = [
    ("nothing", lambda _: None, "", "afterwards", "no layer differs"),
    ("another effect", effect(SECOND), SECOND, "computation", "the computation changed, not the loading"),
    ("another value", together(parameter(FIRST, max_abs=0.1, found="by name"), effect(FIRST)), FIRST, "loading",
     "its parameters differ from the checkpoint: the loading changed"),
    ("swapped values", together(parameter(SECOND, max_abs=0.1, found="by name", holds=KEYS[0]), effect(SECOND)),
     SECOND, "loading", f"it holds the values of {KEYS[0]}"),
    ("another shape", parameter(FIRST, max_abs=None, stored_shape=[2, 4]), FIRST, "loading", "is 2×4"),
    ("a lost tensor", lost(BIAS), FIRST, "loading", f"{BIAS} is missing from the model"),
    ("an effect, and a tensor that all layers share is lost", together(effect(FIRST), lost("base_model.shared_A")),
     FIRST, "loading", "1 tensor is missing from the model: base_model.shared_A: the loading changed"),
    ("an input, and a tensor before it is lost", together(given(FIRST), put_out(0), lost("base_model.model.embed.x")),
     FIRST, "loading", "the loading changed"),
    ("another input", together(given(SECOND), put_out(1)), SECOND, "base", "its input differs already"),
    ("another base", together(given(FIRST), lambda pair: pair.move_base(0.3)), FIRST, "base",
     "the base changed before it"),
    ("another base layer", put_out(0), FIRST, "base layer", "the base's own layer inside it changed"),
    ("another block", together(a_block, put_out(1)), "layers.0", "base", "the base changed inside it"),
    ("a block's tensor", together(a_block, put_out(1), lost("base_model.model.layers.0.norm.bias")), "layers.0",
     "loading", "missing from the model"),
    ("a block after a lost embedding", together(a_block, put_out(1), lost("base_model.model.embed.weight")), "layers.0",
     "loading", "missing from the model: base_model.model.embed.weight: the loading changed"),
    ("only the output", lambda pair: pair.now.shift("forward", 0.3), "", "base", "the last observed layer changed"),
    ("no loading", lambda pair: refuses(pair.now), "", "not loaded", "it does not load (state dict)"),
]  # fmt: skip


@pytest.mark.parametrize(("mutation", "first", "doing", "says"), [t[1:] for t in TABLE], ids=[t[0] for t in TABLE])
def test_the_first_layer_and_the_cause(mutation: Callable[[Pair], None], first: str, doing: str, says: str) -> None:
    found = traced(mutation)
    assert (found.first, found.doing) == (first, doing), found.said
    assert says in "\n".join(report.lines(found))
    assert Where.model_validate_json(found.model_dump_json()) == found


def test_the_first_layer_in_execution_order_is_named_not_the_worst() -> None:
    found = traced(together(effect(FIRST), now("shift", "layers", 9.0, only=SECOND)))
    assert found.first == FIRST


def test_attributes_that_changed_since_the_creator_are_named() -> None:
    pair = Pair()
    effect(FIRST)(pair)
    pair.now.facts["trace"] = {"layers": {FIRST: facts(FIRST)}}
    pair.golden.facts["trace"] = {"layers": {FIRST: facts(FIRST) | {"scalars": {"scaling": 1.0, "gone": 1}}}}
    cell = Cell(id="s@a:b[cpu]", scenario="s", creator="a", loader="b", verdict=Verdict.SILENT_WRONG)
    found = where.find(cell, pair.golden.observed(), pair.now.observed(), pair.golden.observed())
    assert "the computation changed (scaling: 1.0 → 2.0), not the loading" in found.said


def test_another_load_path_is_named_not_what_happens_after_loading() -> None:
    def finding(kind: str, message: str) -> Finding:
        return Finding(probe="door.auto", kind=kind, verdict=Verdict.SILENT_WRONG, message=message)

    findings = (finding("auto-differs", "another output"), finding("auto-lost-tensors", "4 of 12 do not arrive"))
    found = traced(lambda _: None, findings)
    assert (found.first, found.doing) == ("", "loading")
    assert found.said[-1] == "other load paths deviate (auto): 4 of 12 do not arrive"
    other = Finding(probe="merged", kind="values", verdict=Verdict.SILENT_WRONG, message="m")
    assert traced(lambda _: None, (*findings, other)).doing == "afterwards"


def test_another_effect_is_not_said_to_load_while_a_tensor_of_another_layer_is_lost() -> None:
    found = traced(together(effect(FIRST), lost(KEYS[-1])))
    assert (found.first, found.doing) == (FIRST, "computation")
    assert found.said[-1] == "the computation changed"


def test_a_model_that_does_not_run_is_said_first() -> None:
    found = traced(together(effect(FIRST), now("raises", "forward")))
    assert found.said[0] == "the model loads, but does not run: ValueError: no"
    assert found.first == FIRST


def test_a_renamed_layer_is_recognised() -> None:
    def renamed(pair: Pair) -> None:
        pair.now.facts["layers"]["renamed"] = {FIRST: "blocks.0.q_proj"}
        pair.now.facts["trace"]["layers"]["blocks.0.q_proj"] = pair.now.facts["trace"]["layers"].pop(FIRST)
        pair.now.arrays["trace/input/blocks.0.q_proj"] = pair.now.arrays.pop(f"trace/input/{FIRST}")
        pair.now.facts["forward"]["sketch"][0][0] = "blocks.0.q_proj"
        effect(FIRST)(pair)

    found = traced(renamed)
    layer = found.first_layer
    assert layer is not None
    assert (layer.name, layer.called) == (FIRST, "blocks.0.q_proj")
    assert layer.input is not None
    assert [row.name for row in found.layers] == list(LAYERS)


def finding(probe: str, verdict: Verdict = Verdict.SILENT_WRONG) -> Finding:
    return Finding(probe=probe, kind="values", verdict=verdict, message=f"{probe} differs")


@pytest.mark.parametrize(
    ("probes", "cheapest"),
    [(("forward", "layers", "merged"), "layers"), (("forward", "accounting", "layers"), "accounting"),
     (("merged", "unmerged"), "merged"), (("base", "forward"), "forward"), ((), "")],
)  # fmt: skip
def test_the_smallest_probe(probes: tuple[str, ...], cheapest: str) -> None:
    assert where.smallest([finding(probe) for probe in probes])[0] == cheapest


def test_a_probe_without_a_deviation_is_not_the_smallest() -> None:
    assert where.smallest([finding("layers", Verdict.CLOSE), finding("forward")])[0] == "forward"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "keeps its initial value"),
        ({"key": "k", "max_abs": 0.0}, "equals k"),
        ({"key": "k", "max_abs": 0.5}, "differs from k by up to 0.5"),
        ({"key": "k", "stored_shape": (3, 2)}, "the shape of k is 3×2"),
    ],
)
def test_a_parameter_explains_itself(values: dict[str, Any], says: str) -> None:
    assert says in str(Parameter(name="a", dtype="float32", shape=(2, 3), **values))


def test_a_loader_that_repeats_the_creators_loss_is_not_blamed_for_its_computation() -> None:
    pair = Pair()
    cell = Cell(
        id="x@a:b[cpu]", scenario="x", creator="a", loader="b", verdict=Verdict.SILENT_WRONG,
        creators_own="silent-wrong: the output differs by 0.5",
    )  # fmt: skip
    found = where.find(cell, pair.golden.observed(), pair.now.observed())
    assert (found.doing, found.first) == ("loading", "")
    assert "no layer differs from the creator's own reload" in found.said[0]


def unlike_the_reload(saved: float) -> Callable[[Pair], None]:
    """The creator's own reload is wrong; this loader's output is further from it, and so far from what was saved.

    The creator's layers are of its wrong reload.
    """

    def apply(pair: Pair) -> None:
        logits = pair.now.arrays["forward/float32/logits"]
        pair.golden.arrays["created/float32/logits"] = logits + np.float32(saved)
        pair.golden.shift("forward", 0.3)
        pair.now.shift("layers", 0.2, only=SECOND)

    return apply


@pytest.mark.parametrize(
    ("saved", "doing", "says"),
    [
        (0.0, "afterwards", "the loaded adapter computes what it computed when it was saved"),
        (0.5, "loading", "the output is neither that of this reload nor that of the saved adapter"),
    ],
)
def test_no_layer_is_accused_by_a_wrong_reload_of_the_creator(saved: float, doing: str, says: str) -> None:
    found = traced(unlike_the_reload(saved))
    assert (found.doing, found.first) == (doing, ""), found.said
    assert says in found.said
    assert "the layers are not compared" in found.said[0]


def test_an_effect_that_moves_with_the_weights_of_the_base_is_not_another_computation() -> None:
    moved = Finding(probe="layers", kind="base-moved", verdict=Verdict.BASE_MOVED, message="like the base's weights")
    found = traced(together(effect(SECOND), lambda pair: pair.move_base(0.3)), (moved,))
    assert (found.doing, found.first) == ("base", SECOND)
    assert (
        "its effect contains the base's weights, and their change explains the difference: the base changed"
        in found.said
    )
    assert traced(effect(SECOND)).doing == "computation"
