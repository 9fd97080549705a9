"""Every way to load a saved adapter besides `PeftModel.from_pretrained`, with what each release has of it.

A load path is a function that returns the loaded model. What it raises is its outcome. Where the release does not have
it, or it does not apply, it raises `Skip` with the reason before the library is called: an exception from a load path
that exists is a result. The reasons are recorded, so their wording is part of the evidence.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import os
import re
import shutil
from functools import partial
from typing import Any, Callable, Mapping

from ..model import adapters, bases, fill
from ..observe.capture import Skip
from ..observe.context import Context
from ..shared import AUTO_BY_TASK
from . import libraries

_NOT_TRANSFORMERS = "the base is none of Transformers'"
_INTO_LAYERS = "prompt learning puts nothing into the base's layers"
_SECOND, _MIXTURE = "second_in", "mixture"
_NAMES = {"peft": "PEFT", "transformers": "Transformers"}

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

LoadPath = Callable[[Context], Any]


def auto(ctx: Context) -> Any:
    """`AutoPeftModelFor….from_pretrained`: it finds the base by the path in the checkpoint's own configuration."""
    import peft

    config = _config()
    _needs_transformers(ctx.base())
    task = getattr(config.task_type, "value", config.task_type)
    name = AUTO_BY_TASK.get(task or "", "AutoPeftModel")
    if not hasattr(peft, name):
        raise absent(name, "peft", "0.4")
    return getattr(peft, name).from_pretrained(_with_base(ctx), adapter_name=ctx.adapter_name, **ctx.loading())


def transformers_load(ctx: Context) -> Any:
    """Transformers' own `model.load_adapter(folder)`."""
    model = ctx.base()
    _needs_load_adapter(_config(), model)
    model.load_adapter(adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name)
    return model


def transformers_auto(ctx: Context) -> Any:
    """Transformers' `AutoModelFor….from_pretrained(folder of the adapter)`."""
    base = ctx.base()
    _needs_load_adapter(_config(), base)
    return _auto_class(base).from_pretrained(_with_base(ctx), **ctx.loading())


def inject(ctx: Context) -> Any:
    """`inject_adapter_in_model`, then `set_peft_model_state_dict`: what libraries call that use no PeftModel."""
    import peft

    config = _config()
    if not hasattr(peft, "inject_adapter_in_model"):
        raise absent("inject_adapter_in_model", "peft", "0.5")
    _needs_layers(config)
    model = peft.inject_adapter_in_model(config, ctx.base(), adapter_name=ctx.adapter_name)
    stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
    # The keys are a PeftModel's; without one, the caller removes its prefix.
    state = {_without(key, "base_model.model."): value for key, value in stored.items()}
    peft.set_peft_model_state_dict(model, state, adapter_name=ctx.adapter_name)
    return model


def low_cpu_mem(ctx: Context) -> Any:
    """`PeftModel.from_pretrained(…, low_cpu_mem_usage=True)`: parameters are created empty, then read from the file."""
    import peft

    # Before it came, `from_pretrained` accepted any keyword and passed it on.
    if "low_cpu_mem_usage" not in inspect.signature(peft.PeftModel.from_pretrained).parameters:
        raise absent("low_cpu_mem_usage", "peft", "0.13")
    return peft.PeftModel.from_pretrained(
        ctx.base(), adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name, low_cpu_mem_usage=True
    )


def load_adapter(ctx: Context) -> Any:
    """`PeftModel.load_adapter`, into a model that already has another adapter, then switched to."""
    model = _with_another(ctx, "default")  # up to 0.3 the first adapter can have no other name
    model.load_adapter(adapters.ADAPTER_FOLDER, _SECOND)
    model.set_adapter(_SECOND)
    return model


def weighted(ctx: Context, kind: str) -> Any:
    """Loaded twice and combined by `add_weighted_adapter`, so that the mixture equals the adapter."""
    model = ctx.load(adapter_name="one")
    if libraries.is_prompt_learning(model):
        raise Skip(_INTO_LAYERS)
    tuner = type(model.base_model)
    function = getattr(tuner, "add_weighted_adapter", None)  # LoRA since 0.3, IA³ since 0.11
    if function is None:
        raise Skip(f"{tuner.__name__} has no add_weighted_adapter")
    one_way = "combination_type" not in inspect.signature(function).parameters  # LoRA since 0.5; IA³ has one way only
    if one_way and kind != "linear":
        raise Skip(f"{tuner.__name__} combines in one way only")
    model.load_adapter(adapters.ADAPTER_FOLDER, "two")
    combine(model, ["one", "two"], kind, _MIXTURE)
    model.set_adapter(_MIXTURE)
    return model


def hotswap(ctx: Context, prepared: bool) -> Any:
    """`hotswap_adapter`: replaces another adapter of the same configuration in place.

    Args:
        prepared: the model is prepared to be compiled: ranks are padded, scalings are tensors.
    """
    config = _config()
    functions = _module("peft.utils.hotswap")
    if functions is None:
        raise absent("hotswapping", "peft", "0.14")
    if prepared and not hasattr(functions, "prepare_model_for_compiled_hotswap"):
        raise absent("prepare_model_for_compiled_hotswap", "peft", "0.15")
    if config.peft_type not in functions.CONFIG_KEYS_TO_CHECK:
        raise Skip(f"this PEFT swaps no {_method(config)}")
    model = _with_another(ctx, ctx.adapter_name)
    if prepared:
        ranks = [config.r, *(getattr(config, "rank_pattern", None) or {}).values()]
        functions.prepare_model_for_compiled_hotswap(model, target_rank=max(ranks) + 2, config=model.peft_config)
    functions.hotswap_adapter(model, adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name, torch_device=ctx.device)
    return model


