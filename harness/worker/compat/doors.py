"""Every branch on what a library's version has, as far as ways to load an adapter go; `compat.py` has the others.

A door that a release does not have is told of here, by name, before anybody tries it: an exception behind a door that
is there is a result, and never taken for a door that is not.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from . import libraries

_NOT_TRANSFORMERS = "the base is none of Transformers'"
_INTO_LAYERS = "prompt learning puts nothing into the base's layers"

AUTO_BY_TASK = {
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction",
}
_AUTO_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMaskedLM",
    "AutoModelForImageClassification",
    "AutoModelForImageTextToText",
    "AutoModelForVision2Seq",
    "AutoModel",
)


def absent(what: str, package: str, since: str) -> str:
    """The reason to pass by a door that is not there: the release is older than it.

    Raises:
        LookupError: the release is not. A door that was taken away is a break, and no reason to pass by.
    """
    installed = importlib.import_module(package).__version__
    said = f"this {_NAMES[package]} has no {what}"
    if _release(installed) >= _release(since):
        raise LookupError(f"{said}, which came with {since}")
    return f"{said} (it came with {since})"


_NAMES = {"peft": "PEFT", "transformers": "Transformers"}


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def module(name: str) -> Any:
    """A module of a library, or None where this release does not have it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def is_prompt_config(config: Any) -> bool:
    """True for a configuration of a method that puts something before the input."""
    return bool(getattr(config, "is_prompt_learning", False))  # up to 0.3 not on every config


def why_no_auto(config: Any, base: Any) -> str:
    """Why `AutoPeftModel…` can't be used; empty where it can."""
    import peft

    if not is_of_transformers(base):
        return _NOT_TRANSFORMERS
    name = auto_class_name(config)
    return "" if hasattr(peft, name) else absent(name, "peft", "0.4")


def auto_class_name(config: Any) -> str:
    """PEFT's class for the task that the configuration names; the one without a task where it names none."""
    task = getattr(config.task_type, "value", config.task_type)
    return AUTO_BY_TASK.get(task or "", "AutoPeftModel")


def why_no_load_adapter(config: Any, base: Any) -> str:
    """Why Transformers' own `load_adapter` can't be used; empty where it can."""
    if not is_of_transformers(base):
        return _NOT_TRANSFORMERS
    if not hasattr(base, "load_adapter"):
        return absent("load_adapter", "transformers", "4.33")
    if is_prompt_config(config):
        return _INTO_LAYERS
    return ""


def is_of_transformers(base: Any) -> bool:
    """True for a model of Transformers."""
    import transformers

    return isinstance(base, transformers.PreTrainedModel)


def auto_class(base: Any) -> Any:
    """The class of Transformers that finds the base's own class by its configuration.

    The base's class itself where none leads to it: `from_pretrained` is the same function there.
    """
    import transformers

    for name in _AUTO_CLASSES:
        found = getattr(transformers, name, None)  # which there are depends on the release
        mapping = getattr(found, "_model_mapping", None)
        if mapping is not None and type(base.config) in mapping:
            classes = mapping[type(base.config)]
            if type(base) in (classes if isinstance(classes, (tuple, list)) else [classes]):
                return found
    return type(base)


def why_no_inject(config: Any) -> str:
    """Why `inject_adapter_in_model` can't be used; empty where it can."""
    import peft

    if not hasattr(peft, "inject_adapter_in_model"):
        return absent("inject_adapter_in_model", "peft", "0.5")
    return _INTO_LAYERS if is_prompt_config(config) else ""


def why_no_low_cpu_mem() -> str:
    """Why `low_cpu_mem_usage` can't be asked for; empty where it can."""
    import peft

    # before it came, `from_pretrained` took any keyword and passed it on
    if "low_cpu_mem_usage" not in inspect.signature(peft.PeftModel.from_pretrained).parameters:
        return absent("low_cpu_mem_usage", "peft", "0.13")
    return ""


def why_no_combination(model: Any, kind: str) -> str:
    """Why adapters can't be combined in that way; empty where they can."""
    if libraries.is_prompt_learning(model):
        return _INTO_LAYERS
    function = getattr(type(model.base_model), "add_weighted_adapter", None)  # LoRA since 0.3, IA³ since 0.11
    if function is None:
        return f"{type(model.base_model).__name__} has no add_weighted_adapter"
    one_way = "combination_type" not in inspect.signature(function).parameters  # LoRA since 0.5; IA³ has one way only
    return f"{type(model.base_model).__name__} combines in one way only" if one_way and kind != "linear" else ""


def combine(model: Any, names: list[str], kind: str, mixed: str) -> None:
    """Combine two adapters of the same content so that their mixture is that content again.

    LoRA's `linear` combines the factors, each scaled by weight · scaling up to 0.6 (A alone) and by its root since:
    (w + w) · 2 and (2 · √w)² are both 1 for w = 1/4. The others, and IA³, combine the products: weights of sum 1.
    """
    function = model.base_model.add_weighted_adapter
    if "combination_type" not in inspect.signature(function).parameters:
        function(names, [0.25, 0.75], mixed)
    else:
        weights = [0.25, 0.25] if kind == "linear" else [0.25, 0.75]
        function(names, weights, mixed, combination_type=kind)


def why_no_hotswap(config: Any, prepared: bool = False) -> str:
    """Why an adapter can't be swapped in place; empty where it can."""
    hotswap = module("peft.utils.hotswap")
    if hotswap is None:
        return absent("hotswapping", "peft", "0.14")
    if prepared and not hasattr(hotswap, "prepare_model_for_compiled_hotswap"):
        return absent("prepare_model_for_compiled_hotswap", "peft", "0.15")
    if config.peft_type not in hotswap.CONFIG_KEYS_TO_CHECK:
        return f"this PEFT swaps no {getattr(config.peft_type, 'value', config.peft_type)}"
    return ""


def why_no_mixed(config: Any) -> str:
    """Why `PeftMixedModel` can't load it; empty where it can."""
    mixed = module("peft.mixed_model")
    if mixed is None:
        return absent("PeftMixedModel", "peft", "0.7")
    if config.peft_type not in module("peft.tuners.mixed").COMPATIBLE_TUNER_TYPES:
        return f"PeftMixedModel of this PEFT takes no {getattr(config.peft_type, 'value', config.peft_type)}"
    return ""


def compiled(torch: Any, model: Any) -> Any:
    """What `torch.compile` makes of a model: its names get a prefix. Nothing is in fact compiled when it runs."""
    compiler: Any = getattr(torch, "compiler", None)
    if hasattr(compiler, "set_stance"):  # since Torch 2.6
        compiler.set_stance("force_eager")
    return torch.compile(model, backend="eager")


def value_head_class() -> Any:
    """TRL's model with a value head; at its place of old, or where 1.0 put it."""
    import trl

    name = "AutoModelForCausalLMWithValueHead"
    return getattr(trl, name, None) or getattr(importlib.import_module("trl.experimental.ppo"), name)
