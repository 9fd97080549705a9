"""The small configuration keeps what the large one promises: sums, products, ratios, ids in range, differences."""

from __future__ import annotations

from typing import Any

import pytest

from harness.own.kinds import Kind, kind_of
from harness.own.shrink import shrink

MISTRAL = {
    "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "sliding_window": 4096,
    "max_position_embeddings": 131072, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    "attention_dropout": 0.1, "_name_or_path": "someone/secret", "rms_norm_eps": 1e-6,
}  # fmt: skip


def small(**more: Any) -> dict[str, Any]:
    return shrink({**MISTRAL, **more}).config


def test_what_was_a_product_stays_one() -> None:
    config = small()
    assert config["num_attention_heads"] * config["head_dim"] == config["hidden_size"]
    assert config["hidden_size"] < 64 < config["vocab_size"] <= 128


def test_what_was_no_product_stays_none() -> None:
    config = small(hidden_size=5120)
    assert config["num_attention_heads"] * config["head_dim"] != config["hidden_size"]


@pytest.mark.parametrize(
    ("heads", "groups", "ratio"),
    [(32, 8, 4), (32, 32, 1), (12, 4, 3), (28, 4, 4), (16, 1, 4), (71, 1, 4), (64, 8, 4), (2, 1, 2)]
)  # fmt: skip
def test_groups_of_key_and_value_heads(heads: int, groups: int, ratio: int) -> None:
    config = small(num_attention_heads=heads, num_key_value_heads=groups, hidden_size=heads * 128)
    assert config["num_attention_heads"] / config["num_key_value_heads"] == ratio
    assert config["hidden_size"] % config["num_attention_heads"] == 0


def test_different_widths_stay_different() -> None:
    config = small(intermediate_size=4100, moe_intermediate_size=4000, q_lora_rank=4095)
    widths = [config[key] for key in ("hidden_size", "intermediate_size", "moe_intermediate_size", "q_lora_rank")]
    assert len(set(widths)) == 4


def test_the_width_of_one_part_is_that_of_the_next() -> None:
    vision = {
        "hidden_size": 1280,
        "depth": 32,
        "num_heads": 16,
        "out_hidden_size": 4096,
        "patch_size": 14,
        "in_channels": 3,
    }
    made = shrink({"text_config": MISTRAL, "vision_config": vision, "image_token_id": 31999}).config
    assert made["vision_config"]["out_hidden_size"] == made["text_config"]["hidden_size"]
    assert made["vision_config"]["hidden_size"] != made["text_config"]["hidden_size"]
    assert made["vision_config"]["in_channels"] == 3
    assert made["image_token_id"] < made["text_config"]["vocab_size"]


def test_special_tokens_are_in_range_and_different() -> None:
    config = small(pad_token_id=31000, image_token_id=31999, eos_token_id=[2, 31001])
    ids = [config["pad_token_id"], config["image_token_id"], *config["eos_token_id"]]
    assert all(0 <= one < config["vocab_size"] for one in ids)
    assert len(set(ids)) == 4
    assert config["eos_token_id"][0] == 2


def test_a_layer_of_each_kind_is_left() -> None:
    types = ["sliding_attention"] * 5 + ["full_attention"]
    made = shrink({**MISTRAL, "num_hidden_layers": 12, "layer_types": types * 2, "first_k_dense_replace": 1})
    assert made.layers == (0, 1, 5)
    assert made.config["layer_types"] == ["sliding_attention", "sliding_attention", "full_attention"]
    assert made.config["num_hidden_layers"] == 3
    assert made.config["first_k_dense_replace"] == 1


def test_layers_that_the_adapter_treats_differently_are_left() -> None:
    made = shrink(MISTRAL, marks=lambda layer: layer >= 20)
    assert made.layers == (0, 20)
    assert made.layer(20) == 1
    assert made.layer(7) is None


@pytest.mark.parametrize(
    ("sections", "head", "share"), [([16, 24, 24], 128, 1.0), ([24, 20, 20], 128, 1.0), ([11, 11, 10], 256, 0.25)]
)
def test_rotary_sections_add_up(sections: list[int], head: int, share: float) -> None:
    config = small(
        head_dim=head, partial_rotary_factor=share, rope_scaling={"type": "mrope", "mrope_section": sections}
    )
    parts = config["rope_scaling"]["mrope_section"]
    assert sum(parts) == config["head_dim"] * share / 2
    assert min(parts) >= 1


def test_factors_of_the_frequencies_have_their_number() -> None:
    config = small(rope_scaling={"type": "longrope", "long_factor": [2.0] * 64, "short_factor": [1.0] * 64})
    assert len(config["rope_scaling"]["long_factor"]) == config["head_dim"] // 2


def test_stretched_positions_are_more_than_there_were() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    config = small(rope_scaling=scaling)
    assert config["rope_scaling"]["original_max_position_embeddings"] < config["max_position_embeddings"]
    assert config["rope_scaling"]["factor"] == 8.0


@pytest.mark.parametrize(("share", "head"), [(0.25, 80), (0.4, 80), (0.5, 64), (1.0, 96)])
def test_the_rotating_part_of_a_head_is_even(share: float, head: int) -> None:
    config = small(head_dim=head, partial_rotary_factor=share, hidden_size=head * 32)
    turned = config["head_dim"] * share
    assert turned >= 2
    assert turned % 2 == 0


def test_experts() -> None:
    config = small(num_experts=128, num_experts_per_tok=8, n_group=8, topk_group=4, n_shared_experts=1)
    assert config["num_experts_per_tok"] < config["num_experts"] <= 4
    assert config["num_experts"] % config["n_group"] == 0
    assert config["topk_group"] < config["n_group"]
    assert config["n_shared_experts"] == 1


def test_sizes_of_latent_attention_keep_their_sum() -> None:
    config = small(
        head_dim=64, qk_nope_head_dim=128, qk_rope_head_dim=64, qk_head_dim=192, v_head_dim=128, kv_lora_rank=512
    )
    assert config["qk_head_dim"] == config["qk_nope_head_dim"] + config["qk_rope_head_dim"]


def test_stages_keep_their_proportions() -> None:
    made = shrink(
        {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "hidden_size": 768, "patch_size": 4}
    ).config
    assert made["depths"] == [2, 2, 2, 2]
    assert made["hidden_size"] == made["embed_dim"] * 8
    assert all(made["embed_dim"] * 2**stage % heads == 0 for stage, heads in enumerate(made["num_heads"]))


def test_nothing_is_random_and_nothing_is_the_users() -> None:
    config = small(id2label={"0": "my disease"}, architectures=["X"])
    assert config["attention_dropout"] == 0.0
    assert not {"_name_or_path", "id2label", "architectures"} & set(config)


def test_values_of_no_kind_stay() -> None:
    assert small(hidden_act="silu", a_new_switch=17)["a_new_switch"] == 17


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("num_attention_heads", Kind.HEADS), ("speech_encoder_attention_heads", Kind.HEADS), ("n_embd", Kind.WIDTH),
        ("a_new_hidden_size", Kind.WIDTH), ("new_num_hidden_layers", Kind.LAYERS), ("thing_token_id", Kind.TOKEN),
        ("attention_dropout", Kind.ZERO), ("num_labels", Kind.KEEP), ("rope_theta", Kind.KEEP),
        ("new_head_dim", Kind.HEAD_SIZE),
    ],
)  # fmt: skip
def test_kinds_are_told_by_words(key: str, kind: Kind) -> None:
    assert kind_of(key) is kind
