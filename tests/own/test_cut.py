"""An adapter of a deep model, cut, is that of the shallow one: for each architecture that the scenarios cover."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.own import cut, layers
from harness.own.layers import Config, Shapes
from harness.runner.request import Places
from harness.store import adapter_of_fixture
from harness.store.fixtures import Store

CREATORS = ("v061", "v0212", "v0200", "v0181")
DEEP = 27
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 32,
    "vocab_size": 128_256,
    "bos_token_id": 128_000,
    "eos_token_id": [128_001, 128_009],
    "sliding_window": None,
}
LORA = {"peft_type": "LORA", "target_modules": ["q_proj"], "base_model_name_or_path": "org/name"}


@dataclass(frozen=True)
class Shallow:
    """A stored adapter, and the configuration of its base."""

    base: Config
    adapter: Config
    shapes: Shapes


@functools.cache
def stored() -> dict[str, tuple[str, str]]:
    """Base → (creator, scenario): the first of each base of Transformers that is not quantised or wrapped."""
    places, found = Places(), dict[str, tuple[str, str]]()
    store = places.store()
    for one in places.matrix().scenarios():
        scenario = one.scenario
        plain = not (
            scenario.wrap or scenario.sft or one.quantize or scenario.adapter.experts or scenario.adapter.convert
        )
        if one.base_name not in found and plain and (one.base.transformers or one.base.python == "deformable_detr.py"):
            made = [creator for creator in CREATORS if store.has(creator, one.name)]
            if made:
                found[one.base_name] = (made[0], one.name)
    return found


def shallow(store: Store, creator: str, scenario: str) -> Shallow:
    manifest = store.manifest(creator, scenario)
    adapter = adapter_of_fixture.adapter_of(store, manifest)
    return Shallow(json.loads(store.content(manifest, "base/config.json")), adapter.config, adapter.shapes)


def deep(one: Shallow) -> Shallow:
    """The same with many layers: each is like the last one."""
    known = layers.sections(one.base)

    def config(values: Config, path: layers.Path) -> dict[str, Any]:
        depth = layers.depth_of(values) if path in known else 0
        stages = "depths" in values
        found: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, Mapping):
                found[key] = config(value, (*path, key))
            elif depth and not stages and layers.counts(values).get(key) == depth:
                found[key] = DEEP
            elif depth and not stages and layers.by_layer(value, depth):
                found[key] = value + [value[-1]] * (DEEP - depth)
            else:
                found[key] = value
        return found

    return Shallow(config(one.base, ()), one.adapter, dict(_deep_keys(one, known)))


def _deep_keys(one: Shallow, known: Mapping[layers.Path, Config]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for key, shape in one.shapes.items():
        yield key, shape
        place = layers.place_of(key)
        last = layers.depth_of(known[layers.section_of(place.stack, known)]) - 1 if place else 0
        if place and place.layer == last:
            yield from ((f"{place.stack}.{layer}{place.rest}", shape) for layer in range(last + 1, DEEP))


@pytest.mark.parametrize("base", sorted(stored()))
def test_the_deep_model_is_cut_to_the_shallow_one(base: str) -> None:
    one = shallow(Places().store(), *stored()[base])
    whole = deep(one)
    touched = {place.layer for key in one.shapes if (place := layers.place_of(key))}
    found = cut.cut(whole.base, whole.adapter, whole.shapes, most=2)
    expected = cut.cut(one.base, one.adapter, one.shapes, most=2)
    if touched == {0, 1} or not touched:
        assert found.base == expected.base
        assert sorted(found.keys.values()) == sorted(one.shapes)
        assert found.adapter == expected.adapter
    assert set(found.keys.values()) <= set(one.shapes) | set(whole.shapes)
    assert any(f"of {DEEP}" in said for said in found.said), found.said


def test_there_is_an_adapter_of_each_architecture() -> None:
    assert len(stored()) >= 28, sorted(stored())


# By hand


def shapes(*numbers: int, module: str = "self_attn.q_proj", width: int = 64) -> Shapes:
    stack = "base_model.model.model.layers"
    return {
        f"{stack}.{layer}.{module}.lora_{part}.weight": shape
        for layer in numbers
        for part, shape in (("A", (4, width)), ("B", (width, 4)))
    }


def kept_layers(found: cut.Cut) -> list[int]:
    return sorted({place.layer for key in found.keys.values() if (place := layers.place_of(key))})


def test_an_adapter_of_high_layers_moves_down_beside_one_layer_without_it() -> None:
    adapter = {**LORA, "layers_to_transform": [20, 21], "rank_pattern": {"model.layers.20.self_attn.q_proj": 8,
               "model.layers.1.self_attn.q_proj": 2}}  # fmt: skip
    found = cut.cut(LLAMA, adapter, shapes(20, 21))
    assert found.base["num_hidden_layers"] == 3
    assert kept_layers(found) == [1, 2]
    assert found.adapter["layers_to_transform"] == [1, 2]
    assert found.adapter["rank_pattern"] == {"model.layers.1.self_attn.q_proj": 8}
    assert "layers 19, 20, 21 are left of 32, as 0, 1, 2" in found.said


def test_a_pattern_with_numbers_keeps_the_numbers() -> None:
    adapter = {**LORA, "target_modules": r"model\.layers\.(3|4)\.self_attn\.q_proj"}
    found = cut.cut(LLAMA, adapter, shapes(3, 4))
    assert found.base["num_hidden_layers"] == 5
    assert kept_layers(found) == [3, 4]


def test_a_period_keeps_the_numbers() -> None:
    found = cut.cut({**LLAMA, "sliding_window_pattern": 6}, LORA, shapes(3, 4))
    assert found.base["num_hidden_layers"] == 5


def test_one_layer_of_each_kind_is_kept() -> None:
    odd = {**shapes(*range(32)), **shapes(7, module="mlp.experts")}
    kinds = ["full" if layer == 5 else "sliding" for layer in range(32)]
    found = cut.cut({**LLAMA, "layer_types": kinds}, LORA, odd)
    assert found.base["layer_types"] == ["sliding", "sliding", "full", "sliding"]
    assert found.keys["base_model.model.model.layers.7.mlp.experts.lora_A.weight"].split(".")[4] == "3"


def test_a_vocabulary_that_is_not_touched_is_cut_and_its_special_tokens_move() -> None:
    found = cut.cut(LLAMA, LORA, shapes(0, 1))
    assert found.base["vocab_size"] == 256
    ids = [found.base["bos_token_id"], *found.base["eos_token_id"]]
    assert len(set(ids)) == 3
    assert max(ids) < 256


@pytest.mark.parametrize(
    ("adapter", "more", "resize_to"),
    [
        ({"modules_to_save": ["lm_head"]}, {}, None),
        ({"trainable_token_indices": [5, 128_000]}, {}, None),
        ({"trainable_token_indices": {"embed_tokens": [128_300]}}, {}, 128_301),
        ({}, {"base_model.model.model.embed_tokens.lora_embedding_A": (4, 128_256)}, None),
        ({}, {"base_model.model.model.embed_tokens.weight": (128_260, 64)}, 128_260),
        ({}, {"base_model.model.lm_head.lora_B.weight": (128_256, 4)}, None),
    ],
)
def test_a_vocabulary_that_is_touched_stays(adapter: Config, more: Shapes, resize_to: int | None) -> None:
    found = cut.cut(LLAMA, {**LORA, **adapter}, {**shapes(0, 1), **more})
    assert found.base["vocab_size"] == 128_256
    assert found.vocabulary.resize_to == resize_to


def test_a_base_has_the_rows_that_the_file_has_of_it() -> None:
    head = "base_model.model.lm_head"
    both = {f"{head}.{part}.weight": (128_260, 64) for part in ("original_module", "modules_to_save")}
    found = cut.cut(LLAMA, {**LORA, "modules_to_save": ["lm_head"]}, {**shapes(0, 1), **both})
    assert found.base["vocab_size"] == 128_260
    assert found.vocabulary.resize_to is None


def test_the_whole_model_is_not_cut() -> None:
    found = cut.cut(LLAMA, LORA, shapes(*range(32)), most=None)
    assert found.base == LLAMA
    assert not found.said


def test_nulls_stay_and_loading_is_left_out() -> None:
    found = cut.cut({**LLAMA, "auto_map": {}, "torch_dtype": "bfloat16", "attention_dropout": 0.1}, LORA, shapes(0, 1))
    assert found.base["sliding_window"] is None
    assert "torch_dtype" not in found.base
    assert found.base["attention_dropout"] == 0.0


@pytest.mark.parametrize(
    ("base", "found", "why"),
    [
        ({**LLAMA, "hidden_size": 128}, shapes(0), "takes 64 inputs, and the base is 128 wide"),
        ({**LLAMA, "num_hidden_layers": 24}, shapes(31), "layer 31"),
    ],
)
def test_another_models_configuration_is_refused(base: Config, found: Shapes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        cut.cut(base, LORA, found)


def test_prefixes_lie_side_by_side() -> None:
    adapter = {"peft_type": "PREFIX_TUNING", "num_layers": 32, "token_dim": 64}
    found = cut.cut(LLAMA, adapter, {"prompt_embeddings": (10, 32 * 2 * 64)})
    assert found.columns == {"prompt_embeddings": 2 * 2 * 64}
    assert found.adapter["num_layers"] == 2


def test_adaption_prompt_counts_its_layers_from_the_end() -> None:
    keys = {f"base_model.model.model.layers.{layer}.self_attn.adaption_prompt": (1, 4, 64) for layer in range(20, 32)}
    found = cut.cut(LLAMA, {"peft_type": "ADAPTION_PROMPT", "adapter_layers": 12}, keys)
    assert found.adapter["adapter_layers"] == 2
    assert found.base["num_hidden_layers"] == 3
    assert kept_layers(found) == [1, 2]


def test_an_adapter_of_adapters_is_refused() -> None:
    with pytest.raises(UsageError, match="X-LoRA"):
        cut.cut(LLAMA, {"peft_type": "XLORA"}, {})
