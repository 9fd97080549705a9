"""The type of model that a base has by its name."""

from __future__ import annotations

import pytest

from harness.own import base_guess


@pytest.mark.parametrize(
    ("name", "guessed"),
    [
        ("meta-llama/Llama-2-7b-hf", "llama"),
        ("/data/models/mistral-7b", "mistral"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2"),
        ("Qwen/Qwen2-VL-2B", "qwen2_vl"),
        ("Qwen/Qwen2.5-VL-3B", "qwen2_5_vl"),
        ("facebook/opt-350m", "opt"),
        ("EleutherAI/pythia-70m", "gpt_neox"),
        ("google/flan-t5-base", "t5"),
        ("meta-llama/Llama-3.2-11B-Vision", ""),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen2-Llama", ""),
        ("my-org/optimus", ""),
        ("base", ""),
        ("", ""),
    ],
)
def test_a_name_says_the_type_or_nothing(name: str, guessed: str) -> None:
    assert base_guess.model_type(name) == guessed
