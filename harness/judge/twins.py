"""Tensors of a checkpoint that are found in another one's place only (pure).

A tensor is found by its values. One that was tied when it was saved is in the checkpoint twice, so its values are found
in its twin even if its own place is gone or kept other values. So it must be in its own place, or tied to where it is,
if it was so for the creator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.core.observation import Observed
from harness.worker.shared import canonical

_SAVED = "modules_to_save"
"""The part of a name where a loaded model keeps a module that is saved whole; a checkpoint leaves it out."""


def lost(creator: Observed, now: Observed) -> list[str]:
    """Keys that were in their own place for the creator, and are now only in the places of others of equal values.

    Two tensors that are in each other's places both arrived: the layers show that they are exchanged.
    """
    before, after = (side.fact("accounting", "tensors") or {} for side in (creator, now))
    own = {key: _own_places(key) for key in after}
    return [
        key
        for key in sorted(set(before) & set(after))
        if after[key].get("at") and own[key] & _places(before[key], creator)
        if not own[key] & _places(after[key], now)
        if _places(after[key], now)
        <= {place for other in after if other != key for place in own[other] & _places(after[other], now)}
    ]


def _own_places(key: str) -> set[str]:
    name = canonical(key)
    module, _, last = name.rpartition(".")
    return {name} if _SAVED in name.split(".") else {name, f"{module}.{_SAVED}.{last}"}


def _places(where: Mapping[str, Any], side: Observed) -> set[str]:
    """Where a tensor is, with all that is tied to that."""
    places = set(where.get("at", ()))
    return places | {name for group in _ties(side) if places & set(group) for name in group}


def _ties(side: Observed) -> Iterable[list[str]]:
    return side.fact("structure", "ties") or []
