"""Chooses a baseline with more packages, where a change can affect scenarios that the newest release's lacks one for.

PEFT's layers for quantised bases need bitsandbytes, and `current` does not have it. Another environment may have all
that `current` has, and bitsandbytes too. Compared there, a break of these layers is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.core import matrix
from harness.core.matrix import Declared


def environment(
    baseline: Mapping[str, str], scenarios: Iterable[Declared], environments: Mapping[str, Mapping[str, str]]
) -> str:
    """The environment in which most scenarios can be compared; empty if that is the baseline itself.

    Args:
        baseline: its package versions.
        scenarios: those that the change can affect.
        environments: name → package versions; only one that has all of the baseline's is chosen.
    """
    lacking = [one for one in scenarios if matrix.unsupported(one, baseline)]
    able = {
        name: sum(not matrix.unsupported(one, versions) for one in lacking)
        for name, versions in environments.items()
        if baseline.items() <= versions.items()
    }
    best = max(able, key=lambda name: (able[name], -len(environments[name])), default="")
    return best if best and able[best] else ""
