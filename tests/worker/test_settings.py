"""Which settings a replay can have where it runs, by what the libraries declare; what needs torch is in integration."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from harness.worker.compat import settings
from harness.worker.observe.recorder import Observation
from harness.worker.observe.settings import Asked

LLAMA = {"kind": "transformers", "model": "Llama", "name": "llama"}
TORCH = SimpleNamespace(bfloat16="torch.bfloat16")


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Transformers 4.51 whose one model declares all attentions."""
    release(monkeypatch, (4, 51))
    llama = type("Llama", (), {"_supports_sdpa": True, "_supports_flash_attn_2": True})
    fake = SimpleNamespace(__version__="4.51.3", Llama=llama)
    monkeypatch.setitem(sys.modules, "transformers", fake)
    return fake


def release(monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]) -> None:
    monkeypatch.setattr("harness.worker.compat.quantised.release", lambda _: numbers)


def said(base: dict[str, Any], device: str = "cpu", **asked: str) -> tuple[str, str]:
    observation = Observation("x")
    possible = Asked(TORCH, {"base": base}, asked, device).possible(observation)
    found = observation.load.get("settings", {"outcome": "", "reason": ""})
    assert possible == (not found["outcome"])
    return found["outcome"], found["reason"]


def test_nothing_asked_is_always_possible_and_asks_nothing() -> None:
    assert said({**LLAMA, "quantize": {"bits": 4}}) == ("", "")


@pytest.mark.usefixtures("transformers")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_that_declares_it(attention: str) -> None:
    assert said(LLAMA, attention=attention, dtype="bfloat16") == ("", "")


def test_a_model_that_declares_that_it_has_none(transformers: Any) -> None:
    transformers.Llama._supports_sdpa = False

    assert said(LLAMA, attention="sdpa") == (
        "unsupported", "loader: Llama of Transformers 4.51.3 declares that it has no sdpa",
    )  # fmt: skip
    assert said(LLAMA, attention="eager") == ("", "")


@pytest.mark.usefixtures("transformers")
def test_a_release_without_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, (4, 35, 2))

    assert said(LLAMA, attention="sdpa")[0] == "unsupported"
    assert said(LLAMA, attention="eager") == ("", ""), "all is eager there"


@pytest.mark.parametrize(
    ("base", "asked"),
    [
        ({"kind": "modules", "name": "mlp"}, {"attention": "eager"}),
        ({**LLAMA, "quantize": {"bits": 4}}, {"dtype": "bfloat16"}),
    ],
)
def test_a_base_that_has_no_such_thing_by_its_declaration(base: dict[str, Any], asked: dict[str, str]) -> None:
    assert said(base, **asked)[0] == "unsupported"


@pytest.mark.usefixtures("transformers")
def test_flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(LLAMA, attention="flash_attention_2") == ("no-device", "flash attention needs a GPU")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "no package flash_attn" in said(LLAMA, "cuda", attention="flash_attention_2")[1]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: "there")
    assert said(LLAMA, "cuda", attention="flash_attention_2")[0] == "not-comparable", "it needs a dtype"
    assert said(LLAMA, "cuda", attention="flash_attention_2", dtype="bfloat16") == ("", "")


@pytest.mark.parametrize(("numbers", "name"), [((4, 55), "torch_dtype"), ((4, 56), "dtype"), ((5, 0), "dtype")])
def test_what_from_pretrained_gets(monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], name: str) -> None:
    release(monkeypatch, numbers)
    base = {**LLAMA, "dtype": "bfloat16", "attention": "sdpa"}

    assert settings.loading(TORCH, base) == {"attn_implementation": "sdpa", name: "torch.bfloat16"}
    assert settings.loading(TORCH, LLAMA) == {}


def test_flash_computes_in_the_narrow_type_alone() -> None:
    asked = Asked(TORCH, {"base": LLAMA}, {"attention": "flash_attention_2", "dtype": "bfloat16"}, "cuda")

    assert "attention" not in asked.scenario["base"]
    assert Asked(TORCH, {"base": LLAMA}, {"attention": "sdpa"}, "cpu").scenario["base"]["attention"] == "sdpa"
