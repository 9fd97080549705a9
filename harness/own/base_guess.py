"""Guesses a base's type of model by its name, where its configuration is not known (pure).

A guess only rules out known breaks of other models. A name that fits several types, or has a word of a kind that the
type is not (`vision`), gives no guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from harness.judge.applies import Applies

_ALIASES = {
    "vicuna": "llama", "tinyllama": "llama", "codellama": "llama", "smollm": "llama", "zephyr": "mistral",
    "pythia": "gpt_neox", "bloomz": "bloom", "flan_t5": "t5", "distilgpt2": "gpt2",
}  # fmt: skip
_TYPES = (
    "llama", "mistral", "mixtral", "qwen2", "qwen2_vl", "qwen2_5_vl", "qwen2_moe", "qwen3", "gemma", "gemma2", "gemma3",
    "opt", "gpt2", "gptj", "gpt_neox", "bloom", "falcon", "phi", "t5", "mt5", "bart", "bert", "roberta", "distilbert",
    "deberta", "electra", "vit", "whisper", "wav2vec2", "clip", "llava", "detr", "olmo", "stablelm", "starcoder2",
    "mamba", "xglm",
)  # fmt: skip
_KINDS = ("vision", "vl", "moe", "omni", "audio", "guard", "embed", "embedding", "reranker", "scout", "maverick")
"""Words that make a model another type than its family's plain one."""


def model_type(name: str) -> str:
    """`llama` for `meta-llama/Llama-2-7b-hf`; empty if the name does not say it."""
    words = re.sub(r"[^a-z0-9]+", "_", name.rpartition("/")[2].lower().replace("qwen2.5", "qwen2_5"))
    found = {one for one in (*_TYPES, *_ALIASES) if re.search(rf"(^|_){one}(_|\d|$)", words)}
    longest = {one for one in found if not any(one != other and one in other for other in found)}
    if len(longest) != 1:
        return ""
    (only,) = longest
    kinds = [kind for kind in _KINDS if re.search(rf"(^|_){kind}(_|\d|$)", words)]
    if any(kind not in only.split("_") for kind in kinds):
        return ""
    return _ALIASES.get(only, only)


def without_other_models(found: Iterable[Applies], guessed: str) -> list[Applies]:
    """The known breaks without those that only may apply, and are about other types of models than the guessed one."""
    return [one for one in found if one.certain or not guessed or _may_be(one, guessed)]


def _may_be(one: Applies, guessed: str) -> bool:
    rule = one.known.rule(one.condition)
    types = rule.base.get("model_type") if rule else None
    globs = [types] if isinstance(types, str) else types if isinstance(types, list) else ["*"]
    return any(fnmatchcase(guessed, str(glob)) for glob in globs)
