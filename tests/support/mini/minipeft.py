"""A stand-in for PEFT, Transformers and torch in one: low-rank adapters on a stack of linear layers, in NumPy.

Release 1.0. The others are made of this text: see `releases.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Weights = dict[str, Any]


class LowRankConfig:
    """What an adapter is configured with."""

    def __init__(self, r: int = 2, alpha: float = 3.0, targets: list[str] | None = None) -> None:
        self.r, self.alpha, self.targets = r, alpha, list(targets or [])

    def as_dict(self) -> dict[str, Any]:
        """As it is saved."""
        return {"r": self.r, "alpha": self.alpha, "targets": self.targets}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> LowRankConfig:
        """As it was saved."""
        return cls(**saved)


def activation(x: Any) -> Any:
    """What stands between two layers of a base."""
    return np.tanh(x)


class Model:
    """A base with an adapter on it."""

    def __init__(self, weights: Weights, config: LowRankConfig, tensors: Weights) -> None:
        self.weights, self.config, self.tensors = weights, config, tensors
        self.seen: list[tuple[str, Any, Any]] = []

    @property
    def scaling(self) -> float:
        """By how much the low-rank product is multiplied."""
        return self.config.alpha / self.config.r

    def effect(self, name: str, x: Any) -> Any:
        """What the adapter adds to a layer's output."""
        a, b = self.tensors[f"{name}.low_rank_A"], self.tensors[f"{name}.low_rank_B"]
        return (x @ a.T) @ b.T * self.scaling

    def forward(self, x: Any, enabled: bool = True) -> Any:
        """The output; remembers in `seen` what each adapted layer was given and gave."""
        self.seen = []
        for name, weight in sorted(self.weights.items()):
            y = x @ weight.T
            if enabled and name in self.config.targets:
                y = y + self.effect(name, x)
            self.seen.append((name, x, y))
            x = activation(y)
        return x

    def merged(self) -> Weights:
        """The base's weights with the adapter in them."""
        return {name: weight + self._product(name, weight) for name, weight in self.weights.items()}

    def _product(self, name: str, weight: Any) -> Any:
        if name not in self.config.targets:
            return np.zeros_like(weight)
        return self.tensors[f"{name}.low_rank_B"] @ self.tensors[f"{name}.low_rank_A"] * self.scaling

    def save(self, folder: str) -> None:
        """Write the adapter to a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, str(Path(folder, "adapter_model.safetensors")))
        Path(folder, "adapter_config.json").write_text(json.dumps(self.config.as_dict(), sort_keys=True) + "\n")


def get_model(weights: Weights, config: LowRankConfig) -> Model:
    """A new adapter on a base; its tensors are zero until somebody fills them."""
    tensors = {}
    for name in config.targets:
        outputs, inputs = weights[name].shape
        tensors[f"{name}.low_rank_A"] = np.zeros((config.r, inputs), np.float32)
        tensors[f"{name}.low_rank_B"] = np.zeros((outputs, config.r), np.float32)
    return Model(weights, config, tensors)


def load_adapter(weights: Weights, folder: str) -> Model:
    """A saved adapter on a base."""
    saved = json.loads(Path(folder, "adapter_config.json").read_text())
    tensors = load_file(str(Path(folder, "adapter_model.safetensors")))
    return Model(weights, LowRankConfig.from_dict(saved), dict(tensors))


def load_sparingly(weights: Weights, folder: str) -> Model:
    """A saved adapter on a base, by another door."""
    model = load_adapter(weights, folder)
    model.tensors = {name: np.array(tensor) for name, tensor in model.tensors.items()}
    return model
