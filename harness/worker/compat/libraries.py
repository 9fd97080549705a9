"""Branches on what a library's version has, each with the release that made it necessary.

All of them are in this package: here, and by topic in the modules beside this one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
from typing import Any, Iterator

_OLD_LAYER_NAMES = frozenset({"LoraLayer", "AdaLoraLayer", "IA3Layer", "LoHaLayer", "LoKrLayer", "LycorisLayer"})
_WRAPPER_NAMES = frozenset({"ModulesToSaveWrapper", "TrainableTokensWrapper", "AuxiliaryTrainingWrapper"})


def module_class(torch: Any, name: str) -> Any:
    """A module class by name: `torch.nn`'s, or Transformers' Conv1D."""
    if name == "Conv1D":
        try:
            from transformers.pytorch_utils import Conv1D  # since Transformers 4.23
        except ImportError:
            from transformers.modeling_utils import Conv1D
        return Conv1D
    return getattr(torch.nn, name)


def new_adapter(base: Any, config: Any, name: str) -> Any:
    """A new adapter with that name on a base model."""
    import peft

    if name == "default" and "adapter_name" not in inspect.signature(peft.get_peft_model).parameters:
        return peft.get_peft_model(base, config)  # up to 0.3 the first adapter is always called `default`
    return peft.get_peft_model(base, config, adapter_name=name)


def autocasts() -> bool:
    """True if `from_pretrained` keeps adapters in float32 on a narrower base by default: since PEFT 0.12."""
    import peft

    said = inspect.signature(peft.PeftModel.from_pretrained).parameters.get("autocast_adapter_dtype")
    return said is not None and said.default is True


def is_adapter_layer(module: Any) -> bool:
    """True for a layer with an adapter, and for the wrapper that `modules_to_save` puts around a module."""
    names = {kind.__name__ for kind in type(module).__mro__}
    # BaseTunerLayer came with PEFT 0.6; up to 0.5 each method has a layer class of its own
    return "BaseTunerLayer" in names or bool(names & _OLD_LAYER_NAMES) or bool(names & _WRAPPER_NAMES)


def beneath(layer: Any) -> Any:
    """The module that computes while the adapter is disabled: the layer, or the one that a wrapper keeps.

    Up to 0.4 disabling an adapter does not reach `modules_to_save`; since 0.5 it switches to `original_module`.
    """
    kinds = {kind.__name__ for kind in type(layer).__mro__}
    return layer.original_module if "ModulesToSaveWrapper" in kinds else layer


def is_of_base(name: str) -> bool:
    """True for a parameter of the original module that `modules_to_save` keeps beside the adapter's copy.

    Up to 0.5 such a parameter stays trainable, though no adapter has or saves it.
    """
    return "original_module" in name.split(".")


def is_attention_adapter(module: Any) -> bool:
    """True for adaption prompt's wrapper around a whole attention block."""
    return type(module).__name__ in ("AdaptedAttention", "AdaptedAttentionGPT")


def is_peft_model(model: Any) -> bool:
    """True for a model with adapters; False for a base, also after merging or unloading."""
    import peft

    return isinstance(model, peft.PeftModel)


def base_of(model: Any) -> Any:
    """The base model inside a PeftModel, or a PeftMixedModel."""
    if hasattr(type(model), "get_base_model"):
        return model.get_base_model()
    return model.base_model.model if type(model).__name__ == "PeftMixedModel" else model  # it has no such function


def config_of(model: Any) -> Any:
    """The active adapter's PeftConfig."""
    active = model.active_adapter
    return model.peft_config[active if isinstance(active, str) else active[0]]


def is_prompt_learning(model: Any) -> bool:
    """True if the adapter is put before the input instead of into layers."""
    config = config_of(model)
    # up to 0.3 the property does not exist on every config
    return bool(getattr(config, "is_prompt_learning", False))


def why_not_mergeable(model: Any) -> str:
    """Why the adapter cannot be merged into the base; empty if it can."""
    if is_prompt_learning(model):
        return "prompt learning has nothing to merge"
    if not hasattr(model.base_model, "merge_and_unload"):
        return f"{type(model.base_model).__name__} has no merge_and_unload"
    return ""


def why_not_mergeable_in_place(model: Any) -> str:
    """Why `merge_adapter` cannot be called; empty if it can."""
    reason = why_not_mergeable(model)
    if not reason and not hasattr(model.base_model, "merge_adapter"):  # LoRA has it since 0.3, every tuner since 0.6
        reason = f"{type(model.base_model).__name__} has no merge_adapter"
    return reason


def safe_merge(model: Any) -> Any:
    """`merge_and_unload(safe_merge=True)`.

    Raises:
        NotImplementedError: this release has no safe merge (it came with 0.6.0, for some methods later).
    """
    function = model.merge_and_unload
    if "safe_merge" not in inspect.signature(function).parameters:
        raise NotImplementedError("this release has no safe merge for the method")
    return function(safe_merge=True)


