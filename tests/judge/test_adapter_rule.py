"""Rules about adapters as long tables: the rule, the adapter, and the answer."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core import toml_files
from harness.core.errors import UsageError
from harness.judge import breaks
from harness.judge.adapter_facts import FACTS
from harness.judge.adapter_rule import AdapterRule, Rule
from harness.judge.adapter_rule_words import only_if, sentences
from harness.judge.adapter_uses import USES
from harness.judge.applies import applying
from harness.judge.breaks import Break
from harness.store.adapter import Adapter

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
LORA = {f"{LAYER}.lora_A.weight": (4, 16), f"{LAYER}.lora_B.weight": (16, 4)}


def adapter(
    base: dict[str, Any] | None = None, shapes: dict[str, tuple[int, ...]] | None = None, **config: Any
) -> Adapter:
    there = LORA if shapes is None else shapes
    return Adapter(
        config={"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj"]} | config,
        shapes=there,
        dtypes=dict.fromkeys(there, "float32"),
        files=("adapter_config.json", "adapter_model.bin"),
        base=base,
    )


def rule(**fields: Any) -> Rule:
    return Rule.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "config", "answer"),
    [
        ({"method": "LORA"}, {}, True),
        ({"method": ["LOKR", "LOHA"]}, {}, False),
        ({"config": {"use_dora": True}}, {"use_dora": True}, True),
        ({"config": {"use_dora": True}}, {"use_dora": 1}, False),
        ({"config": {"use_dora": True}}, {}, False),
        ({"config": {"r": 4}}, {"r": 4.0}, True),
        ({"config": {"bias": "*_only"}}, {"bias": "lora_only"}, True),
        ({"config": {"bias": ["all", "lora_only"]}}, {"bias": "none"}, False),
        ({"config": {"target_modules": "q_*"}}, {}, True),
        ({"config": {"trainable_token_indices": "*lm_head"}}, {"trainable_token_indices": {"lm_head": [1]}}, True),
        ({"config": {"trainable_token_indices": "*lm_head"}}, {"trainable_token_indices": [1, 2]}, False),
        ({"config": {"auto_mapping.base_model_class": "CLIP*"}}, {"auto_mapping": {"base_model_class": "CLIPX"}}, True),
        ({"config": {"auto_mapping.base_model_class": "CLIP*"}}, {"auto_mapping": None}, False),
        ({"config": {"x": {"set": True}}}, {"x": {"a": 1}}, True),
        ({"config": {"x": {"set": True}}}, {"x": {}}, False),
        ({"config": {"x": {"set": True}}}, {}, False),
        ({"config": {"x": {"set": False}}}, {}, True),
        ({"config": {"x": {"set": False}}}, {"x": None}, True),
        ({"config": {"x": {"present": True}}}, {"x": None}, True),
        ({"config": {"x": {"present": False}}}, {"x": None}, False),
        ({"config": {"lora_alpha": {"differs_from": "r"}}}, {}, True),
        ({"config": {"lora_alpha": {"differs_from": "r"}}}, {"lora_alpha": 4}, False),
        ({"config": {"lora_alpha": {"differs_from": "rank"}}}, {}, False),
        ({"config": {"r": {"above": 3}}}, {}, True),
        ({"config": {"r": {"above": 3}}}, {"r": "many"}, False),
        ({"keys": "*.lora_A.weight"}, {}, True),
        ({"keys": "!*lora_*"}, {}, False),
        ({"keys": "!*lora_A*"}, {}, True),
        ({"dimensions": {"*.lora_A.weight": 2}}, {}, True),
        ({"dimensions": {"*.lora_A.weight": 4}}, {}, False),
        ({"dtypes": ["bfloat16", "float32"]}, {}, True),
        ({"dtypes": "bfloat16"}, {}, False),
        ({"files": "adapter_model.bin"}, {}, True),
        ({"files": "*.safetensors"}, {}, False),
        ({"method": "LORA", "keys": "*.nothing"}, {}, False),
        ({"any": [{"keys": "*.nothing"}, {"method": "LORA"}]}, {}, True),
        ({"any": [{"keys": "*.nothing"}]}, {}, False),
        ({"unless": [{"keys": "*.nothing"}, {"method": "LORA"}]}, {}, False),
        ({"unless": [{"keys": "*.nothing"}]}, {}, True),
        ({"base": {"model_type": "vit"}}, {}, None),
        ({"base": {"model_type": "vit"}, "method": "LOKR"}, {}, False),
        ({"any": [{"base": {"model_type": "vit"}}, {"method": "LORA"}]}, {}, True),
        ({"unless": [{"base": {"model_type": "vit"}}]}, {}, None),
        (
            {"base": {"model_type": "vit"}},
            {"auto_mapping": {"parent_library": "transformers.models.vit.modeling"}},
            True,
        ),
        (
            {"base": {"model_type": "vit"}},
            {"auto_mapping": {"parent_library": "transformers.models.clip.modeling"}},
            False,
        ),
        ({"base": {"tied": True}}, {"task_type": "CAUSAL_LM"}, None),
        ({"base": {"tied": True}}, {"task_type": "SEQ_CLS"}, False),
    ],
)
def test_a_rule_on_an_adapter_of_an_unknown_base(fields: Any, config: Any, answer: bool | None) -> None:
    assert rule(**fields).about(adapter(**config)) is answer


@pytest.mark.parametrize(
    ("base", "answer"),
    [
        ({"model_type": "gpt2"}, True),
        ({"model_type": "llama"}, False),
        ({"model_type": "llama", "tie_word_embeddings": True}, True),
        ({"model_type": "opt", "tie_word_embeddings": False}, False),
        ({"model_type": "gemma3", "text_config": {"tie_word_embeddings": False}}, False),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, False),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, True),
        ({}, False),
    ],
)
def test_whether_a_base_is_tied_also_where_its_config_leaves_it_out(base: dict[str, Any], answer: bool) -> None:
    assert rule(base={"tied": True}).about(adapter(base)) is answer
    assert rule(base={"tied": False}).about(adapter(base)) is not answer


@pytest.mark.parametrize(
    ("fact", "yes", "no"),
    [
        (
            "bias-of-an-adapted-layer",
            {"shapes": {**LORA, f"{LAYER}.bias": (16,)}},
            {"shapes": {**LORA, "norm.bias": (1,)}},
        ),
        (
            "layers-beside-its-targets",
            {"shapes": {"base_model.model.sublin1.lora_A.weight": (4, 16)}, "target_modules": ["lin1"]},
            {"shapes": {"base_model.model.sub.lin1.lora_A.weight": (4, 16)}, "target_modules": ["lin1"]},
        ),
        ("saves-embedding", {"modules_to_save": ["model.embed_tokens"]}, {"modules_to_save": ["pos_embed_tokens_x"]}),
        ("saves-head", {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["score"]}),
        (
            "same-tokens-twice",
            {"trainable_token_indices": {"a": [2, 1], "b": [1, 2]}},
            {"trainable_token_indices": {"a": [2, 1], "b": [1]}},
        ),
        ("prompt-learning", {"peft_type": "PREFIX_TUNING"}, {"peft_type": "LORA"}),
        ("boft-on-convolutions", {"shapes": {"x.boft_s": (1, 8)}}, {"shapes": {"x.boft_s": (8, 1)}}),
        (
            "on-stacked-parameters",
            {"r": 2, "target_parameters": ["experts.up"], "shapes": {"x.experts.lora_A.weight": (8, 4)}},
            {"r": 2, "target_parameters": ["q.weight"], "shapes": {"x.q.lora_A.weight": (2, 4)}},
        ),
    ],
)
def test_each_fact_is_seen_to_hold_and_not_to_hold(fact: Any, yes: Any, no: Any) -> None:
    assert FACTS[fact](adapter(**yes)) is True
    assert FACTS[fact](adapter(**no)) is False


def test_no_fact_is_missing_in_the_table_above() -> None:
    table = test_each_fact_is_seen_to_hold_and_not_to_hold.pytestmark[0].args[1]
    assert {row[0] for row in table} == set(FACTS)


@pytest.mark.parametrize(
    "text",
    [
        "config = { x = {} }",
        'untold = "a reason"\nmethod = "LORA"',
        'hidden = { "lora-*" = "a reason" }',
        'only_if = ["fly"]',
        'has = "wings"',
        "any = []",
        'metod = "LORA"',
        "method = 3",
    ],
)
def test_a_rule_that_says_nothing_or_something_unknown_is_refused(text: str, tmp_path: Any) -> None:
    with pytest.raises(UsageError):
        toml_files.validated(AdapterRule, toml_files.parsed(text, tmp_path), tmp_path)


def test_a_rule_in_words() -> None:
    lokr = {"method": "LOKR", "any": [{"config": {"alpha": {"differs_from": "r"}}}, {"config": {"x": {"set": True}}}]}
    one = AdapterRule.model_validate(lokr | {"only_if": ["unload"], "unless": [{"keys": "*.b"}]})
    assert sentences(one) == (
        "Applies to `LOKR` adapters where `alpha` differs from `r`, or `x` is set, "
        "but not where a tensor has a name like `*.b`. Only if you unload the adapter."
    )
    assert only_if(AdapterRule.model_validate({"method": "LORA"})) == ""
    assert all(words.words and words.words[0].islower() for words in USES.values())


def test_a_rule_means_the_same_after_it_was_written_out() -> None:
    one = AdapterRule.model_validate({"only_if": ["unload"], "unless": [{"config": {"r": {"above": 3}}}]})
    again = AdapterRule.model_validate(one.model_dump())
    assert (again, again.is_general, again.about(adapter())) == (one, True, False)
    assert not AdapterRule.model_validate({"method": "LORA"}).is_general


# -- applying ----------------------------------------------------------------------------------------------------------


def known(id: str, *conditions: dict[str, Any], **fields: Any) -> Break:
    usual = {"scenarios": ["*"], "creators": "peft<0.7", "loaders": "peft>=0.7", "verdict": "contract"}
    texts = {"title": "t", "cause": "c", "references": ["https://example.com/1"], "permanent": "p"}
    return Break.model_validate(texts | fields | {"id": id, "condition": [usual | one for one in conditions]})


OLD, NEW = {"peft": "0.6.1"}, {"peft": "0.9.0"}


def ids(found: list[Any]) -> list[str]:
    return [f"{one.known.id}{'?' if one.unknown else ''}" for one in found]


def test_breaks_of_other_creators_loaders_and_adapters_do_not_apply() -> None:
    there = [
        known("lora", {}, adapter={"method": "LORA"}),
        known("lokr", {}, adapter={"method": "LOKR"}),
        known("mute", {}),
    ]
    assert ids(applying(adapter(), [OLD], NEW, there)) == ["lora"]
    assert applying(adapter(), [NEW], NEW, there) == []
    assert applying(adapter(), [OLD], OLD, there) == []


def test_a_break_may_apply_where_only_some_creators_or_libraries_fit() -> None:
    one = known("one", {"creators": "peft<0.7, transformers<5"}, adapter={"method": "LORA"})
    four, five = ({**OLD, "transformers": version} for version in ("4.35", "5.1"))
    assert ids(applying(adapter(), [OLD], NEW, [one])) == ["one?"]
    assert ids(applying(adapter(), [four], NEW, [one])) == ["one"]
    assert ids(applying(adapter(), [five], NEW, [one])) == []
    assert ids(applying(adapter(), [four, NEW], NEW, [one])) == ["one?"]
    assert applying(adapter(), [four, NEW], NEW, [one])[0].unknown == ("creator",)


def test_a_break_may_apply_where_the_base_is_unknown() -> None:
    one = known("one", {}, adapter={"base": {"model_type": "vit"}})
    assert applying(adapter(), [OLD], NEW, [one])[0].unknown == ("base",)
    assert applying(adapter({"model_type": "vit"}), [OLD], NEW, [one])[0].unknown == ()
    assert applying(adapter({"model_type": "clip"}), [OLD], NEW, [one]) == []


def test_the_worst_comes_first_and_a_condition_has_its_own_rule() -> None:
    wrong = {"verdict": "silent-wrong"}
    there = [
        known("a-contract", {}, adapter={"method": "LORA"}),
        known("b-wrong-if", {**wrong, "adapter": {"method": "LORA", "only_if": ["merge"]}}),
        known("c-wrong", {}, {**wrong, "adapter": {"method": "LORA"}}, adapter={"method": "LOKR"}),
        known("d-maybe", wrong, adapter={"base": {"model_type": "vit"}}),
    ]
    found = applying(adapter(), [OLD], NEW, there)
    assert ids(found) == ["c-wrong", "a-contract", "b-wrong-if", "d-maybe?"]
    assert found[2].only_if == ("merge",)


def test_conditions_that_name_environments() -> None:
    one = known("one", {"creators": ["v06*"], "loaders": ["current"]}, adapter={"method": "LORA"})
    environments = {"v061": OLD, "current": NEW}
    assert ids(applying(adapter(), [OLD], NEW, [one], environments)) == ["one"]
    assert applying(adapter(), [{"peft": "0.5.0"}], NEW, [one], environments) == []
    assert applying(adapter(), [OLD], OLD, [one], environments) == []


def test_breaks_without_a_rule_are_named() -> None:
    told, mute = known("told", {"adapter": {"untold": "chance"}}), known("mute", {})
    assert breaks.without_rule([told, mute]) == ["mute"]
    assert ids(applying(adapter(), [OLD], NEW, [told])) == ["told?"]
