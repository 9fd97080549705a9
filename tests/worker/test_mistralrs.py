"""The driver of mistral.rs on a fake of its module; the real one is in tests/integration."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.worker.consume import Refused, mistralrs

ROPE: dict[str, Any] = {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}
SCALED: dict[str, Any] = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {}),
        (ROPE, {"rope_theta": 500000.0}),
        ({**ROPE, "rope_theta": 10000.0}, {}),
        (SCALED, {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {}}}, {}),
        ({"rope_parameters": None}, {}),
    ],
)
def test_fields_that_transformers_5_writes_elsewhere(config: dict[str, Any], expected: dict[str, Any]) -> None:
    assert mistralrs._missing(config) == expected


def test_the_copy_has_them_and_says_so(tmp_path: Path) -> None:
    base, work = tmp_path / "base", tmp_path / "work"
    base.mkdir()
    work.mkdir()
    (base / "config.json").write_text(json.dumps(ROPE), encoding="utf-8")
    (base / "model.safetensors").write_bytes(b"weights")

    with pytest.warns(UserWarning, match=r'config.json that mistral.rs gets: \{"rope_theta": 500000.0\}'):
        copy = Path(mistralrs._copy(str(base), str(work)))

    assert json.loads((copy / "config.json").read_text(encoding="utf-8")) == {**ROPE, "rope_theta": 500000.0}
    assert (copy / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((base / "config.json").read_text(encoding="utf-8")) == ROPE, "the user's file must not change"


def test_a_backtrace_is_cut_off() -> None:
    said = "invalid LoRA adapter tensors: no DoRA\nreally\n   0: <candle_core::error::Error>::bt\n   1: main"
    assert mistralrs._words(said) == "invalid LoRA adapter tensors: no DoRA\nreally"
    assert mistralrs._words("one line") == "one line"


class FakeRunner:
    """Answers with given log-probabilities; a token is a character."""

    def __init__(self, logprobs: dict[int, float], extra_tokens: int = 0) -> None:
        self.logprobs, self.extra_tokens = logprobs, extra_tokens

    def detokenize_text(self, tokens: list[int], _skip: bool) -> str:
        return "".join(map(chr, tokens))

    def tokenize_text(self, text: str, _special: bool, _thinking: None) -> list[int]:
        return [ord(one) for one in text if one != "?"]

    def send_chat_completion_request(self, request: dict[str, Any]) -> Any:
        top = [SimpleNamespace(token=token, logprob=value) for token, value in self.logprobs.items()]
        content = [SimpleNamespace(top_logprobs=top)]
        usage = SimpleNamespace(prompt_tokens=len(request["messages"][0]["content"]) + self.extra_tokens)
        return SimpleNamespace(choices=[SimpleNamespace(logprobs=SimpleNamespace(content=content))], usage=usage)

    def load_lora_adapter(self, _name: str, folder: str) -> None:
        if folder == "dora":
            raise sys.modules["mistralrs"].LoraAdapterError("no DoRA\n   0: bt")


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mistralrs")
    module.ChatCompletionRequest = dict  # type: ignore[attr-defined]
    module.LoraAdapterError = type("LoraAdapterError", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mistralrs", module)


LIKELY = np.log([0.5, 0.25, 0.25])


@pytest.mark.parametrize("unit", [1.0, np.log(10)], ids=["natural", "decimal"])
def test_log_probabilities_of_new_and_old_releases(unit: float) -> None:
    runner = FakeRunner(dict(enumerate(LIKELY / unit)))
    np.testing.assert_allclose(mistralrs._after(runner, [65, 66], 3, {}), LIKELY)


def test_a_token_without_a_log_probability() -> None:
    with pytest.raises(RuntimeError, match="no log-probability of 2 tokens"):
        mistralrs._after(FakeRunner({1: -1.0}), [65], 3, {})


def test_a_prompt_that_gets_another_token() -> None:
    with pytest.raises(RuntimeError, match="computed 2 tokens for a prompt of 1"):
        mistralrs._after(FakeRunner({0: 0.0}, extra_tokens=1), [65], 1, {})


def test_a_prompt_that_is_tokenized_otherwise() -> None:
    with pytest.raises(RuntimeError, match=r"\[65, 63\] is 'A\?' as text, which is tokenized to \[65\]"):
        mistralrs._after(FakeRunner({0: 0.0}), [65, 63], 1, {})


def test_a_refusal_has_its_words() -> None:
    with pytest.raises(Refused, match=r"^no DoRA$"):
        mistralrs._loaded(FakeRunner({}), "dora")
    assert mistralrs._loaded(FakeRunner({}), "lora") == {"adapter": "adapter"}
    assert mistralrs._loaded(FakeRunner({}), None) == {}


def test_an_adapter_that_was_loaded_with_the_model() -> None:
    assert mistralrs._loaded(SimpleNamespace(), "lora") == {}


def test_a_panic_is_an_error_and_the_end_of_the_process_is_not() -> None:
    class PanicException(BaseException):
        """As pyo3 raises it."""

    with pytest.raises(RuntimeError, match="panicked: index out of bounds"), mistralrs._panics():
        raise PanicException("index out of bounds\n   0: bt")
    with pytest.raises(KeyboardInterrupt), mistralrs._panics():
        raise KeyboardInterrupt