def why_no_safe_merge(model: Any) -> str:
    """Why there is no safe merge; empty if there is."""
    reason = why_not_mergeable(model)
    if not reason and "safe_merge" not in inspect.signature(model.merge_and_unload).parameters:
        reason = "this release has no safe merge for the method"  # LoRA and IA³ since 0.6.0, others later
    return reason


def load_adapter_tensors(folder: str) -> dict[str, Any]:
    """All tensors of a saved adapter, in either file format (safetensors by default since 0.8)."""
    import torch

    found: dict[str, Any] = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".safetensors"):
            from safetensors.torch import load_file

            found.update({key: value.clone() for key, value in load_file(path).items()})
        elif name.endswith(".bin") and name != "pytorch_model.bin":  # TRL puts its value head there, beside the adapter
            found.update(torch.load(path, map_location="cpu", weights_only=True))
    return found


def state_of(model: Any, adapter_name: str) -> dict[str, Any]:
    """What saving would write of an adapter: key → tensor."""
    import peft

    return dict(peft.get_peft_model_state_dict(model, adapter_name=adapter_name))


def load_base_tensors(folder: str) -> dict[str, Any]:
    """All tensors of a saved base (`pytorch_model.bin` before Transformers 4.35)."""
    import torch

    path = os.path.join(folder, "pytorch_model.bin")
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True) if os.path.isfile(path) else {}
    return {**found, **load_adapter_tensors(folder)}


def _never(*_: Any, **__: Any) -> bool:
    return False


@contextlib.contextmanager
def without_hub() -> Iterator[None]:
    """Save without the hub: PEFT 0.8 asks it whether the base exists, and raises when offline.

    The answer is "no", as for a local folder. Since 0.9 PEFT does not ask in offline mode; up to 0.7 it never did.
    """
    save_and_load: Any = sys.modules.get("peft.utils.save_and_load")
    asks = hasattr(save_and_load, "file_exists") and not hasattr(save_and_load, "check_file_exists_on_hf_hub")
    if not asks:
        yield
        return
    before = save_and_load.file_exists
    save_and_load.file_exists = _never
    try:
        yield
    finally:
        save_and_load.file_exists = before


@contextlib.contextmanager
def disabled(model: Any) -> Iterator[None]:
    """The adapter disabled in all layers and wrappers, as `disable_adapter` does."""
    with model.disable_adapter():
        yield


def prompt_tensors(model: Any, batch_size: int, task_ids: Any = None) -> dict[str, Any]:
    """The tensors that prompt learning puts before the input: `prompt`, or prefix tuning's keys and values per
    layer."""
    # tasks came with multitask prompt tuning in 0.6
    tasks = {} if task_ids is None else {"task_ids": task_ids}
    result = model.get_prompt(batch_size=batch_size, **tasks)
    if hasattr(result, "detach"):
        return {"prompt": result}
    if hasattr(result, "self_attention_cache"):
        # encoder-decoder models since PEFT 0.14; the cross-attention's part is left out there, since the model
        # overwrites it
        own = _named_layers(_cache_layers(result.self_attention_cache), ("key", "value"))
        cross = _named_layers(_cache_layers(result.cross_attention_cache), ("cross_key", "cross_value"))
        return {**own, **cross}
    return _named_layers(_cache_layers(result), ("key", "value", "cross_key", "cross_value"))


def _named_layers(layers: list[list[Any]], names: tuple[str, ...]) -> dict[str, Any]:
    return {
        f"prompt.{index}.{name}": tensor for index, layer in enumerate(layers) for name, tensor in zip(names, layer)
    }


def _cache_layers(result: Any) -> list[list[Any]]:
    """The tensors of each layer of a cache of any release.

    One tensor [2 or 4, batch, heads, tokens, dim] a layer up to PEFT 0.13; a `DynamicCache` since 0.14, whose layers
    are `key_cache`/`value_cache` up to Transformers 4.55 and `layers[i].keys`/`.values` after.
    """
    if hasattr(result, "layers"):
        # an empty layer has None for both (encoder-decoder, 4.54 to 4.56)
        return [[layer.keys, layer.values] for layer in result.layers if layer.keys is not None]
    if hasattr(result, "key_cache"):
        return [list(pair) for pair in zip(result.key_cache, result.value_cache)]
    return [list(layer.unbind(0)) if hasattr(layer, "unbind") else list(layer) for layer in result]


def adapter_arguments(model: Any, adapter_name: str) -> Any:
    """A second configuration like that of a loaded adapter, to put another adapter beside it."""
    import copy

    config = copy.deepcopy(model.peft_config[adapter_name])
    config.inference_mode = False
    return config


