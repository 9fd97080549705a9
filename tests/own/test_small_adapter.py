"""An adapter's configuration follows its base: layers, experts, ranks, tokens; and nothing of the user's is left."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from harness.core.errors import HarnessError
from harness.own import small_adapter
from harness.own.shrink import Shrunk, shrink
from harness.own.small_adapter import SmallAdapter, marks, module_of, ranks, small
from harness.runner.request import Places
from harness.store import adapter_of_fixture
from tests.own.test_shrink import MISTRAL

LORA: dict[str, Any] = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 64, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"],
    "base_model_name_or_path": "acme/secret-7b", "revision": "deadbeef", "peft_version": "0.18.0", "use_dora": False,
    "inference_mode": True, "bias": "none", "rank_pattern": {}, "modules_to_save": None,
}  # fmt: skip
DEFAULTS = {"r": 8, "lora_alpha": 8, "bias": "none", "use_dora": False, "target_modules": None, "rank_pattern": {}}


def lora(layers: list[int], targets: tuple[str, ...] = ("self_attn.q_proj",), rank: int = 64) -> dict[str, Any]:
    """The shapes of a LoRA adapter of some layers."""
    parts = {"A": (rank, 4096), "B": (4096, rank)}
    names = [f"base_model.model.model.layers.{layer}.{target}" for layer in layers for target in targets]
    return {f"{name}.lora_{part}.weight": shape for name in names for part, shape in parts.items()}


def made(
    config: dict[str, Any], shapes: dict[str, Any], added: int = 0, base: Any = None
) -> tuple[SmallAdapter, Shrunk]:
    large = MISTRAL | (base or {})
    shrunk = shrink(large, marks(shapes))
    return small(LORA | config, shapes, DEFAULTS, shrunk, int(large["vocab_size"]), added), shrunk


def test_alpha_keeps_its_proportion_to_the_rank() -> None:
    args = made({}, lora([0]))[0].args
    assert (args["r"], args["lora_alpha"]) == (4, 1)


@pytest.mark.parametrize(("rank", "alpha"), [(16, 17), (64, 16), (8, 8), (256, 1), (8, 16), (5, 6), (2, 3)])
def test_alpha_differs_from_the_rank_if_it_did(rank: int, alpha: int) -> None:
    args = {**DEFAULTS, **made({"r": rank, "lora_alpha": alpha}, lora([0], rank=rank))[0].args}
    assert (args["r"] == args["lora_alpha"]) is (rank == alpha)
    assert args["r"] <= 5


def test_ranks_that_differ_still_do() -> None:
    found = ranks({"r": 16, "rank_pattern": {"q_proj": 64, "layers.3.k_proj": 8}})
    assert sorted(found) == [8, 16, 64]
    assert sorted(found.values()) == [2, 3, 4]
    assert sorted(ranks({"peft_type": "OFT", "r": 16, "rank_pattern": {"q_proj": 64}}).values()) == [1, 2]


def test_layers_to_transform_follow_and_others_stay_without_adapter() -> None:
    adapter, shrunk = made({"layers_to_transform": [20, 21]}, lora([20, 21]))
    assert shrunk.layers == (0, 20)
    assert adapter.args["layers_to_transform"] == [1]
    assert adapter.keys == {
        "base_model.model.model.layers.[0-9].self_attn.q_proj.lora_A.weight": 1,
        "base_model.model.model.layers.[0-9].self_attn.q_proj.lora_B.weight": 1,
    }


@pytest.mark.parametrize(
    "targets",
    [
        ["model.layers.20.self_attn.q_proj", "model.layers.21.self_attn.q_proj"],
        r".*layers\.(20|21)\.self_attn\.q_proj",
        r"model\.layers\.2[01]\.self_attn\.q_proj",
    ],
)  # fmt: skip
def test_full_names_and_expressions_follow(targets: Any) -> None:
    target = made({"target_modules": targets}, lora([20, 21]))[0].args["target_modules"]
    text = target if isinstance(target, str) else "|".join(map(re.escape, target))
    assert [layer for layer in range(32) if re.fullmatch(text, f"model.layers.{layer}.self_attn.q_proj")] == [1]
    assert isinstance(target, type(targets))


def test_an_expression_without_numbers_stays() -> None:
    text = r".*\.layers\.\d+\.self_attn\.(q|v)_proj"
    assert made({"target_modules": text}, lora([0, 1]))[0].args["target_modules"] == text


@pytest.mark.parametrize(
    "key", ["layers.20.self_attn.q_proj", r"^model\.layers\.20\.self_attn\.q_proj", r".*layers\.(20|9)\..*q_proj"]
)
def test_rank_patterns_follow(key: str) -> None:
    shapes = lora(list(range(20)) + list(range(21, 32))) | lora([20], rank=8)
    pattern = made({"rank_pattern": {key: 8}}, shapes)[0].args["rank_pattern"]
    (new,) = pattern
    assert re.fullmatch(rf"(.*\.)?({new})", "model.layers.1.self_attn.q_proj")
    assert list(pattern.values()) == [2]


def test_experts_that_are_left_out_have_no_keys() -> None:
    targets = tuple(f"block_sparse_moe.experts.{expert}.w1" for expert in range(8))
    adapter, shrunk = made({}, lora([0, 1], targets), base={"num_local_experts": 8, "num_experts_per_tok": 2})
    assert shrunk.experts == 3
    assert set(adapter.keys.values()) == {3}  # of one layer: the others have no adapter
    assert all(".experts.[0-9].w1" in key for key in adapter.keys)


def test_trained_tokens_keep_their_kind_not_their_number() -> None:
    tokens = {"embed_tokens": [*range(500, 540), 31999, 32003]}
    adapter, shrunk = made({"trainable_token_indices": tokens}, lora([0]), added=4, base={"pad_token_id": 31999})
    ids = adapter.args["trainable_token_indices"]["embed_tokens"]
    assert shrunk.tokens[31999] in ids
    assert max(ids) == shrunk.vocabulary + adapter.added - 1 or max(ids) >= shrunk.vocabulary
    assert len(ids) == len(set(ids)) <= 6
    assert not set(ids) & {500, 501, 31999, 32003}
    assert adapter.tokens == tuple(sorted(ids))


def test_defaults_and_empty_entries_are_not_stated() -> None:
    assert set(made({}, lora([0]))[0].args) == {"r", "lora_alpha", "target_modules", "task_type"}


def test_the_width_of_an_encoder_follows_the_base_if_it_is_the_same() -> None:
    args, shrunk = made({"encoder_hidden_size": 4096, "num_virtual_tokens": 20}, lora([0]))
    assert args.args["encoder_hidden_size"] == shrunk.config["hidden_size"]
    assert args.args["num_virtual_tokens"] == 4
    assert made({"encoder_hidden_size": 999}, lora([0]))[0].args["encoder_hidden_size"] == 12


def test_flags_stay() -> None:
    args = made({"use_dora": True, "init_lora_weights": "pissa", "use_rslora": True}, lora([0]))[0].args
    assert (args["use_dora"], args["init_lora_weights"], args["use_rslora"]) == (True, "pissa", True)


def test_repeated_layers_are_refused() -> None:
    with pytest.raises(HarnessError, match="layer_replication"):
        made({"layer_replication": [[0, 16], [8, 24]]}, lora([0]))


def test_nothing_of_the_user_is_left() -> None:
    mine = {
        "prompt_tuning_init_text": "Diagnose patient Ann:", "tokenizer_name_or_path": "/home/ann/tok",
        "note": "for Ann", "projection_prng_key": 19841217, "adapters": {"ann": "/data/ann"},
        "auto_mapping": {"parent_library": "ann.lib"},
        "eva_config": {"path": "/data/ann.bin", "rho": 2.0},
    }  # fmt: skip
    text = json.dumps(made(mine, lora([0]))[0].args)
    assert not re.search(r"ann|Ann|acme|secret|deadbeef|19841217|0\.18\.0|/", text)


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", "model.layers.1.self_attn.q_proj"),
        ("base_model.model.lin0.hada_w1_a", "lin0"), ("base_model.model.score.weight", "score"),
        ("base_model.model.h.0.attn.c_attn.lora_embedding_A", "h.0.attn.c_attn"),
    ],
)  # fmt: skip
def test_the_module_of_a_key(key: str, module: str) -> None:
    assert module_of(key) == module


def test_every_stored_method_can_be_described() -> None:
    """For all adapters that the newest creator stored: none raises, ranks get small, and each key left is expected."""
    places = Places()
    store, scenarios = places.store(), {one.name: one for one in places.matrix().scenarios()}
    seen = 0
    for name in store.scenarios("v0212"):
        if name not in scenarios:
            continue
        adapter = adapter_of_fixture.adapter_of(store, store.manifest("v0212", name))
        if not adapter.base or adapter.config.get("layer_replication"):
            continue
        shrunk = shrink(adapter.base, marks(adapter.shapes))
        found = small_adapter.small(
            adapter.config, adapter.shapes, {}, shrunk, int(adapter.base.get("vocab_size") or 0), 0
        )
        assert not {"base_model_name_or_path", "peft_type", "auto_mapping"} & set(found.args), name
        assert sum(found.keys.values()) <= len(adapter.shapes), name
        seen += 1
    assert seen > 100
