"""Facts of an adapter that take more than one entry of its files to tell. Pure.

Each is a function from an adapter to yes, no, or None where the files do not say. A rule names it in `has`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

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
    "prompt-learning", "boft-on-convolutions",
]  # fmt: skip


def tied(base: Mapping[str, object], task: str = "") -> bool | None:
    """True if embedding and head of the base are one matrix, by its `config.json`; None if it does not say.

    A configuration leaves out what is the default of its class.
    """
    architectures = base.get("architectures")
    named = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    if (task and task not in _TASKS_WITH_HEAD) or (named and not any(map(_WITH_HEAD.search, named))):
        return False
    inner = base.get("text_config")
    said = base.get("tie_word_embeddings", inner.get("tie_word_embeddings") if isinstance(inner, Mapping) else None)
    if isinstance(said, bool):
        return said
    kind = base.get("model_type")
    return kind not in UNTIED if isinstance(kind, str) else None


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
    """A method that puts virtual tokens or a prefix in front of the input."""
    return adapter.method in _PROMPT_LEARNING


def _boft_on_convolutions(adapter: Adapter) -> bool:
    """BOFT scales a convolution by a row, and a linear layer by a column."""
    scales = [shape for key, shape in adapter.shapes.items() if key.endswith(".boft_s")]
    return any(len(shape) == 2 and shape[0] == 1 < shape[1] for shape in scales)


FACTS: Mapping[Fact, Callable[[Adapter], bool | None]] = {
    "bias-of-an-adapted-layer": _bias_of_an_adapted_layer,
    "layers-beside-its-targets": _layers_beside_its_targets,
    "saves-embedding": _saves_embedding,
    "saves-head": _saves_head,
    "same-tokens-twice": _same_tokens_twice,
    "prompt-learning": _prompt_learning,
    "boft-on-convolutions": _boft_on_convolutions,
}


def documented() -> Iterator[tuple[Fact, str]]:
    """Each fact with what it means, for the documentation."""
    for fact in get_args(Fact):
        yield fact, (FACTS[fact].__doc__ or "").split("\n")[0]
