"""A small adapter and its base, written by hand, and what a bad one is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CONFIG: Mapping[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "acme/small-llama",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "modules_to_save": None,
    "target_modules": ["q_proj", "v_proj"],
}
BASE: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 640,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
}
Tensors = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Bad:
    """One folder.

    Attributes:
        build: writes the files into an empty folder.
        words: what the message or the report must have, whatever else it says.
        doctor: how `doctor` exits.
        base: the base's config.json that is handed over beside it.
    """

    build: Callable[[Path], None]
    words: tuple[str, ...]
    doctor: int = 64
    base: Mapping[str, Any] = field(default_factory=lambda: BASE)

    @property
    def name(self) -> str:
        """As tests name it."""
        return self.build.__name__


def tensors(rank: int = 8, hidden: int = 128, layers: int = 4) -> dict[str, np.ndarray[Any, Any]]:
    """LoRA's tensors on `BASE`."""
    random = np.random.default_rng(3)
    found = {}
    for layer in range(layers):
        for target, out in (("q_proj", hidden), ("v_proj", hidden // 2)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            found[f"{stem}.lora_A.weight"] = random.standard_normal((rank, hidden), np.float32)
            found[f"{stem}.lora_B.weight"] = random.standard_normal((out, rank), np.float32)
    return found


def good(folder: Path, config: Any = CONFIG, values: Tensors | None = None) -> None:
    """A sound adapter, or one with this config and these tensors."""
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(dict(tensors() if values is None else values), folder / "adapter_model.safetensors")
