"""Measures the rounding of a quantised base's kernels when a golden is made.

The kernel of a quantised layer depends on the release and on the machine. The golden has the outputs of float32 kernels
and, in float64, of the dequantised weights. Here the same runs with each rounding of a bfloat16 kernel, the narrowest
known (inputs, weights and outputs, rounded and truncated; and the weights' scales), and with the dequantised base in
float32 (plain rounding).
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
"""The probes that run. The outputs of the others equal those of `forward` or `base`."""

Observe = Callable[[Context], None]


def spreads(observe: Observe, context: Callable[[Observation, str], Context], first: Observation) -> dict[str, Any]:
    """The differences from the golden in other arithmetic: array → greatest difference.

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

    In float32 both have the same quantised weights, also after a merge that quantised again: only the kernels differ.
    In float64 both are dequantised: only rounding differs.
    """
    apart = {}
    for name, array in sorted(other.items()):
        reference = first.get(name.replace("/float32/", f"/{precision}/", 1))
        comparable = reference is not None and reference.shape == array.shape
        if comparable and np.issubdtype(array.dtype, np.floating) and "/input/" not in name and array.size:
            apart[name] = float(np.abs(array.astype(np.float64) - reference).max())
    return apart
