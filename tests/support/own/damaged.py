"""Adapters that can be read, and do not fit their config or their base: how each is built, and what must be said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from tests.support.own.sample import BASE, CONFIG, Bad, good, tensors


def nan(folder: Path) -> None:
    values = tensors()
    values["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"][3, 2] = np.nan
    good(folder, values=values)


def infinite(folder: Path) -> None:
    values = tensors()
    values["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"][3, 2] = np.inf
    good(folder, values=values)


def unknown_method(folder: Path) -> None:
    good(folder, {**CONFIG, "peft_type": "HYPERLORA"})


def rank_is_a_word(folder: Path) -> None:
    good(folder, {**CONFIG, "r": "eight"})


def rank_disagrees(folder: Path) -> None:
    good(folder, {**CONFIG, "r": 16})


def half_is_missing(folder: Path) -> None:
    good(
        folder,
        values={name: value for name, value in tensors().items() if "layers.2.self_attn.q_proj.lora_B" not in name},
    )


def saved_module_is_missing(folder: Path) -> None:
    good(folder, {**CONFIG, "modules_to_save": ["lm_head"]})


def pattern_matches_nothing(folder: Path) -> None:
    good(folder, {**CONFIG, "rank_pattern": {"k_proj": 4}, "alpha_pattern": {}})


def keys_fit_no_target(folder: Path) -> None:
    good(folder, {**CONFIG, "target_modules": ["c_attn"]})


def targets_are_no_regex(folder: Path) -> None:
    good(folder, {**CONFIG, "target_modules": ".*(q_proj|v_proj"})


def no_tensor_in_it(folder: Path) -> None:
    good(folder)
    (folder / "adapter_model.safetensors").write_bytes(save({}))


def all_zero(folder: Path) -> None:
    """Never trained: every B is 0."""
    good(folder, values={name: value * (0 if "lora_B" in name else 1) for name, value in tensors().items()})


def keys_of_the_training_model(folder: Path) -> None:
    """The keys as `model.state_dict()` has them, with the adapter's name, or a wrapper's prefix."""
    good(folder, values={f"_fsdp_wrapped_module.{name}": value for name, value in tensors().items()})


def base_of_another_width(folder: Path) -> None:
    good(folder)


def base_of_another_architecture(folder: Path) -> None:
    good(folder)


def base_with_its_own_code(folder: Path) -> None:
    good(folder)


DAMAGED = (
    Bad(nan, ("NaN", "layers.1.self_attn.q_proj.lora_B"), 1),
    Bad(infinite, ("layers.1.self_attn.q_proj.lora_B",), 1),
    Bad(unknown_method, ("HYPERLORA",), 2),
    Bad(rank_is_a_word, ("eight",), 1),
    Bad(rank_disagrees, ("16", "lora_A"), 1),
    Bad(half_is_missing, ("layers.2.self_attn.q_proj",), 1),
    Bad(saved_module_is_missing, ("lm_head",), 1),
    Bad(pattern_matches_nothing, ("k_proj", "which no layer with tensors has"), 0),
    Bad(keys_fit_no_target, ("c_attn",), 1),
    Bad(targets_are_no_regex, ("target_modules", "no regular expression"), 1),
    Bad(no_tensor_in_it, ("tensor",), 1),
    Bad(keys_of_the_training_model, ("_fsdp_wrapped_module",), 1),
    Bad(base_of_another_width, ("128",), 1, {**BASE, "hidden_size": 256, "intermediate_size": 512}),
    Bad(base_of_another_architecture, ("768",), 1, {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12}),
)
