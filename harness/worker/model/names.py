"""Canonical names: what a parameter or layer is called, whatever prefix this release puts in the way.

0.6.1 calls the query's weight `base_model.model.….q_proj.weight`, 0.7 and later `….q_proj.base_layer.weight`; the
adapter's name stands in the middle of its parameters' names. Two releases can be compared only without those. DoRA's
magnitude was a bare parameter up to 0.11 and is a module's `weight` since.
"""

from __future__ import annotations

from typing import Iterable

_DROP = frozenset({"base_layer"})
_PREFIXES = ("base_model.model.", "base_model.")


def canonical(name: str, adapter_names: Iterable[str] = ("default",)) -> str:
    """The name without PEFT's prefix, without `base_layer`, the adapter's name and the ending of DoRA's magnitude."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            name = name[len(prefix) :]
            break
    adapters = frozenset(adapter_names)
    parts = [part for part in name.split(".") if part not in _DROP and part not in adapters]
    if parts[-2:] == ["lora_magnitude_vector", "weight"]:
        parts.pop()
    return ".".join(parts)