def known_arguments(config: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of a config class's arguments that this release has."""
    return {name: value for name, value in arguments.items() if name in inspect.signature(config).parameters}


def resize_vocabulary(model: Any, size: int) -> None:
    """Resize embedding and head, without a warning about how new rows are drawn: they are overwritten."""
    function = model.resize_token_embeddings
    # since Transformers 4.46 new rows are drawn around the old ones' mean by default, with a warning
    quiet = {"mean_resizing": False} if "mean_resizing" in inspect.signature(function).parameters else {}
    function(size, **quiet)


def save_initial(model: Any, folder: str, adapter_name: str) -> None:
    """Save an adapter before training, for the conversion to plain LoRA when it is saved (since PEFT 0.13).

    Its configuration must say that loading it does not change the base.
    """
    config = model.peft_config[adapter_name]
    initialisation, config.init_lora_weights = config.init_lora_weights, True
    model.save_pretrained(folder)
    config.init_lora_weights = initialisation


def versions() -> dict[str, str]:
    """Canonical name → version of every package visible in the process."""
    import re
    from importlib import metadata

    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def forget_warned_once() -> None:
    """Make Transformers repeat what it warns once in a process (`warning_once`, since 4.21, has a cache)."""
    with contextlib.suppress(ImportError, AttributeError):
        import logging

        from transformers.utils import logging as _  # noqa: F401 - it is this import that gives loggers the method

        logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]


def build_tables() -> None:
    """Make Transformers build its table of checkpoint conversions (900 patterns) once, not in each child.

    Since 5.0 it is built at the first load; older releases have none.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from transformers import conversion_mapping

        conversion_mapping.get_checkpoint_conversion_mapping("llama")


def compile_templates_once() -> None:
    """Make Jinja compile a template once in a process: PEFT writes a model card with each save, from one template.

    Compiled code depends on the environment object and on the text only, and nothing changes it.
    """
    with contextlib.suppress(ImportError):
        jinja2: Any = importlib.import_module("jinja2")
        jinja2.Environment.compile = functools.lru_cache(maxsize=32)(jinja2.Environment.compile)


def conversion_tools() -> Any:
    """The functions with which Transformers 5 converts names; None if it has none."""
    try:
        from transformers import conversion_mapping, core_model_loading
    except ImportError:  # up to 4.57
        return None
    names = ("get_model_conversion_mapping", "rename_source_key", "WeightRenaming", "WeightConverter")
    found = {name: getattr(conversion_mapping, name, None) or getattr(core_model_loading, name, None) for name in names}
    return found if all(found.values()) else None


def own_conversions(tools: Any, model: Any) -> list[Any]:
    """A model's list of conversions without those that every model has."""
    function = tools["get_model_conversion_mapping"]
    without = {"add_legacy": False} if "add_legacy" in inspect.signature(function).parameters else {}
    return list(function(model, **without))


def renamed_key(tools: Any, key: str, conversions: list[Any]) -> str:
    """A key after a list of conversions."""
    # since 5.9 renamings have several classes, all derived from the first
    renamings = [one for one in conversions if isinstance(one, tools["WeightRenaming"])]
    converters = [one for one in conversions if isinstance(one, tools["WeightConverter"])]
    return str(tools["rename_source_key"](key, renamings, converters)[0])


def scope_of(conversion: Any) -> str:
    """The prefix of the keys that a conversion applies to; empty if it applies to all."""
    return str(getattr(conversion, "scope_prefix", None) or "")  # scopes came with 5.9


def converted_by_peft(model: Any, stored: dict[str, Any]) -> tuple[str, list[str]]:
    """How PEFT converts an adapter's keys with Transformers' conversions.

    Returns:
        the class of the model that it asks them of (empty: it asks none), and the converted keys.
    """
    try:
        from peft.utils import transformers_weight_conversion as module
    except ImportError:  # PEFT converts since 0.19
        return "", list(stored)
    given: list[str] = []
    asked = module.get_model_conversion_mapping

    def asking(model: Any, *args: Any, **kwargs: Any) -> Any:
        given.append(type(model).__name__)
        return asked(model, *args, **kwargs)

    module.get_model_conversion_mapping = asking
    try:
        name = next(iter(model.peft_config))
        after = module.convert_peft_adapter_state_dict_for_transformers(
            model, model.peft_config[name], dict(stored), adapter_name=name
        )
    finally:
        module.get_model_conversion_mapping = asked
    return ", ".join(dict.fromkeys(given)), list(after)


def any_adapter(torch: Any, base: Any) -> Any:
    """A base with a LoRA adapter on its first linear layer."""
    import peft

    target = next(name for name, module in base.named_modules() if type(module) is torch.nn.Linear)
    return peft.get_peft_model(base, peft.LoraConfig(target_modules=[target]))


def compiled(torch: Any, model: Any) -> Any:
    """What `torch.compile` returns for a model: its names get a prefix. Nothing is compiled when it runs."""
    compiler: Any = getattr(torch, "compiler", None)
    if hasattr(compiler, "set_stance"):  # since Torch 2.6
        compiler.set_stance("force_eager")
    return torch.compile(model, backend="eager")


def value_head_class() -> Any:
    """TRL's model with a value head, which TRL 1.0 moved."""
    import trl

    name = "AutoModelForCausalLMWithValueHead"
    return getattr(trl, name, None) or getattr(importlib.import_module("trl.experimental.ppo"), name)
