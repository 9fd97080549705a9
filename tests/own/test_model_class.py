"""The class of the base, and the labels of its head."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.own import model_class

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
LLAVA = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}
VIT = {"auto_mapping": {"base_model_class": "ViTForImageClassification", "parent_library": "transformers.models.vit"}}


@pytest.mark.parametrize(
    ("base", "adapter", "name"),
    [
        (LLAMA, {"task_type": "CAUSAL_LM"}, "AutoModelForCausalLM"),
        (LLAMA, {"task_type": "SEQ_CLS"}, "AutoModelForSequenceClassification"),
        (LLAMA, {"task_type": None}, "LlamaForCausalLM"),
        (LLAVA, {"task_type": "CAUSAL_LM"}, "LlavaForConditionalGeneration"),
        (
            {"architectures": ["T5ForConditionalGeneration"]},
            {"task_type": "SEQ_2_SEQ_LM"},
            "T5ForConditionalGeneration",
        ),
        ({"architectures": ["BertModel"]}, {"task_type": "FEATURE_EXTRACTION"}, "AutoModel"),
        ({}, {}, "AutoModel"),
        ({"architectures": ["a b; import os"]}, {}, "AutoModel"),
        ({"architectures": "LlamaForCausalLM"}, {}, "AutoModel"),
        ({}, VIT, "ViTForImageClassification"),
    ],
)
def test_the_class(base: dict[str, Any], adapter: dict[str, Any], name: str) -> None:
    assert model_class.of(base, adapter) == name


def test_a_class_of_the_bases_own_code() -> None:
    base = {"auto_map": {"AutoConfig": "c.C", "AutoModel": "m.M", "AutoModelForCausalLM": "m.L"}}
    assert model_class.of(base, {"task_type": "CAUSAL_LM"}, own_code=True) == "AutoModelForCausalLM"
    assert model_class.of(base, {"task_type": "SEQ_CLS"}, own_code=True) == "AutoModelForCausalLM"
    assert (
        model_class.of({"auto_map": 3}, {"task_type": "SEQ_CLS"}, own_code=True) == "AutoModelForSequenceClassification"
    )


def test_a_class_of_another_library_is_refused() -> None:
    for library in ("__main__", "timm.models", "transformers_modules.x"):
        mapping = {"base_model_class": "Net", "parent_library": library}
        with pytest.raises(UsageError, match="no model of Transformers"):
            model_class.of({}, {"auto_mapping": mapping})


@pytest.mark.parametrize(
    ("key", "shape", "count"),
    [
        ("base_model.model.score.weight", (3, 16), 3),
        ("base_model.model.score.modules_to_save.weight", (3, 16), 3),
        ("base_model.model.classifier.out_proj.weight", (5, 16), 5),
        ("base_model.model.classification_head.out_proj.weight", (2, 16), 2),
        ("base_model.model.classifier.2.weight", (4, 16), 4),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", (8, 16), None),
    ],
)
def test_the_labels(key: str, shape: tuple[int, ...], count: int | None) -> None:
    shapes = {key: shape, "base_model.model.classifier.dense.weight": (16, 16)} if "out_proj" in key else {key: shape}
    assert model_class.labels("AutoModelForSequenceClassification", shapes) == count
    assert model_class.labels("AutoModelForCausalLM", shapes) is None


def test_names_of_labels_do_not_contradict_their_number() -> None:
    base = {"id2label": {"0": "a"}, "label2id": {"a": 0}, "x": 1}
    assert model_class.with_labels(base, 3) == {"x": 1, "num_labels": 3}
    assert model_class.with_labels(base, None) == base
