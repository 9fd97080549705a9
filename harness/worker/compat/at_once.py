"""Several adapters active at once: what each release has of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import sys
from typing import Any, Iterator, Mapping, Sequence

from ..model import bases
from ..observe.capture import Skip
from . import libraries
from .load_paths import absent

_STATUS = (
    "enabled", "active_adapters", "merged_adapters", "requires_grad", "available_adapters", "num_adapter_layers",
    "trainable_params", "total_params", "devices", "module_type",
)  # fmt: skip
"""What is recorded of a status; a release may have more."""


def why_not(model: Any) -> str:
    """Why two adapters cannot be active at once in layers; empty if they can.

    Raises:
        Skip: this release activates one adapter alone; several came with 0.6.
    """
    module = sys.modules.get("peft.tuners.tuners_utils")  # since 0.4; PEFT imports it itself
    if module is None or not hasattr(module, "BaseTunerLayer"):
        raise absent("several active adapters", "peft", "0.6")
    if not isinstance(model.base_model, module.BaseTuner):
        return f"{type(model.base_model).__name__} activates one adapter alone"
    return ""


def active(model: Any) -> dict[str, Any]:
    """The names of the active adapters, as the model and its layers have them."""
    return {
        "model": _listed(getattr(model, "active_adapters", model.active_adapter)),
        "layers": sorted({_active_in(module) for module in model.modules() if libraries.is_adapter_layer(module)}),
    }


def _active_in(layer: Any) -> str:
    # a wrapper of `modules_to_save` has one name alone up to 0.14
    names = ", ".join(_listed(getattr(layer, "active_adapters", layer.active_adapter)))
    return f"{names} (disabled)" if getattr(layer, "disable_adapters", False) else names


def held(model: Any, name: str) -> list[str]:
    """The attributes of adapter layers that have an adapter's name: as a key, as an item, or as their value."""
    found = set[str]()
    for module in model.modules():
        if libraries.is_adapter_layer(module):
            attributes = {**vars(module), **module._modules, **module._parameters, **module._buffers}
            found.update(attribute for attribute, value in attributes.items() if _has(value, name))
    return sorted(found)


def _has(value: Any, name: str) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(isinstance(item, str) and item == name for item in value)
    return value == name if isinstance(value, str) else hasattr(value, "keys") and name in value


def _listed(names: Any) -> list[str]:
    if isinstance(names, str):
        return [names]
    return list(names() if callable(names) else names)  # up to 0.6 the model's is a method


def merged(model: Any) -> list[str]:
    """The names of the merged adapters that layers have, in order."""
    return sorted(
        {", ".join(module.merged_adapters) for module in model.modules() if hasattr(module, "merged_adapters")}
    )


def status(model: Any) -> dict[str, Any]:
    """`get_model_status`, and the first row of `get_layer_status`.

    Raises:
        Skip: this release has no such functions; they came with 0.11.
    """
    import peft

    if not hasattr(peft, "get_model_status"):
        raise absent("get_model_status", "peft", "0.11")
    return {"model": _fields(peft.get_model_status(model)), "layer": _fields(peft.get_layer_status(model)[0])}


def _fields(status: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(status).items() if name in _STATUS}


@contextlib.contextmanager
def hooks_removed(model: Any) -> Iterator[list[str]]:
    """Remove the hooks that the body leaves in the model's modules; the list has their names at the end.

    PEFT leaves them where a batch with several adapters fails, and then the model fails in each call.
    """
    before = {name: set(module._forward_pre_hooks) for name, module in model.named_modules()}
    left: list[str] = []
    try:
        yield left
    finally:
        for name, module in model.named_modules():
            for key in set(module._forward_pre_hooks) - before.get(name, set()):
                left.append(name)
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)


def run_batch(model: Any, inputs: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Run a batch whose rows use one adapter each; `__base__` is none.

    Raises:
        Skip: the method, or this release of it, has no such batches; they came with 0.11.
    """
    if not hasattr(model.base_model, "_enable_peft_forward_hooks"):
        raise Skip("this method has no batches with several adapters")
    return bases.call(functools.partial(model, adapter_names=list(names)), libraries.base_of(model), inputs)


def activate_for_inference(model: Any, name: str) -> None:
    """`set_adapter` that leaves the adapter frozen.

    Raises:
        Skip: this release has no such argument; it came with 0.19.
    """
    if "inference_mode" not in inspect.signature(model.set_adapter).parameters:
        raise absent("inference_mode of set_adapter", "peft", "0.19")
    model.set_adapter(name, inference_mode=True)
