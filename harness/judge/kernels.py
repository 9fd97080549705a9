"""Which kernels quantised layers computed with, on both sides, as notes (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.observation import Observed
from harness.judge.contracts import Found


def compare(golden: Observed, now: Observed, found: Found) -> None:
    """Say where the loader's quantised layers run on other kernels than the creator's."""
    before, after = (side.fact("forward", "kernels") for side in (golden, now))
    if not before or not after:
        return
    if after["repacked"] and not before["repacked"]:
        found.notes.append(
            f"running it lays {_share(after)} out anew, for a bfloat16 kernel that this processor has; "
            "the creator's were left as they are"
        )
    if before["layers"] != after["layers"]:
        found.contract(
            "forward", "quantised-layers", f"{before['layers']} layers were quantised, {after['layers']} are now"
        )


def _share(facts: Mapping[str, Any]) -> str:
    return f"{facts['repacked']} of {facts['layers']} quantised weights"
