"""Adds the pattern to findings: it is the first thing that their message says (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.core.observation import Array
from harness.core.pattern import Pattern
from harness.core.run import Finding
from harness.core.verdict import Verdict
from harness.judge.evidence import Evidence
from harness.judge.pattern import layers, tensors, updates
from harness.judge.pattern.arrays import Change, explain

EFFECTS = "effects."
"""Prefix of the pseudo-probe with the layers' effects of a model that differs: `effects.merged/float32/layer`."""

_OTHER = ("gradients", "generate", "train", "base", "unloaded")
"""Probes whose arrays are no outputs of the adapter."""
_OUTPUT, _EFFECT = "the output", "the adapter's effect on the output"


def with_patterns(evidence: Evidence, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings; those whose numbers or tensors have a pattern begin with it."""
    found = _Patterns(evidence)
    return tuple(_led(finding, found.of(finding)) for finding in findings)


def _led(finding: Finding, pattern: Pattern | None) -> Finding:
    if pattern is None:
        return finding
    return finding.model_copy(update={"pattern": pattern, "message": f"{pattern.says}: {finding.message}"})


class _Patterns:
    """The patterns of one replay; each is looked for once."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        golden, now = evidence.golden, evidence.now
        self._config: Mapping[str, Any] = (
            golden.fact("roundtrip", "config_before") or now.fact("roundtrip", "config_before") or {}
        )
        self._known: dict[str, Pattern | None] = {}

    def of(self, finding: Finding) -> Pattern | None:
        """The pattern of a finding; None if it has none."""
        if finding.verdict not in (Verdict.SILENT_WRONG, Verdict.CONTRACT):
            return None
        if finding.kind.endswith("lost-tensors"):
            probe = finding.probe if finding.probe != "accounting" else "accounting"
            return tensors.dropped(finding.details, self._evidence.now.fact(probe, "tensors") or {})
        if finding.figures is None or finding.probe in _OTHER:
            return None
        if finding.probe not in self._known:
            self._known[finding.probe] = self._of_probe(finding.probe)
        return self._known[finding.probe]

    def _of_probe(self, probe: str) -> Pattern | None:
        if probe in ("layers", "forward"):
            precision, changes = self._layers("layers")
            own = (
                layers.of(changes, self._config)
                or updates.of(self._evidence.golden, self._evidence.now, changes, precision)
                or self._misplaced(changes)
            )
            return own or (self._of_outputs(probe) if probe == "forward" else None)
        _, changes = self._layers(f"{EFFECTS}{probe}")
        return layers.of(changes, self._config) or self._of_outputs(probe)

    def _misplaced(self, changes: Mapping[str, Change]) -> Pattern | None:
        differing = [name for name, change in changes.items() if change.differs]
        return tensors.misplaced(self._evidence.golden, self._evidence.now, differing) if differing else None

    def _layers(self, probe: str) -> tuple[str, dict[str, Change]]:
        """A precision, float64 where it exists; and layer → its own effect in the golden, and now by this probe."""
        # for a quantised base float64 is dequantised: its kernels show in float32 alone
        order = ("float64", "float32") if self._evidence.noise.kernels is None else ("float32",)
        golden, now = self._evidence.golden, self._evidence.now
        for precision in order:
            before, after = golden.group("layers", precision), now.group(probe, precision)
            if probe == "layers":  # on the stored weights of the base, where those moved
                after |= now.group("restored", precision)
            names = [name for name in before if name in after and not name.startswith("input/")]
            if names:
                return precision, {
                    name: Change.of(before[name], after[name], self._allowed(f"layers/{precision}/{name}"))
                    for name in names
                }
        return "", {}

    def _allowed(self, *names: str) -> float:
        golden = self._evidence.golden.arrays
        return sum(self._evidence.allowance(name, golden[name]) for name in names)

    def _of_outputs(self, probe: str) -> Pattern | None:
        """The pattern of the model's output, or of its difference from the base's."""
        for precision in ("float64", "float32"):
            for name, after in self._evidence.now.group(probe, precision).items():
                full, of_base = f"forward/{precision}/{name}", f"base/{precision}/{name}"
                before = self._evidence.golden.arrays.get(full)
                if before is None or name == "sketch" or before.shape != after.shape:
                    continue
                found = self._of_effect(before, after, full, of_base)
                found = found or _of_change(Change.of(before, after, self._allowed(full)), _OUTPUT)
                if found:
                    return found
        return None

    def _of_effect(self, before: Array, after: Array, full: str, of_base: str) -> Pattern | None:
        base, base_now = (side.arrays.get(of_base) for side in (self._evidence.golden, self._evidence.now))
        if base is None or base_now is None or not base.shape == base_now.shape == before.shape:
            return None
        change = Change.of(before - base, after - base_now, self._allowed(full, of_base))
        return _of_change(change, _EFFECT, self._config)


def _of_change(change: Change, what: str, config: Mapping[str, Any] | None = None) -> Pattern | None:
    found = explain(change)
    if found is None:
        return None
    if found.kind == "factor" and config is not None:
        pattern = layers.of({"": change}, config)
        if pattern is not None:
            says = pattern.says.partition(" in 1 of")[0]
            return pattern.model_copy(update={"says": f"{what} {says}", "layers": (), "compared": 0})
    says = layers.sentence(found, what).rstrip(",")
    return Pattern(kind=found.kind, says=says, factor=found.factor, detail=found.detail, remaining=found.left)
