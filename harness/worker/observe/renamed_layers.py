"""Finds layers of the golden that have another name in the loaded model.

They are matched by the base's weights. The adapter's weights would not do: an adapter in the wrong layer would match
itself. Nor would the order of execution, which changes between releases (query before or after key and value).
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from ..shared import canonical
from .accounting import fingerprint


def layers(stored: Mapping[str, Any], base: Any, missing: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """Name in the golden → name in the loaded model, for the missing layers whose base weights are in one found layer.

    Args:
        stored: the base's checkpoint as the creator wrote it.
        base: the same base as the loader read it, without an adapter.
        missing: canonical names of layers of the golden that the loaded model lacks.
        found: canonical names of the adapter layers of the loaded model.
    """
    places: dict[Any, list[str]] = {}
    for name, tensor in base.named_parameters():
        if tensor.numel():
            places.setdefault(fingerprint(tensor), []).append(canonical(name))
    candidates = set(found)
    renamed: dict[str, str] = {}
    for layer in missing:
        now = {place for rest, value in weights(stored, layer) for place in _owners(rest, places, value, candidates)}
        if len(now) == 1:
            renamed[layer] = now.pop()
    return renamed if len(set(renamed.values())) == len(renamed) else {}


def weights(stored: Mapping[str, Any], layer: str) -> list[tuple[str, Any]]:
    """The layer's own tensors in the checkpoint, by the end of their names.

    A checkpoint's keys may have fewer or more leading parts than a layer's name: saving can undo the renaming of
    loading.
    """
    parts = layer.split(".")
    for start in range(len(parts)):
        mark = "." + ".".join(parts[start:]) + "."
        hits = [(key, ("." + key).find(mark)) for key in stored]
        hits = [(key, at) for key, at in hits if at >= 0]
        # without the name's first parts only a key that begins there is the same layer; else any that ends with it
        hits = [(key, at) for key, at in hits if not start or not at]
        stems = {key[:at] for key, at in hits}
        if len(stems) == 1:
            return [(key[at + len(mark) - 1 :], stored[key]) for key, at in hits]
        if stems:
            return []
    return []


def _owners(rest: str, places: Mapping[Any, list[str]], value: Any, candidates: set[str]) -> list[str]:
    if not value.is_floating_point() or value.numel() < 2 or bool((value == value.flatten()[0]).all()):
        return []
    names = places.get(fingerprint(value), [])
    owners = [name[: -len(rest) - 1] for name in names if name.endswith("." + rest)]
    return [owner for owner in owners if owner in candidates]
