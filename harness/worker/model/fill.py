"""Fills tensors from a counter-based hash of (namespace, parameter name, index).

Why not a seeded generator of torch: its stream depends on the release and on the order of tensors; a library that draws
one more number would change all that follow. Why not constants or a ramp: two swapped tensors of one shape would be
equal. Here each tensor has its own stream that depends only on its name. So a dropped, swapped, transposed,
re-initialised or leaked tensor always shows, and LoHa and LoKr, whose `init_weights=False` leaves memory uninitialised
in old releases, are as reproducible as LoRA.
"""

from __future__ import annotations

import hashlib
import math
from fnmatch import fnmatchcase
from typing import Any, Iterable, Mapping, Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

RECIPES: tuple[tuple[str, float | None, float], ...] = (
    # pattern of canonical names, centre (None: leave the tensor alone), spread
    ("*ranknum", None, 0.0),  # AdaLoRA: a count, not a weight
    ("*ia3_l*", 1.0, 0.5),  # IA³ multiplies: 1 has no effect
    ("*magnitude*", 1.0, 0.5),  # DoRA: a norm, never negative
    ("*adaption_gate", 0.5, 0.4),  # 0 closes the gate
    ("*lora_E", 0.5, 0.4),  # AdaLoRA: singular values
    ("*oft_[rR]*", 0.0, 0.25),  # OFT, BOFT: skew blocks; the series that turns them into rotations needs small ones
    ("*oft_s", 1.0, 0.4),  # OFT, BOFT, RoAd, PSOFT: a scale beside a rotation
    ("*road_alpha", 1.0, 0.4),
    ("*psoft_R.vector_[ab]", 1.0, 0.4),
    ("*vera_lambda_[bd]", 0.6, 0.4),  # VeRA, PVeRA: two factors of one product
    ("*delora_lambda", 2.0, 0.5),  # DeLoRA: the bound of a norm
    ("*frod_lambda_l", 0.5, 0.4),  # FRoD, OSF: singular values
    ("*osf_svd_params.S_low", 0.5, 0.4),
    ("*deft_P", 0.05, 0.25),  # DEFT: the weight is multiplied by it twice
)
"""Values for parameters that the general rule would leave without effect."""


def bits(namespace: str, name: str, count: int) -> np.ndarray[Any, Any]:
    """`count` pseudo-random uint64 (splitmix64 over a counter, seeded with SHA-256 of namespace and name)."""
    seed = int.from_bytes(hashlib.sha256(f"{namespace}\0{name}".encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(1, count + 1, dtype=np.uint64)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return np.asarray(z ^ (z >> np.uint64(31)))


def uniform(namespace: str, name: str, count: int) -> np.ndarray[Any, Any]:
    """`count` float64 in [-1, 1), each exact in float32 too (24 bits), so that both precisions start from one value."""
    return np.asarray((bits(namespace, name, count) >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0)


def integers(namespace: str, name: str, count: int, low: int, high: int) -> np.ndarray[Any, Any]:
    """`count` int64 in [low, high)."""
    span = np.uint64(max(1, high - low))
    return np.asarray((bits(namespace, name, count) % span).astype(np.int64) + low)


def centre_and_spread(
    name: str,
    shape: Sequence[int],
    own: Mapping[str, Sequence[float]],
    recipes: Iterable[tuple[str, float | None, float]],
) -> tuple[float | None, float]:
    """The centre and the spread of a tensor's values.

    Without a recipe: ±sqrt(3 / fan-in) (unit variance kept through a layer), at most 0.6, so that both factors of a
    low-rank product count and no activation saturates; vectors ±0.3; weights of norms around 1.
    """
    for pattern, stated in own.items():
        if fnmatchcase(name, pattern):
            return (stated[0], stated[1]) if stated else (None, 0.0)
    for pattern, recipe_centre, spread in recipes:
        if fnmatchcase(name, pattern):
            return recipe_centre, spread
    if len(shape) < 2:
        return (1.0, 0.2) if is_norm_weight(name) else (0.0, 0.3)
    fan_in = math.prod(shape[1:])
    return 0.0, min(0.6, math.sqrt(3.0 / max(1, fan_in)))


def is_norm_weight(name: str) -> bool:
    """True for the scale of a LayerNorm or RMSNorm, by the names that Transformers uses."""
    parts = name.lower().split(".")
    owner = parts[-2] if len(parts) > 1 else ""
    return parts[-1] == "weight" and ("norm" in owner or owner.startswith("ln_") or owner in ("ln", "bn"))


def values(
    namespace: str,
    name: str,
    shape: Sequence[int],
    own: Mapping[str, Sequence[float]] = {},
    recipes: Iterable[tuple[str, float | None, float]] = RECIPES,
) -> np.ndarray[Any, Any] | None:
    """The tensor's values as float64 of that shape; None if it keeps its own."""
    centre, spread = centre_and_spread(name, shape, own, recipes)
    if centre is None:
        return None
    drawn = uniform(namespace, name, int(math.prod(shape)))
    return np.asarray((centre + spread * drawn).astype(np.float32).astype(np.float64).reshape(tuple(shape)))


def fill_parameters(
    torch: Any,
    parameters: Iterable[tuple[str, Any]],
    namespace: str,
    own: Mapping[str, Sequence[float]] = {},
    recipes: Iterable[tuple[str, float | None, float]] = RECIPES,
) -> list[str]:
    """Fill parameters in place, except integer ones. Returns the canonical names of the filled ones."""
    filled = []
    recipes = tuple(recipes)
    with torch.no_grad():
        for name, parameter in parameters:
            if not parameter.dtype.is_floating_point:
                continue
            drawn = values(namespace, name, tuple(parameter.shape), own, recipes)
            if drawn is not None:
                parameter.copy_(torch.from_numpy(np.array(drawn)).to(parameter.dtype))
                filled.append(name)
    return filled
