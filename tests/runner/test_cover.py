"""Which scenarios check a change that can affect all: every feature once, and none to spare."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from harness.core import data
from harness.core.matrix import Declared, Matrix
from harness.core.scenario import Base
from harness.runner.change import cover
from tests.runner.test_touched import declared


def of(one: Declared) -> set[str]:
    return set(cover.features(one)) - {"LoraConfig"}


def with_args(**args: Any) -> Declared:
    one = declared("a")
    adapter = one.scenario.adapter.model_copy(update={"args": args})
    return Declared(one.scenario.model_copy(update={"adapter": adapter}), Base(why="x", modules=[]), "b", one.file, {})


@pytest.mark.parametrize(
    ("args", "features"),
    [
        ({"use_dora": True}, {"LoraConfig.use_dora=true"}),
        ({"use_dora": False}, {"LoraConfig.use_dora=false"}),
        ({"bias": "lora_only"}, {"LoraConfig.bias=lora_only"}),
        ({"r": 4}, {"LoraConfig.r"}),
        ({"r": 1}, {"LoraConfig.r=1"}),
        ({"r": 4, "lora_alpha": 4}, {"LoraConfig.r", "LoraConfig.lora_alpha", "LoraConfig.lora_alpha equals r"}),
        ({"r": 4, "lora_alpha": 3}, {"LoraConfig.r", "LoraConfig.lora_alpha", "LoraConfig.lora_alpha differs from r"}),
        ({"lora_dropout": 0.0}, {"LoraConfig.lora_dropout empty"}),
        ({"modules_to_save": ["a.head"]}, {"LoraConfig.modules_to_save", "LoraConfig.modules_to_save: head"}),
        ({"target_modules": ".*q"}, {"LoraConfig.target_modules as a pattern"}),
        ({"target_modules": []}, {"LoraConfig.target_modules empty"}),
        ({"rank_pattern": {"q": 2}}, {"LoraConfig.rank_pattern as a table", "LoraConfig.rank_pattern: q"}),
        (
            {"rank_pattern": {"^a.q": 2}},
            {
                "LoraConfig.rank_pattern as a table",
                "LoraConfig.rank_pattern: q",
                "LoraConfig.rank_pattern with an anchored name",
            },
        ),
        ({"trainable_token_indices": [1]}, {"LoraConfig.trainable_token_indices"}),
        ({"ensure_weight_tying": True}, {"LoraConfig.ensure_weight_tying=true"}),
    ],
)
def test_an_argument_is_a_feature(args: dict[str, Any], features: set[str]) -> None:
    assert of(with_args(**args)) == features


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ({"load_paths": ["hotswap"]}, {"load path hotswap", "LoraConfig: load path hotswap"}),
        ({"wrap": {"saved": ["compile"], "loaded": ["compile"]}}, {"wrapper compile saved", "wrapper compile loaded"}),
        ({"steps": {"names": ["loaded-as-is"]}}, {"step loaded-as-is"}),
        ({"adapter_name": "other"}, {"adapter_name"}),
        ({"beside": {"config": "VeraConfig"}}, {"LoraConfig: beside", "VeraConfig beside another"}),
        ({"quantize": {"bits": 4}, "requires": ["bitsandbytes>=0.46"]}, {"LoraConfig on 4 bits", "quantize.type=nf4"}),
    ],
)
def test_what_else_is_a_feature(more: dict[str, Any], features: set[str]) -> None:
    assert features <= of(declared("a", **more))


def test_a_base_has_features() -> None:
    tied = {"model": "LlamaForCausalLM", "config": "LlamaConfig", "args": {"tie_word_embeddings": True}}
    one = declared("a", base={"transformers": tied, "load_with": {"torch_dtype": "bfloat16"}, "resize_to": 9})
    assert of(one) >= {
        "base LlamaForCausalLM", "LoraConfig on LlamaForCausalLM", "LoraConfig on a tied base",
        "base load_with.torch_dtype=bfloat16", "base resize_to",
    }  # fmt: skip


def is_cover(chosen: list[str], having: dict[str, set[str]]) -> bool:
    return set().union(*(having[name] for name in chosen)) == set().union(*having.values())


@pytest.mark.parametrize("seed", range(40))
def test_it_covers_and_has_none_to_spare(seed: int) -> None:
    chance = random.Random(seed)
    having = {f"s{i}": set(chance.sample("abcdefghijklmnop", chance.randint(0, 6))) for i in range(20)}
    cost = {name: float(chance.randint(1, 9)) for name in having}
    chosen = cover.smallest(having, cost)
    assert is_cover(chosen, having)
    for name in chosen:
        assert not is_cover([other for other in chosen if other != name], having), name
    assert chosen == cover.smallest(having, cost), "it depends on nothing else"


def test_of_two_that_have_the_same_the_cheap_one_is_chosen() -> None:
    for one, other in itertools.permutations((("a", 1.0), ("b", 3.0))):
        having = {name: {"x"} for name, _ in (one, other)}
        assert cover.smallest(having, dict([one, other])) == ["a"]


def test_nothing_is_covered_by_nothing() -> None:
    assert cover.smallest({}, {}) == []


def test_the_features_that_were_left_out_once_are_covered() -> None:
    """A change to a shared file left out DoRA, rsLoRA, bias, trained tokens, ties and anchored names."""
    every = [one for one in Matrix(data.matrices()).scenarios() if not one.quantize and not one.scenario.sft]
    having = {one.name: set(cover.features(one)) for one in every}
    chosen = cover.smallest(having, {one.name: cover.cost(one, 40_000) for one in every})
    covered = set().union(*(having[name] for name in chosen))
    for name in ("use_dora=true", "use_rslora=true", "bias=all", "bias=lora_only", "ensure_weight_tying=true",
                 "rank_pattern with an anchored name"):  # fmt: skip
        assert f"LoraConfig.{name}" in covered
    assert any("LoraConfig.trainable_token_indices" in feature for feature in covered)
    assert len(chosen) < 0.7 * len(every)
