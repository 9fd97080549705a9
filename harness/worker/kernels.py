"""What the kernels of a quantised base cost: measured when a golden is made, so that nobody has to guess.

A quantised layer computes with whatever kernel the library takes on this machine, and releases differ in that. The
golden holds what float32 kernels yield and, in float64, what the quantised weights stand for. Here the same is run
with each rounding that a bfloat16 kernel makes, the narrowest that is known (inputs, weights and outputs; and the
weights' scales), and with the dequantised base in float32 (what plain rounding costs).
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

import numpy as np

from .context import Context
from .observe import Observation

KINDS = ("arithmetic", "scales", "plain")

PROBES = (
    "forward",
    "layers",
    "base",
    "train",
    "gradients",
    "merged",
    "unmerged",
    "merge_and_unload",
    "merged_saved",
)
"""What is run: what a kernel computes. Other probes' outputs are `forward`'s or `base`'s, by another way."""

Observe = Callable[[Context], None]


def spreads(observe: Observe, context: Callable[[Observation, str], Context], first: Observation) -> dict[str, Any]:
    """How far arrays are from the dequantised reference in other arithmetic: array → greatest difference.

    Args:
        observe: runs every probe.
        context: makes one that records into an observation, in float32 with kernels of a name.
        first: the golden's arrays; its float64 ones are the reference.

    Returns:
        `arithmetic` and `scales`: in bfloat16. `plain`: of the dequantised base in float32.
    """
    found: dict[str, Any] = {}
    for kernels in KINDS:
        other = Observation(first.scenario)
        observe(context(other, kernels))
        found[kernels] = _apart(first.arrays(), other.arrays())
    return found


def _apart(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """The reference of an array is its float64 twin, or where it has none what the golden's own kernels yielded."""
    apart = {}
    for name, array in sorted(other.items()):
        reference = first.get(name.replace("/float32/", "/float64/", 1), first.get(name))
        comparable = reference is not None and reference.shape == array.shape
        if comparable and np.issubdtype(array.dtype, np.floating) and "/input/" not in name and array.size:
            apart[name] = float(np.abs(array.astype(np.float64) - reference).max())
    return apart
