"""What the kernels of a quantised base cost: measured when a golden is made, so that nobody has to guess.

A quantised layer computes with whatever kernel the library takes on this machine, and releases differ in that. The
golden holds what float32 kernels yield and, in float64, what the quantised weights stand for. Here the same is run
with each rounding that a bfloat16 kernel makes, the narrowest that is known (inputs, weights and outputs, rounded and
cut off; and the weights' scales), and with the dequantised base in float32 (what plain rounding costs).
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

import numpy as np

from .context import Context
from .recorder import Observation

KINDS = ("arithmetic", "truncated", "scales", "plain")

PROBES = (
    "forward",
    "layers",
    "base",
    "train",
    "gradients",
    "merged",
    "merged_after_run",
    "unmerged",
    "merge_and_unload",
    "merged_saved",
)
"""What is run: what a kernel computes. Other probes' outputs are `forward`'s or `base`'s, by another way."""

Observe = Callable[[Context], None]


def spreads(observe: Observe, context: Callable[[Observation, str], Context], first: Observation) -> dict[str, Any]:
    """How far arrays are from the golden's in other arithmetic: array → greatest difference.

    Args:
        observe: runs every probe.
        context: makes one that records into an observation, in float32 with kernels of a name.
        first: the golden's arrays, in both precisions.

    Returns:
        `arithmetic`, `truncated` and `scales`: in bfloat16. `plain`: of the dequantised base in float32.
    """
    found: dict[str, Any] = {}
    for kernels in KINDS:
        other = Observation(first.scenario)
        observe(context(other, kernels))
        found[kernels] = _apart(first.arrays(), other.arrays(), "float64" if kernels == "plain" else "float32")
    return found


def _apart(first: Mapping[str, Any], other: Mapping[str, Any], precision: str) -> dict[str, float]:
    """How far arrays are from those of the golden in a precision.

    In float32 they are of the very weights that the golden quantised, also where a merge quantised them anew: the
    kernels alone differ. In float64 they are of what the weights stand for: rounding alone differs.
    """
    apart = {}
    for name, array in sorted(other.items()):
        reference = first.get(name.replace("/float32/", f"/{precision}/", 1))
        comparable = reference is not None and reference.shape == array.shape
        if comparable and np.issubdtype(array.dtype, np.floating) and "/input/" not in name and array.size:
            apart[name] = float(np.abs(array.astype(np.float64) - reference).max())
    return apart