def mixed(ctx: Context) -> Any:
    """`PeftMixedModel.from_pretrained`: the model that takes adapters of several methods."""
    import peft

    config = _config()
    if _module("peft.mixed_model") is None:
        raise absent("PeftMixedModel", "peft", "0.7")
    if config.peft_type not in _module("peft.tuners.mixed").COMPATIBLE_TUNER_TYPES:
        raise Skip(f"PeftMixedModel of this PEFT takes no {_method(config)}")
    return peft.PeftMixedModel.from_pretrained(ctx.base(), adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name)


LOAD_PATHS: Mapping[str, LoadPath] = {
    "auto": auto,
    "transformers": transformers_load,
    "transformers-auto": transformers_auto,
    "inject": inject,
    "low-cpu-mem": low_cpu_mem,
    "load-adapter": load_adapter,
    "weighted-linear": partial(weighted, kind="linear"),
    "weighted-svd": partial(weighted, kind="svd"),
    "weighted-cat": partial(weighted, kind="cat"),
    "hotswap": partial(hotswap, prepared=False),
    "hotswap-prepared": partial(hotswap, prepared=True),
    "mixed": mixed,
}


_ADAPTER_NAMES = {
    "load-adapter": _SECOND,
    **dict.fromkeys(("weighted-linear", "weighted-svd", "weighted-cat"), _MIXTURE),
}


def adapter_name(ctx: Context, path: str) -> str:
    """The name that the adapter has in a model that the load path made."""
    return _ADAPTER_NAMES.get(path, ctx.adapter_name)


def absent(what: str, package: str, since: str) -> Skip:
    """The reason to skip a load path that came with a later release.

    Raises:
        LookupError: the installed release should have it. A load path that was removed is a break, not a reason.
    """
    installed = importlib.import_module(package).__version__
    said = f"this {_NAMES[package]} has no {what}"
    if _release(installed) >= _release(since):
        raise LookupError(f"{said}, which came with {since}")
    return Skip(f"{said} (it came with {since})")


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _module(name: str) -> Any:
    """A module of a library; None if this release does not have it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def _method(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _needs_transformers(base: Any) -> None:
    import transformers

    if not isinstance(base, transformers.PreTrainedModel):
        raise Skip(_NOT_TRANSFORMERS)


def _needs_layers(config: Any) -> None:
    if getattr(config, "is_prompt_learning", False):  # up to 0.3 not every configuration has it
        raise Skip(_INTO_LAYERS)


def _needs_load_adapter(config: Any, base: Any) -> None:
    _needs_transformers(base)
    if not hasattr(base, "load_adapter"):
        raise absent("load_adapter", "transformers", "4.33")
    _needs_layers(config)


def _auto_class(base: Any) -> Any:
    """The class of Transformers that finds the base's class by its configuration.

    The base's own class if there is none: `from_pretrained` is the same function there.
    """
    import transformers

    for name in _AUTO_CLASSES:
        found = getattr(transformers, name, None)  # releases have different ones
        mapping = getattr(found, "_model_mapping", None)
        if mapping is not None and type(base.config) in mapping:
            classes = mapping[type(base.config)]
            if type(base) in (classes if isinstance(classes, (tuple, list)) else [classes]):
                return found
    return type(base)


def combine(model: Any, names: list[str], kind: str, mixed: str) -> None:
    """Combine two adapters of the same content so that their mixture has that content again.

    LoRA's `linear` combines the factors, each scaled by weight · scaling up to 0.6 (A alone) and by its root since:
    (w + w) · 2 and (2 · √w)² are both 1 for w = 1/4. The others, and IA³, combine the products: weights of sum 1.
    """
    function = model.base_model.add_weighted_adapter
    if "combination_type" not in inspect.signature(function).parameters:
        function(names, [0.25, 0.75], mixed)
    else:
        weights = [0.25, 0.25] if kind == "linear" else [0.25, 0.75]
        function(names, weights, mixed, combination_type=kind)


def _with_another(ctx: Context, name: str) -> Any:
    """A PeftModel with an adapter of the checkpoint's configuration and with values of its own."""
    config = copy.deepcopy(_config())
    config.inference_mode = False
    model = libraries.new_adapter(ctx.base(), config, name)
    fill.fill_parameters(ctx.torch, adapters.trainable(model, name), f"adapter:{ctx.scenario['name']}:another")
    return model


def _config() -> Any:
    import peft

    return peft.PeftConfig.from_pretrained(adapters.ADAPTER_FOLDER)


def _without(text: str, prefix: str) -> str:
    return text[len(prefix) :] if text.startswith(prefix) else text


def _with_base(ctx: Context) -> str:
    """A copy of the checkpoint whose configuration names the base's place on this machine; the fixture has no path."""
    folder = ctx.folder("door")
    shutil.copytree(adapters.ADAPTER_FOLDER, os.path.join(folder, "adapter"))
    base = bases.BASE_FOLDER
    if ctx.scenario["base"].get("resize_to"):  # on disk it has fewer tokens than the adapter was made for
        base = os.path.join(folder, "base")
        bases.save(bases.load(ctx.torch, ctx.scenario["base"]), base)
    path = os.path.join(folder, "adapter", "adapter_config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["base_model_name_or_path"] = base
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return os.path.join(folder, "adapter")
