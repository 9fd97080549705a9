"""The types of an adapter's parameters, by their names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.worker.observe import types


def _parameter(dtype: str, device: str = "cpu") -> Any:
    return SimpleNamespace(dtype=f"torch.{dtype}", device=SimpleNamespace(type=device))


def _model(**parameters: Any) -> Any:
    return SimpleNamespace(named_parameters=lambda: [(name.replace("__", "."), p) for name, p in parameters.items()])


def test_only_the_adapters_parameters_by_their_canonical_names() -> None:
    model = _model(
        base_model__model__q__weight=_parameter("bfloat16"),
        base_model__model__q__lora_A__default__weight=_parameter("float32"),
        base_model__model__q__lora_A__other__weight=_parameter("bfloat16"),
    )
    assert types.of(model, "default") == {"q.lora_A.weight": "float32"}


def test_a_parameter_on_another_device_than_its_base() -> None:
    model = _model(q__weight=_parameter("float32"), q__lora_A__default__weight=_parameter("float32", "meta"))
    assert types.of(model, "default") == {"q.lora_A.weight": "float32 on meta"}
