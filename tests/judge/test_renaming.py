"""Layers and blocks that the loader renamed: which is which."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.judge import renaming
from tests.support.observations import LAYERS, Pair

Row = tuple[str, str]


def block(*names: str) -> list[Row]:
    return [(name, "block") for name in names]


def adapter(*names: str) -> list[Row]:
    return [(name, "adapter") for name in names]


VIT = [*adapter("vit.encoder.layer.0.query"), *block("vit.encoder.layer.0"), *block("vit.encoder.layer.1")]
VIT_NOW = [*adapter("vit.layers.0.q_proj"), *block("vit.layers.0", "vit.layers.1")]
TOWERS = [*block("visual.blocks.0", "visual.blocks.1"), *adapter("model.layers.0.q_proj"), *block("model.layers.0")]
TOWERS_NOW = [
    *block("model.visual.blocks.0", "model.visual.blocks.1"),
    *adapter("model.language_model.layers.0.q_proj"),
    *block("model.language_model.layers.0"),
]
NESTED = [*adapter("block.0.layer.0.q"), *block("block.0.layer.0", "block.0.layer.1", "block.0")]
NESTED_NOW = [
    *adapter("stack.block.0.layer.0.q"),
    *block("stack.block.0.layer.0", "stack.block.0.layer.1", "stack.block.0"),
]
EXPERTS = [*block("layers.0.experts.0", "layers.0.experts.1", "layers.0"), *block("layers.1")]

#: what, the golden's rows, the loader's, adapter layers known by weights, names found anew, names that are unclear
TABLE: list[tuple[str, list[Row], list[Row], Mapping[str, str], Mapping[str, str], Mapping[str, tuple[str, ...]]]] = [
    ("nothing is renamed", VIT, VIT, {}, {}, {}),
    (
        "a block by the layer inside it, and the next by its place",
        VIT,
        VIT_NOW,
        {"vit.encoder.layer.0.query": "vit.layers.0.q_proj"},
        {"vit.encoder.layer.0": "vit.layers.0", "vit.encoder.layer.1": "vit.layers.1"},
        {},
    ),
    (
        "the same, read by an older loader",
        VIT_NOW,
        VIT,
        {"vit.layers.0.q_proj": "vit.encoder.layer.0.query"},
        {"vit.layers.0": "vit.encoder.layer.0", "vit.layers.1": "vit.encoder.layer.1"},
        {},
    ),
    (
        "blocks without an adapter, by their place before the first that is known",
        TOWERS,
        TOWERS_NOW,
        {"model.layers.0.q_proj": "model.language_model.layers.0.q_proj"},
        {
            "visual.blocks.0": "model.visual.blocks.0",
            "visual.blocks.1": "model.visual.blocks.1",
            "model.layers.0": "model.language_model.layers.0",
        },
        {},
    ),
    (
        "blocks within each other",
        NESTED,
        NESTED_NOW,
        {"block.0.layer.0.q": "stack.block.0.layer.0.q"},
        {
            "block.0.layer.0": "stack.block.0.layer.0",
            "block.0.layer.1": "stack.block.0.layer.1",
            "block.0": "stack.block.0",
        },
        {},
    ),
    ("experts that are fused have no name", EXPERTS, block("layers.0", "layers.1"), {}, {}, {}),
    (
        "one block more: the order does not decide",
        block("layer.0", "layer.1"),
        block("layers.0", "layers.1", "layers.2"),
        {},
        {},
        dict.fromkeys(("layer.0", "layer.1"), ("layers.0", "layers.1", "layers.2")),
    ),
    (
        "adapter layers are never matched by their place",
        adapter("a.query", "a.key"),
        adapter("b.k_proj", "b.q_proj"),
        {},
        {},
        {},
    ),
    (
        "a layer within a renamed block, if the base lost the weights that would tell",
        [*adapter("tower.layers.0.q"), *block("tower.layers.0", "tower.layers.1")],
        [*adapter("tower.in.layers.0.q"), *block("tower.in.layers.0", "tower.in.layers.1")],
        {},
        {
            "tower.layers.0": "tower.in.layers.0",
            "tower.layers.1": "tower.in.layers.1",
            "tower.layers.0.q": "tower.in.layers.0.q",
        },
        {},
    ),
    (
        "two blocks whose adapters changed places",
        [*adapter("layer.0.q"), *block("layer.0"), *adapter("layer.1.q"), *block("layer.1")],
        [*adapter("layers.0.q"), *block("layers.0"), *adapter("layers.1.q"), *block("layers.1")],
        {"layer.0.q": "layers.1.q", "layer.1.q": "layers.0.q"},
        {"layer.0": "layers.1", "layer.1": "layers.0"},
        {},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "known", "found", "unclear"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_which_is_which(
    before: list[Row],
    after: list[Row],
    known: Mapping[str, str],
    found: Mapping[str, str],
    unclear: Mapping[str, tuple[str, ...]],
) -> None:
    names = renaming.names(before, after, known)
    same = {name: name for name, _ in before if (name, "block") in after or (name, "adapter") in after}
    assert names.now == {**same, **known, **found}
    assert names.unclear == unclear


def test_the_sketch_of_a_renamed_layer_is_compared() -> None:
    pair = Pair()
    first, second = LAYERS
    for side in (pair.golden, pair.now):
        side.facts["forward"]["sketch"] = [[first, "adapter"], [second, "adapter"]]
    pair.now.facts["forward"]["sketch"] = [[f"model.{name}", "adapter"] for name in LAYERS]
    pair.now.facts["layers"] = {
        **pair.now.facts.get("layers", {}),
        "renamed": {name: f"model.{name}" for name in LAYERS},
    }
    for precision in ("float32", "float64"):
        pair.now.arrays[f"forward/{precision}/sketch"][1] += 0.5
    pair.now.shift("forward", 0.5, only="logits")
    found = pair.judge()
    assert [row.name for row in found.layers] == list(LAYERS)
    assert found.first_difference == second
