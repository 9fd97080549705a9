"""Facts of an adapter that take more than one entry of its files to tell. Pure.

Each is a function from an adapter to yes, no, or None where the files do not say. A rule names it in `has`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from harness.store.adapter import Adapter

UNTIED = frozenset({
    "llama", "llama4", "llama4_text", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl",
    "qwen3", "qwen3_moe", "phi", "phi3", "phimoe", "gpt_neox", "gptj", "codegen", "stablelm", "olmo", "olmo2",
    "olmoe", "deepseek_v2", "deepseek_v3", "persimmon", "granite", "granitemoe", "jamba", "dbrx", "llava",
    "llava_next", "idefics2", "mllama", "glm", "glm4", "ernie4_5", "falcon_h1", "nemotron", "minimax",
})  # fmt: skip
"""Types of models whose configuration unties embedding and head by default; all others tie them."""
_WITH_HEAD = re.compile(r"For(CausalLM|ConditionalGeneration|MaskedLM|PreTraining)$|LMHeadModel$")
_TASKS_WITH_HEAD = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
_ADAPTED = re.compile(r"\.lora_(A|B|embedding_A|embedding_B)(\.weight)?$")

_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|tok_embeddings|word_embeddings|wte|embed_in|shared|embeddings)$")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_projection)$")
_PROMPT_LEARNING = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE")

Fact = Literal[
    "bias-of-an-adapted-layer", "layers-beside-its-targets", "saves-embedding", "saves-head", "same-tokens-twice",
    "prompt-learning", "boft-on-convolutions", "on-stacked-parameters",
]  # fmt: skip


def tied(adapter: Adapter) -> bool | None:
    """True if embedding and head of the base are one matrix; None if nothing says so.

    A `config.json` leaves out what is the default of its class.
    """
    base, task = adapter.base, adapter.config.get("task_type")
    architectures = base.get("architectures") if base else None
    named = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    if (task and task not in _TASKS_WITH_HEAD) or (named and not any(map(_WITH_HEAD.search, named))):
        return False
    if base is None:
        return None
    inner = base.get("text_config")
    said = base.get("tie_word_embeddings", inner.get("tie_word_embeddings") if isinstance(inner, Mapping) else None)
    if isinstance(said, bool):
        return said
    kind = base.get("model_type")
    return kind not in UNTIED if isinstance(kind, str) else False


def mapped_type(adapter: Adapter) -> str:
    """The base's type of model according to the adapter's `auto_mapping`, which PEFT writes if it was given no task."""
    mapping = adapter.config.get("auto_mapping")
    library = str(mapping.get("parent_library") or "") if isinstance(mapping, Mapping) else ""
    parts = library.split(".")
    return parts[2] if parts[:2] == ["transformers", "models"] and len(parts) > 3 else ""


def adapted(adapter: Adapter) -> frozenset[str]:
    """Names of the modules that have LoRA tensors in the file, without `base_model.model.`."""
    return frozenset(_ADAPTED.sub("", key) for key in adapter.shapes if _ADAPTED.search(key))


def targets(adapter: Adapter) -> list[str] | None:
    """The names in `target_modules`; None if it is a pattern or is missing."""
    named = adapter.config.get("target_modules")
    return [str(name) for name in named] if isinstance(named, list) else None


def _bias_of_an_adapted_layer(adapter: Adapter) -> bool:
    """A layer with LoRA has its own bias in the file, under the layer's name (before PEFT 0.7)."""
    return any(f"{module}.bias" in adapter.shapes for module in adapted(adapter))


def _layers_beside_its_targets(adapter: Adapter) -> bool:
    """A layer with LoRA has a name that only ends in a target's letters: `sublin1` with the target `lin1`."""
    return any(_beside(module, targets(adapter) or []) for module in adapted(adapter))


def _beside(module: str, named: list[str]) -> bool:
    whole = any(module == name or module.endswith(f".{name}") for name in named)
    return bool(named) and not whole and any(module.endswith(name) for name in named)


def _saves_embedding(adapter: Adapter) -> bool:
    """`modules_to_save` names the embedding."""
    return any(map(_EMBEDDING.search, _saved(adapter)))


def _saves_head(adapter: Adapter) -> bool:
    """`modules_to_save` names the output head of a language model."""
    return any(map(_HEAD.search, _saved(adapter)))


def _saved(adapter: Adapter) -> list[str]:
    named = adapter.config.get("modules_to_save")
    return [str(name) for name in named] if isinstance(named, list) else []


def _same_tokens_twice(adapter: Adapter) -> bool:
    """`trainable_token_indices` names the same tokens for two modules."""
    named = adapter.config.get("trainable_token_indices")
    tokens = (
        [sorted(map(str, one)) for one in named.values() if isinstance(one, list)] if isinstance(named, Mapping) else []
    )
    return any(tokens.count(one) > 1 for one in tokens)


def _prompt_learning(adapter: Adapter) -> bool:
    """The method puts virtual tokens or a prefix in front of the input."""
    return adapter.method in _PROMPT_LEARNING


def _boft_on_convolutions(adapter: Adapter) -> bool:
    """A tensor `*.boft_s` is a row, as on a convolution, and no column, as on a linear layer."""
    scales = [shape for key, shape in adapter.shapes.items() if key.endswith(".boft_s")]
    return any(len(shape) == 2 and shape[0] == 1 < shape[1] for shape in scales)


def _on_stacked_parameters(adapter: Adapter) -> bool:
    """A parameter with an entry for each expert is adapted: its A has more rows than the rank."""
    pattern = adapter.config.get("rank_pattern")
    ranks = [adapter.config.get("r"), *(pattern.values() if isinstance(pattern, Mapping) else ())]
    rows = [shape[0] for key, shape in adapter.shapes.items() if key.endswith(".lora_A.weight") and shape]
    return bool(adapter.config.get("target_parameters")) and any(number not in ranks for number in rows)


FACTS: Mapping[Fact, Callable[[Adapter], bool | None]] = {
    "bias-of-an-adapted-layer": _bias_of_an_adapted_layer,
    "layers-beside-its-targets": _layers_beside_its_targets,
    "saves-embedding": _saves_embedding,
    "saves-head": _saves_head,
    "same-tokens-twice": _same_tokens_twice,
    "prompt-learning": _prompt_learning,
    "boft-on-convolutions": _boft_on_convolutions,
    "on-stacked-parameters": _on_stacked_parameters,
}


def meaning(fact: Fact) -> str:
    """What a fact means, as a clause without a full stop."""
    first = (FACTS[fact].__doc__ or "").partition("\n")[0].rstrip(".")
    return first if first.startswith("`") else first[:1].lower() + first[1:]
