"""What the comparison of two observations found; `cell_result` makes a cell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.core.key_conversion import Conversion
from harness.core.run import CheckpointKeys, ErrorReport, Finding, LayerSketch, ProbeResult
from harness.core.verdict import Verdict


@dataclass(frozen=True)
class Judgement:
    """The result of comparing two observations; a cell is made from it."""

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    probes: Mapping[str, ProbeResult] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    standing_defects: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    creators_own: str = ""
    layers: tuple[LayerSketch, ...] = ()
    first_difference: str = ""
    adapter_delta: float | None = None
    base_delta: float | None = None
    keys: CheckpointKeys | None = None
    conversion: Conversion | None = None
    config_differences: tuple[str, ...] = ()
    new_warnings: tuple[str, ...] = ()
    error: ErrorReport | None = None
    reason: str = ""
    """How a consumer refuses the adapter."""
