"""A base has what a given adapter's file holds of it."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from harness.worker.compat import libraries
from harness.worker.model import adapters


class Tensor:
    """As much of torch's as is needed."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values)
        self.shape = self.values.shape

    def copy_(self, other: Tensor) -> None:
        self.values[...] = other.values


class Torch:
    no_grad = contextlib.nullcontext


class Model:
    def __init__(self, **own: Tensor) -> None:
        self.own = own

    def named_parameters(self) -> Any:
        return self.own.items()


def restored(saved: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    model = Model(**{"embed.weight": Tensor([0.0, 0.0]), "head.weight": Tensor([0.0, 0.0]), "head.bias": Tensor([0.0])})
    files = {f"base_model.model.{key}": Tensor(value) for key, value in saved.items()}
    monkeypatch.setattr(libraries, "load_adapter_tensors", lambda _: files)
    adapters.restore_tables(Torch, model)
    return {name: tensor.values.tolist() for name, tensor in model.own.items() if tensor.values.any()}


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"head.original_module.weight": [1, 2], "head.modules_to_save.weight": [3, 4]}, {"head.weight": [1, 2]}),
        ({"embed.base_layer.weight": [1, 2], "embed.lora_embedding_A": [3, 4]}, {"embed.weight": [1, 2]}),
        ({"embed.weight": [1, 2], "embed.lora_embedding_A": [3, 4]}, {"embed.weight": [1, 2]}),  # before 0.7
        ({"head.weight": [1, 2]}, {}),  # it was trained
        ({"head.bias": [1], "head.lora_A.weight": [3, 4]}, {}),  # so was this
        ({"head.base_layer.weight": [1, 2, 3]}, {}),  # tokens were added
    ],
)
def test_only_what_was_not_trained_is_the_bases(
    saved: dict[str, list[float]], expected: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert restored(saved, monkeypatch) == expected
