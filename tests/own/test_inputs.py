"""Inputs come from the configuration: tokens in the vocabulary, images of its size, the tokens that are trained."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.own import inputs, vocabulary
from harness.own.inputs import Inputs
from harness.worker.model import bases

LLAMA = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": [2, 90], "pad_token_id": None}
T5 = {"vocab_size": 100, "pad_token_id": 0, "eos_token_id": 1, "is_encoder_decoder": True}


def of(config: dict[str, Any], model: str = "AutoModelForCausalLM", **adapter: Any) -> Inputs:
    return inputs.of(config, model, vocabulary.of(config, adapter, {}), adapter)


def made(found: Inputs) -> dict[str, Any]:
    """The arrays, as the worker makes them."""
    return bases.make_inputs({**found.specs, **found.adapter}, "own")


def test_ordinary_tokens_are_none_of_the_special_ones() -> None:
    arrays = made(of(LLAMA))
    assert not {1, 2, 90} & set(arrays["input_ids"].ravel().tolist())
    assert arrays["input_ids"].max() < 100
    assert arrays["attention_mask"].tolist() == [[1] * 7, [1] * 5 + [0] * 2]


@pytest.mark.parametrize("count", [1, 4, 30])
def test_trained_tokens_occur(count: int) -> None:
    trained = list(range(50, 50 + count))
    arrays = made(of(LLAMA, trainable_token_indices=trained))
    seen = arrays["input_ids"][1][arrays["attention_mask"][1] == 1].tolist()
    assert set(trained) <= set(seen)


def test_a_decoder_that_classifies_gets_a_token_for_padding() -> None:
    found = of(LLAMA, "AutoModelForSequenceClassification")
    pad = found.changes["pad_token_id"]
    assert pad not in (1, 2, 90)
    ids = made(found)["input_ids"]
    assert ids[1].tolist()[-2:] == [pad, pad]
    assert (ids[0] != pad).all()


def test_rows_of_an_encoder_that_classifies_end_alike() -> None:
    arrays = made(of(T5, "T5ForSequenceClassification"))
    assert (arrays["input_ids"] == 1).sum(axis=1).tolist() == [1, 1]


def test_an_encoder_and_decoder_get_both() -> None:
    assert set(made(of(T5, "AutoModelForSeq2SeqLM"))) == {"input_ids", "attention_mask", "decoder_input_ids"}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"image_size": 32, "num_channels": 3, "patch_size": 8}, (2, 3, 32, 32)),
        ({"image_size": [32, 48], "num_channels": 1}, (2, 1, 32, 48)),
        ({"image_size": {"height": 16, "width": 8}}, (2, 3, 16, 8)),
        ({"backbone_config": {}, "num_queries": 5}, (2, 3, 64, 64)),
    ],
)
def test_images(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert made(of(config, "ViTForImageClassification"))["pixel_values"].shape == shape


def test_each_row_has_an_image_and_its_tokens() -> None:
    vision = {"image_size": 32, "patch_size": 16}
    arrays = made(of({**LLAMA, "image_token_index": 99, "vision_config": vision, "text_config": {}}))
    assert (arrays["input_ids"] == 99).sum(axis=1).tolist() == [4, 4]
    assert arrays["pixel_values"].shape == (2, 3, 32, 32)


def test_a_grid_has_the_patches_that_become_one_token() -> None:
    vision = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
    arrays = made(of({**LLAMA, "image_token_id": 99, "vision_start_token_id": 98, "vision_config": vision}))
    assert (arrays["input_ids"] == 99).sum(axis=1).tolist() == [1, 1]
    assert arrays["pixel_values"].shape == (8, 96)
    assert arrays["position_ids"].shape == (3, *arrays["input_ids"].shape)


def test_two_towers_get_text_and_image() -> None:
    text = {"vocab_size": 100, "eos_token_id": 2, "pad_token_id": 1}
    found = of({"text_config": text, "vision_config": {"image_size": 8, "patch_size": 4}}, "CLIPModel")
    arrays = made(found)
    assert (arrays["input_ids"] == 2).sum(axis=1).tolist() == [1, 1]
    assert found.outputs == ["logits_per_image", "text_embeds", "image_embeds"]


def test_sound() -> None:
    arrays = made(of({**T5, "num_mel_bins": 8, "max_source_positions": 20}, "WhisperForConditionalGeneration"))
    assert arrays["input_features"].shape == (2, 8, 40)


def test_tasks_are_told_to_the_adapter_alone() -> None:
    found = of(LLAMA, peft_type="POLY", n_tasks=3)
    assert found.adapter == {"task_ids": {"kind": "values", "values": [2, 0]}}
    assert "task_ids" not in found.specs
    assert found.generate is None


@pytest.mark.parametrize(
    ("method", "parts", "given"),
    [
        ("MULTITASK_PROMPT_TUNING", 2, "labels"),
        ("PROMPT_TUNING", 1, "decoder_input_ids"),
        ("PREFIX_TUNING", 2, "decoder_input_ids"),
    ],
)
def test_a_prompt_before_the_decoders_input_needs_labels(method: str, parts: int, given: str) -> None:
    found = of(T5, "T5ForConditionalGeneration", peft_type=method, num_transformer_submodules=parts)
    assert set(found.specs) & {"labels", "decoder_input_ids"} == {given}


def test_outputs_that_have_other_names() -> None:
    assert of({**T5, "is_encoder_decoder": False}, "AutoModelForQuestionAnswering").outputs == [
        "start_logits",
        "end_logits",
    ]


def test_a_model_of_neither_text_nor_images_is_refused() -> None:
    with pytest.raises(UsageError, match="neither a vocabulary nor images"):
        of({"model_type": "timeseries"}, "AutoModel")
