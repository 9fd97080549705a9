"""What users rely on besides numbers: keys, config, dtypes, ties, trainability, warnings (pure).

Each check compares the loader with the creator, never with an ideal: what fails with the creator's own library too is a
standing defect. Tensors are found by value, since names change for good reasons (Transformers 5 renames every key).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from harness.core.observation import Observed
from harness.core.run import CheckpointKeys, ErrorReport, Figures, Finding
from harness.core.verdict import Verdict
from harness.judge.config_entries import SAID_NOTHING, config_changes

_WARNING_PROBES = (
    "load",
    "forward",
    "layers",
    "base",
    "merged",
    "unmerged",
    "safe_merged",
    "merge_and_unload",
    "unloaded",
)
"""Probes whose new warnings are about using the old adapter. Those of saving or creating are notes."""

_ROUTINE = ("FutureWarning", "DeprecationWarning", "PendingDeprecationWarning")
"""Warnings for developers, not about what was loaded: noted, never a verdict."""


@dataclass
class Found:
    """What the checks found so far.

    Attributes:
        follow: probe that differs only because another does → that one's verdict.
        creators_own: probes whose outputs were wrong for the creator's own library already.
        lost_by: load path → keys that do not arrive by it alone.
        fixed: what the creator's own reload gets wrong, and this loader gets right.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    standing: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)
    follow: dict[str, Verdict] = field(default_factory=dict)
    creators_own: set[str] = field(default_factory=set)
    lost_by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    error: ErrorReport | None = None
    keys: CheckpointKeys | None = None
    config_differences: tuple[str, ...] = ()
    new_warnings: tuple[str, ...] = ()

    def add(self, probe: str, kind: str, verdict: Verdict, message: str, **more: Any) -> None:
        """Add a finding."""
        self.findings.append(finding(probe, kind, verdict, message, **more))

    def contract(self, probe: str, kind: str, message: str, details: Iterable[str] = ()) -> None:
        """Add a finding of verdict `contract`."""
        self.add(probe, kind, Verdict.CONTRACT, message, details=tuple(details))


def finding(
    probe: str,
    kind: str,
    verdict: Verdict,
    message: str,
    *,
    subject: str = "",
    figures: Figures | None = None,
    details: tuple[str, ...] = (),
    stage: str = "",
    error_type: str = "",
) -> Finding:
    """A finding; what is not given is empty."""
    return Finding(
        probe=probe,
        kind=kind,
        verdict=verdict,
        message=message,
        subject=subject,
        figures=figures,
        details=details,
        stage=stage,
        error_type=error_type,
    )


def compare(
    golden: Observed, now: Observed, found: Found, converted: Set[str] = frozenset(), lacks_reload: bool = False
) -> None:
    """All these checks.

    Args:
        converted: names of layers that the loader's base renamed or fused, and that compute the same. What follows from
            the new names alone is a note.
        lacks_reload: the creator's own reload is wrong, so what it saves again is no standard.
    """
    _base_weights(golden, now, found)
    _ties(golden, now, found)
    _dtypes(golden, now, found)
    _output_dtypes(golden, now, found)
    _roundtrip(golden, now, found, converted, lacks_reload)
    _warnings(golden, now, found)


def _base_weights(golden: Observed, now: Observed, found: Found) -> None:
    for probe, meaning in (("accounting", "loading the adapter changes"), ("unloaded", "unloading does not restore")):
        before, after = (side.fact(probe, "base_changed") for side in (golden, now))
        if not after:
            continue
        if before is None:
            found.notes.append(
                f"{meaning} {len(after)} weights of the base; the creator has no result to compare it with"
            )
        elif len(after) > len(before):
            names = sorted(set(after) - set(before)) or sorted(after)
            found.contract(probe, "base-weights", f"{meaning} {len(names)} weights of the base", names)
        else:
            found.standing.append(f"{meaning} {len(after)} weights of the base, as for the creator")


def _ties(golden: Observed, now: Observed, found: Found) -> None:
    for probe, when in (
        ("structure", "after loading"),
        ("merged", "after merging"),
        ("unmerged", "after merging and unmerging"),
        ("safe_merged", "after the safe merge"),
        ("unloaded", "after unloading"),
        ("merge_and_unload", "after merge_and_unload"),
        ("merged_saved", "after saving what was merged and reading it again"),
        ("roundtrip", "after saving"),
    ):
        before, after = golden.fact(probe, "ties"), now.fact(probe, "ties")
        if before is None or after is None:
            continue
        present = set(now.fact("structure", "inference") or {})
        broken = [pair for pair in _pairs(before) - _pairs(after) if not present or present & set(pair)]
        made = sorted(_pairs(after) - _pairs(before))
        if broken and len(_pairs(after)) < len(_pairs(before)):
            if probe in found.creators_own:  # the creator's library tied what must not be tied: untying it is a fix
                found.notes.append(
                    f"no longer tied {when}, where the creator's model was wrong: {' = '.join(min(broken))}"
                )
                continue
            found.contract(
                probe, "tie-broken", f"tied weights are no longer tied {when}", [" = ".join(p) for p in sorted(broken)]
            )
        elif made:
            found.notes.append(f"tied {when}, unlike for the creator: {' = '.join(made[0])}")


def _pairs(groups: Iterable[list[str]]) -> set[tuple[str, str]]:
    return {(a, b) for group in groups for i, a in enumerate(group) for b in group[i + 1 :]}


