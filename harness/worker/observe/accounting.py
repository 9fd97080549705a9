"""Finds every tensor of a checkpoint in the loaded model, by value.

A library's lists of missing and unexpected keys are not enough, and names change for good reasons (a loader renames,
transposes and fuses). Every stored tensor has unique values, so its bytes show where it is.
"""

from __future__ import annotations

import hashlib
from typing import Any, Iterable, Iterator

from ..shared import canonical

Fingerprint = tuple[int, str]


def account(torch: Any, stored: dict[str, Any], model: Any, adapter_name: str) -> dict[str, dict[str, Any]]:
    """Where each key's values are in the model.

    Returns:
        key → {"found": "whole" | "transposed" | "slice" | "nowhere" | "constant", "at": [canonical names]}.
        `constant`: all its values are equal, so they identify nothing.
    """
    tensors = _model_tensors(model, adapter_name)
    whole = _index((name, tensor) for name, tensor in tensors)
    turned = _index((name, tensor.transpose(0, 1)) for name, tensor in tensors if tensor.dim() == 2)
    found: dict[str, dict[str, Any]] = {}
    for key, value in sorted(stored.items()):
        found[key] = _find(torch, value, tensors, whole, turned)
    return found


def _model_tensors(model: Any, adapter_name: str) -> list[tuple[str, Any]]:
    named = list(model.named_parameters()) + list(model.named_buffers())
    return [(canonical(name, (adapter_name,)), tensor.detach().cpu()) for name, tensor in named if tensor.numel()]


def _index(named: Iterable[tuple[str, Any]]) -> dict[Fingerprint, list[str]]:
    index: dict[Fingerprint, list[str]] = {}
    for name, tensor in named:
        index.setdefault(fingerprint(tensor), []).append(name)
    return index


def fingerprint(tensor: Any) -> Fingerprint:
    """Number of elements and a digest of the values in float32; independent of shape and dtype."""
    data = tensor.detach().to("cpu").float().contiguous().numpy().tobytes()
    return int(tensor.numel()), hashlib.sha256(data).hexdigest()


def digest(tensor: Any) -> str:
    """A short digest of the values: two releases that write the same tensor write the same digest, in either format."""
    return fingerprint(tensor)[1][:16]


def _find(torch: Any, value: Any, tensors: list[tuple[str, Any]], whole: Any, turned: Any) -> dict[str, Any]:
    if value.numel() == 0 or not value.dtype.is_floating_point or bool((value == value.flatten()[0]).all()):
        return {"found": "constant", "at": []}
    mark = fingerprint(value)
    if mark in whole:
        return {"found": "whole", "at": sorted(whole[mark])}
    if mark in turned:
        return {"found": "transposed", "at": sorted(turned[mark])}
    at = sorted({name for name, tensor in tensors if _holds_slice(torch, value, tensor)})
    return {"found": "slice" if at else "nowhere", "at": at}


def _holds_slice(torch: Any, value: Any, tensor: Any) -> bool:
    """True if a tensor contains the value, or its transpose, as a block: fused projections, stacked experts."""
    if tensor.numel() <= value.numel() or not tensor.dtype.is_floating_point:
        return False
    turned = value.transpose(0, 1) if value.dim() == 2 else None
    candidates = [value] if turned is None else [value, turned]
    return any(_is_block(torch, candidate, tensor) for candidate in candidates)


def _is_block(torch: Any, value: Any, tensor: Any) -> bool:
    small = value.float()
    for block in _stacked(tensor, value.dim()):
        for axis in range(value.dim()):
            others = [size for place, size in enumerate(block.shape) if place != axis]
            if others != [size for place, size in enumerate(small.shape) if place != axis]:
                continue
            for start in _starts(block, small, axis):
                if torch.equal(block.narrow(axis, start, small.shape[axis]).float(), small):
                    return True
    return False


def _stacked(tensor: Any, dim: int) -> Iterator[Any]:
    """The tensor itself, or if it has one dimension more, each tensor that is stacked in it."""
    if tensor.dim() == dim:
        yield tensor
    elif tensor.dim() == dim + 1:
        yield from tensor.unbind(0)


def _starts(block: Any, small: Any, axis: int) -> list[int]:
    """The positions of the value's first row along the axis of the block."""
    length, piece = block.shape[axis], small.shape[axis]
    if piece > length:
        return []
    first = small.select(axis, 0)
    return [s for s in range(length - piece + 1) if bool((block.select(axis, s).float() == first).all())]
