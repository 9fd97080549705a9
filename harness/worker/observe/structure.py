"""The structure of a model: names, shapes, dtypes, trainability, classes, ties."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable

from ..model import adapters
from ..shared import canonical
from .accounting import fingerprint


def describe(model: Any, adapter_name: str) -> dict[str, list[Any]]:
    """Canonical parameter name → [shape, dtype, requires_grad]."""
    return {
        canonical(name, (adapter_name,)): [list(p.shape), str(p.dtype), bool(p.requires_grad)]
        for name, p in model.named_parameters()
    }


def adapter_classes(model: Any, adapter_name: str) -> dict[str, str]:
    """Canonical name of each adapter layer → its class."""
    return {name: type(module).__name__ for name, module in adapters.adapter_layers(model, adapter_name)}


def ties(model: Any, adapter_names: Iterable[str]) -> list[list[str]]:
    """Groups of parameter names that share one storage, by canonical name; sorted."""
    groups: dict[tuple[int, tuple[int, ...]], set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.numel():
            key = (parameter.data_ptr(), tuple(sorted(parameter.shape)))
            groups.setdefault(key, set()).add(canonical(name, adapter_names))
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def changed_base_weights(base: Any, model: Any, adapter_name: str, stored: dict[str, Any]) -> list[str]:
    """Names of base weights that changed.

    A weight whose name is in the model must have its values there; any other (a wrapper, a renaming loader) must have
    them somewhere.

    Args:
        stored: the checkpoint's tensors; a base weight that the checkpoint contains (a trained bias) may change.
    """
    named = {canonical(name, (adapter_name,)): fingerprint(tensor) for name, tensor in _tensors(model)}
    anywhere = set(named.values())
    brought = {canonical(key, (adapter_name,)) for key in stored}
    changed = []
    for name, tensor in _tensors(base):
        mark = fingerprint(tensor)
        if named.get(name, mark) != mark or mark not in anywhere:
            changed.append(name)
    return [name for name in changed if name not in brought]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks")


def left_behind(base: Any, plain: Any) -> dict[str, list[str]]:
    """What a model from which the adapter was removed has besides the base, or lacks; kinds without any are left out.

    Returns:
        kind → names: keys of the state dict, buffers with other values, modules of another class, attributes and hooks
        of modules, and entries of the model's config. Empty if the base has an adapter itself: unloading takes that
        off, too.
    """
    if hasattr(base, "peft_config"):
        return {}
    before, after = dict(base.named_modules()), dict(plain.named_modules())
    both = [(name, before[name], after[name]) for name in sorted(set(before) & set(after))]
    keys, keys_now = set(base.state_dict()), set(plain.state_dict())
    buffers = {name: fingerprint(value) for name, value in base.named_buffers() if value.numel()}
    found = {
        "keys gone": sorted(keys - keys_now),
        "keys left": sorted(keys_now - keys),
        "modules left": sorted(n for n, module in after.items() if type(module).__module__.startswith("peft.")),
        "classes": [
            f"{name}: {type(a).__name__} → {type(b).__name__}" for name, a, b in both if type(a) is not type(b)
        ],
        "attributes": [f"{name}.{held}" for name, a, b in both for held in sorted(set(vars(b)) - set(vars(a)))],
        "hooks": [f"{name}.{kind}" for name, module in after.items() for kind in _HOOKS if _has_hook(module, kind)],
        "buffers": sorted(n for n, p in plain.named_buffers() if n in buffers and fingerprint(p) != buffers[n]),
        "config": _differing(_config_of(base), _config_of(plain)),
    }
    return {kind: names for kind, names in found.items() if names}


def _has_hook(module: Any, kind: str) -> bool:
    """True if a module has a hook of PEFT's; Transformers has hooks of its own."""
    hooks = getattr(module, kind, {}).values()
    places = [str(getattr(getattr(hook, "func", hook), "__module__", "")) for hook in hooks]
    return any(place.partition(".")[0] == "peft" for place in places)


def _config_of(model: Any) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    return dict(config.to_dict()) if hasattr(config, "to_dict") else {}


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    names = sorted(set(before) | set(after))
    return [f"{n}: {before.get(n)!r} → {after.get(n)!r}" for n in names if before.get(n) != after.get(n)]


def _tensors(model: Any) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in model.named_parameters() if p.numel()]


def read_config(folder: str) -> dict[str, Any]:
    """The saved adapter_config.json."""
    with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found