def _dtypes(golden: Observed, now: Observed, found: Found) -> None:
    before, after = (side.fact("structure", "inference") or {} for side in (golden, now))
    changed = [
        f"{n}: {before[n][1]} → {after[n][1]}" for n in sorted(set(before) & set(after)) if before[n][1] != after[n][1]
    ]
    if changed:
        found.contract("structure", "dtype", f"{len(changed)} parameters have another dtype", changed)
    shapes = [
        f"{n}: {before[n][0]} → {after[n][0]}" for n in sorted(set(before) & set(after)) if before[n][0] != after[n][0]
    ]
    if shapes:
        found.contract("structure", "shape", f"{len(shapes)} parameters have another shape", shapes)
    frozen = [n for n in sorted(set(before) & set(after)) if before[n][2] != after[n][2]]
    if frozen:
        found.notes.append(f"loaded for inference, {len(frozen)} parameters have another requires_grad: {frozen[0]}")


def _output_dtypes(golden: Observed, now: Observed, found: Found) -> None:
    """The types of the model's outputs. Types narrower than float32 are stored as float32, with a fact that names
    them."""
    changed = []
    for name in sorted(set(golden.group("forward", "float32")) & set(now.group("forward", "float32")) - {"sketch"}):
        full = f"forward/float32/{name}"
        before, after = (
            side.facts.get("stored_wider", {}).get(full) or f"torch.{side.arrays[full].dtype}" for side in (golden, now)
        )
        if before != after:
            changed.append(f"{name}: {before} → {after}")
    if changed:
        found.contract("forward", "dtype", f"{len(changed)} outputs have another dtype", changed)


def are_of(names: Iterable[str], layers: Set[str]) -> bool:
    """True if every name is in one of the layers."""
    return all(any(f".{layer}." in f".{name}." for layer in layers) for name in names)


TARGETS = ("target_modules", "target_parameters", "rank_pattern", "alpha_pattern")
"""Entries of a config that name layers: they change with the names."""


def _roundtrip(golden: Observed, now: Observed, found: Found, converted: Set[str], lacks_reload: bool) -> None:
    if now.outcome("roundtrip") != "ok":
        return
    for fact, kind, meaning in (
        ("lost", "roundtrip-keys", "saved again, keys of the checkpoint are missing"),
        ("changed", "roundtrip-tensors", "saved again, tensors of the checkpoint have other values"),
    ):
        before, after = set(golden.fact("roundtrip", fact) or []), set(now.fact("roundtrip", fact) or [])
        renamed = {key for key in after if fact == "lost" and _goes_with_names(key, now, converted)}
        if renamed:
            found.notes.append(f"saved again, {len(renamed)} keys of the checkpoint follow the loader's layer names")
            after -= renamed
        if after and lacks_reload and not any(finding.probe == "roundtrip" for finding in found.findings):
            found.notes.append(f"{meaning} ({len(after)}), but what was saved computes the same")
        elif after - before:
            found.contract("roundtrip", kind, f"{meaning} ({len(after - before)})", sorted(after - before))
        elif after:
            found.standing.append(f"{meaning} ({len(after)}), as for the creator")
    added = sorted(set(now.fact("roundtrip", "added") or []) - set(golden.fact("roundtrip", "added") or []))
    if added:
        found.notes.append(f"saved again, the checkpoint has {len(added)} additional keys: {', '.join(added[:3])}")
    differences = config_changes(now.fact("roundtrip", "config_before") or {}, now.fact("roundtrip", "config") or {})
    already = config_changes(golden.fact("roundtrip", "config_before") or {}, golden.fact("roundtrip", "config") or {})
    found.config_differences = tuple(d for d in differences if d not in already)
    changed = [d for d in found.config_differences if not (d.startswith("+ ") or d.endswith(SAID_NOTHING))]
    if converted and changed and all(d.lstrip("+-~ ").startswith(TARGETS) for d in changed):
        found.notes.append("saved again, the config uses the loader's layer names")
    elif changed:
        found.contract("roundtrip", "config", f"saved again, {len(changed)} entries of the config differ", changed)


def _goes_with_names(key: str, now: Observed, converted: Set[str]) -> bool:
    """True if a missing key belongs to a layer that the loader's base renamed or fused."""
    if key in (now.fact("roundtrip", "renamed") or {}):
        return True
    fused = converted - set(now.fact("layers", "renamed") or {})
    return bool(now.fact("roundtrip", "added")) and are_of([key.removeprefix("base_model.model.")], fused)


def _warnings(golden: Observed, now: Observed, found: Found) -> None:
    known = {text for _, text in _said(golden)}
    ran = {"load", *(probe for probe in golden.probes if golden.outcome(probe) == "ok")}
    # a warning of a probe that did not run for the creator is not new: its own warnings are unknown
    new = [(probe, text) for probe, text in _said(now) if text not in known and probe in ran]
    first = {text: probe for probe, text in reversed(new)}
    found.new_warnings = tuple(f"{probe}: {text}" for text, probe in first.items() if not text.startswith(_ROUTINE))
    for text in first:
        if text.startswith(_ROUTINE):
            found.notes.append(f"new warning for developers: {text}")
    relevant = [text for probe, text in new if probe in _WARNING_PROBES and not text.startswith(_ROUTINE)]
    for text in dict.fromkeys(relevant):
        found.add("warnings", "new-warning", Verdict.WARNED, text)


def _said(side: Observed) -> Iterable[tuple[str, str]]:
    for precision in ("float32", "float64"):
        for text in side.load.get(precision, {}).get("warnings", []):
            yield "load", text
    for probe, by_precision in side.probes.items():
        for said in by_precision.values():
            for text in said.get("warnings", []):
                yield probe, text
