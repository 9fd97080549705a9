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


def _tensors(model: Any) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in model.named_parameters() if p.numel()]


def read_config(folder: str) -> dict[str, Any]:
    """The saved adapter_config.json."""
    with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found
