"""Consumers read stored fixtures: what is right there, refused, dropped and scaled wrongly. All of it was seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Said

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("real")]

RIGHT = ("consumer-lora", "consumer-lora-head")
WRONG = ("consumer-lora-rslora", "consumer-lora-gemma2-head")
OTHERS = {"consumer-lora-dora": "refused", "consumer-ia3": "load-error"}
LATER = {
    **dict.fromkeys(("consumer-lora-alpha-pattern", "consumer-lora-saved-norm"), "silent-wrong"),
    **dict.fromkeys(("consumer-lora-mlp", "consumer-lora-embedding", "consumer-lora-rank-pattern"), "close"),
    **dict.fromkeys(("consumer-lora-mistral", "consumer-lora-qwen2", "consumer-lora-phi3"), "close"),
    **dict.fromkeys(("consumer-lora-own-bias", "consumer-lora-tokens", "consumer-lora-saved-head"), "refused"),
    **dict.fromkeys(("consumer-adalora", "consumer-lora-head-tied"), "refused"),
    "consumer-lora-embedding-tied": "crash",
    "consumer-lora-gpt2": "unsupported",
}


def checked(peft_regress: Callable[..., Said], loader: str, scenarios: list[str]) -> dict[str, dict[str, object]]:
    cells = [word for name in scenarios for word in ("--cell", f"{name}@v0212:*")]
    said = peft_regress("check", "--creator", "v0212", "--loader", loader, *cells)
    return {cell["scenario"]: cell for cell in said.report["cells"]}


def test_llama_cpp_reads_what_peft_saved(peft_regress: Callable[..., Said]) -> None:
    found = checked(peft_regress, "consumer:llama.cpp", [*RIGHT, *WRONG, *OTHERS, "lora-linear"])
    verdicts = {name: cell["verdict"] for name, cell in found.items()}
    assert verdicts == {
        **dict.fromkeys(RIGHT, "close"), **dict.fromkeys(WRONG, "silent-wrong"), **OTHERS, "lora-linear": "unsupported"
    }  # fmt: skip
    head = "base_model.model.lm_head.lora_"
    assert found["consumer-lora-gemma2-head"]["keys"]["lost"] == [f"{head}A.weight", f"{head}B.weight"]  # type: ignore[index]
    assert found["consumer-lora-rslora"]["keys"]["arrived"] == 8  # type: ignore[index]
    assert "lora_magnitude_vector" in str(found["consumer-lora-dora"]["reason"])
    assert "no tokenizer" in str(found["lora-linear"]["reason"])


@pytest.mark.nightly
def test_the_rest_of_llama_cpp(peft_regress: Callable[..., Said]) -> None:
    found = checked(peft_regress, "consumer:llama.cpp", list(LATER))
    assert {name: cell["verdict"] for name, cell in found.items()} == LATER


@pytest.mark.nightly
def test_an_older_converter_refuses_what_the_newest_applies_wrongly(peft_regress: Callable[..., Said]) -> None:
    found = checked(peft_regress, "consumer:llama.cpp==0.2.90", ["consumer-lora-saved-norm", "consumer-lora"])
    assert found["consumer-lora-saved-norm"]["verdict"] == "refused"
    assert found["consumer-lora"]["verdict"] == "close"


@pytest.mark.nightly
def test_the_last_converter_before_names_were_filtered_refuses_a_tied_head(peft_regress: Callable[..., Said]) -> None:
    found = checked(peft_regress, "consumer:llama.cpp==0.3.23", ["consumer-lora-gemma2-head"])
    assert found["consumer-lora-gemma2-head"]["verdict"] == "refused"
    assert "lm_head" in str(found["consumer-lora-gemma2-head"]["reason"])


@pytest.mark.nightly
def test_arithmetic_in_float16_is_told_from_an_adapter_that_is_read_wrongly(peft_regress: Callable[..., Said]) -> None:
    """Releases of mistral.rs before 0.9 keep keys and values in float16."""
    coarse = [f"consumer-lora-{name}" for name in ("mistral", "qwen2", "phi3", "gemma2")]
    wrong = [f"consumer-lora-{name}" for name in ("rslora", "alpha-pattern", "tokens", "gemma2-head")]
    found = checked(peft_regress, "consumer:mistralrs==0.8.23", [*coarse, *wrong])
    verdicts = {name: cell["verdict"] for name, cell in found.items()}
    assert verdicts == {**dict.fromkeys(coarse, "base-moved"), **dict.fromkeys(wrong, "silent-wrong")}


@pytest.mark.nightly
def test_vllm_scales_rightly_and_names_what_it_refuses(peft_regress: Callable[..., Said]) -> None:
    right = [f"consumer-lora-{name}" for name in ("rslora", "alpha-pattern", "rank-pattern", "head-tied", "embedding")]
    refused = ["consumer-lora-dora", "consumer-lora-bias-all", "consumer-lora-tokens", "consumer-alora"]
    others = {"consumer-ia3": "load-error", "consumer-lora-gpt2": "unsupported"}
    found = checked(peft_regress, "consumer:vllm", [*right, *refused, *others])
    verdicts = {name: cell["verdict"] for name, cell in found.items()}
    assert verdicts == {**dict.fromkeys(right, "close"), **dict.fromkeys(refused, "refused"), **others}


@pytest.mark.nightly
def test_what_cannot_be_done_with_a_consumer_is_said(peft_regress: Callable[..., Said], tmp_path: Path) -> None:
    cell = "consumer-lora-rslora@v0212:consumer-llama.cpp[cpu]"
    said = peft_regress("repro", cell, "--output", str(tmp_path / "repro"))
    assert said.code == 64
    assert "consumer:llama.cpp is no PEFT" in said.err
    assert not (tmp_path / "repro").exists()
