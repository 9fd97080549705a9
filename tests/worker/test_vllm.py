"""The driver of vLLM on a fake of its module; the real one is in tests/integration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.worker.consume import Refused, stage_of_error, vllm

LIKELY = np.log([0.5, 0.25, 0.25])


class FakeEngine:
    """Answers with the log-probabilities of an adapter, if one is named."""

    made: list[FakeEngine] = []
    says: Exception | bool = True
    logprobs: dict[int, float] = dict(enumerate(LIKELY))
    also: list[int] = []

    def __init__(self, base: str, **settings: Any) -> None:
        if base.endswith("broken"):
            raise RuntimeError("no weights")
        self.settings, self.loaded = settings, []  # type: ignore[var-annotated]
        config = SimpleNamespace(get_vocab_size=lambda: 3)
        self.llm_engine = SimpleNamespace(add_lora=self.add_lora, model_config=config)
        self.made.append(self)

    def add_lora(self, request: Any) -> bool:
        if isinstance(self.says, Exception):
            raise self.says
        self.loaded.append(request)
        return self.says

    def generate(self, asked: Any, _how: Any, *, lora_request: Any, use_tqdm: bool) -> Any:
        assert not use_tqdm
        assert lora_request is None or lora_request in self.loaded
        shift = 1.0 if lora_request else 0.0
        found = {token: SimpleNamespace(logprob=value - shift) for token, value in self.logprobs.items()}
        prompt = [*asked[0]["prompt_token_ids"], *self.also]
        return [SimpleNamespace(prompt_token_ids=prompt, outputs=[SimpleNamespace(logprobs=[found])])]


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    module.LLM, module.SamplingParams, module.TokensPrompt = FakeEngine, dict, dict  # type: ignore[attr-defined]
    request.LoRARequest = lambda *names: names  # type: ignore[attr-defined]
    for one in (module, lora, request):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    monkeypatch.setattr(FakeEngine, "made", [])
    vllm._engine.clear()
    yield
    vllm._engine.clear()


def computed(adapter: str | None = None, base: str = "/some/base") -> Any:
    return vllm.log_probabilities(base, adapter, [[1, 2], [3]], "/work")


def test_one_engine_computes_base_and_adapter() -> None:
    np.testing.assert_allclose(computed(), [LIKELY, LIKELY])
    np.testing.assert_allclose(computed("/some/adapter"), [LIKELY - 1, LIKELY - 1])
    (engine,) = FakeEngine.made
    assert engine.loaded == [("adapter", 1, "/some/adapter")]
    assert engine.settings["dtype"] == "float32"


def test_another_base_gets_another_engine() -> None:
    computed()
    computed(base="/other/base")
    assert len(FakeEngine.made) == 2


@pytest.mark.parametrize("said", [ValueError("vLLM does not yet support DoRA."), NotImplementedError("no DoRA.")])
def test_a_refusal_has_its_words(said: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "says", said)
    with pytest.raises(Refused, match=str(said)):
        computed("/some/adapter")
    assert stage_of_error() == "loading the adapter"


@pytest.mark.parametrize(
    ("says", "error"), [(KeyError("q_proj"), "q_proj"), (False, "did not load the adapter, and not why")]
)
def test_another_error_is_no_refusal(says: Exception | bool, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "says", says)
    with pytest.raises((KeyError, RuntimeError), match=error):
        computed("/some/adapter")


def test_an_error_of_the_base_is_no_refusal() -> None:
    with pytest.raises(RuntimeError, match="no weights"):
        computed(base="broken")
    assert stage_of_error() == "loading the base"
    assert not vllm._engine


def test_a_token_without_a_log_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "logprobs", {0: -1.0, 1: -1.0})
    with pytest.raises(RuntimeError, match="log-probabilities of 2 tokens of 3"):
        computed()


def test_a_prompt_that_gets_another_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "also", [9])
    with pytest.raises(RuntimeError, match=r"\[1, 2, 9\] for the prompt \[1, 2\]"):
        computed()
