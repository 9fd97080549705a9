"""Did it load, did each probe run as it did for the creator, and what limits the comparison? (pure)"""

from __future__ import annotations

from collections.abc import Mapping

from harness.core.observation import Observed
from harness.core.run import ErrorReport
from harness.core.text import many
from harness.core.verdict import Verdict
from harness.judge import load_paths, signal, structure_steps
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.worker.shared import LOAD_PATH, PROBES

_NEEDS_MODEL_OF: Mapping[str, str] = {"unmerged": "merged", "merged_saved": "merge_and_unload"}
"""Probe → the probe whose model it continues with; it cannot run if that one raised."""


def load_failure(golden: Observed, now: Observed, found: Found) -> Verdict | None:
    """The verdict of a replay that did not load; None if it did."""
    loaded = now.load.get("float32", {})
    if loaded.get("outcome") == "ok":
        return None
    found.error = error_report(loaded.get("error"))
    if found.error is None:
        found.notes.append("the worker recorded no outcome of loading")
        return Verdict.NOT_COMPARABLE
    stage, kind = found.error.stage, found.error.type
    message = f"loading failed ({stage}): {kind}: {found.error.message}"
    if (own := error_report(golden.load.get("float32", {}).get("error"))) is not None:
        found.notes.append(f"the creator's own library refuses it too: {own.type}: {own.message}")
    found.add("load", "error", Verdict.LOAD_ERROR, message, stage=stage, error_type=kind)
    return Verdict.LOAD_ERROR


def error_report(error: Mapping[str, str] | None) -> ErrorReport | None:
    """The worker's error as a value, or None."""
    return ErrorReport(**error) if error else None


def compare(golden: Observed, now: Observed, found: Found) -> None:
    """Compare the outcome of every probe in float32 with the creator's. A probe that raises hides no other."""
    for probe in sorted(set(golden.probes) | set(now.probes)):
        before, after = golden.outcome(probe), now.outcome(probe)
        said = now.probes.get(probe, {}).get("float32", {})
        error = error_report(said.get("error"))
        if after == "error" and error is not None:
            _raised(probe, before, error, golden, found)
        elif before == "ok" and after != "ok":
            _lost(probe, now, said.get("reason", "it did not run"), found)
        elif before == "error" and after == "ok":
            found.notes.append(f"{probe} raised for the creator and works now")


def _raised(probe: str, before: str, error: ErrorReport, golden: Observed, found: Found) -> None:
    is_load_path = probe.startswith(LOAD_PATH)
    action = load_paths.titled(probe) if is_load_path else (PROBES[probe].action if probe in PROBES else "") or probe
    raised = f"raised {error.type}: {error.message}"
    if before == "ok" or (before != "error" and is_load_path):  # the fixture is the same for a newer load path
        found.error = found.error or error
        kind = load_paths.kind(probe, "error") if is_load_path else "error"
        found.add(probe, kind, Verdict.RUN_ERROR, f"{action} {raised}", stage=error.stage, error_type=error.type)
    elif before == "error":
        found.standing.append(f"{load_paths.stored_title(probe) if is_load_path else action} {raised}")
    else:
        why = "could not load it" if golden.load.get("float32", {}).get("outcome") == "error" else "did not offer it"
        found.notes.append(f"{action} {raised} (the creator's library {why})")


def _lost(probe: str, now: Observed, reason: str, found: Found) -> None:
    if now.outcome(_NEEDS_MODEL_OF.get(probe, "")) == "error":
        found.notes.append(f"{probe} could not run: {reason}")
    elif probe.startswith(LOAD_PATH):  # the worker knows whether the loader is too old for it, or it was removed
        found.notes.append(f"{load_paths.titled(probe)} worked for the creator and is not available: {reason}")
    elif probe == structure_steps.SFT:  # a loader without TRL can still load what was trained
        found.notes.append(f"training with SFTTrainer was skipped: {reason}")
    else:
        message = f"{probe} worked for the creator and no longer applies: {reason}"
        found.add(probe, "probe-lost", Verdict.CONTRACT, message)


def kernels(golden: Observed, now: Observed, found: Found) -> None:
    """Note if the loader's quantised layers run on other kernels than the creator's."""
    before, after = (side.fact("forward", "kernels") for side in (golden, now))
    if not before or not after:
        return
    if after["repacked"] and not before["repacked"]:
        # known breaks match this note by its words: `noted` in matrices/breaks
        weights = f"{after['repacked']} of {after['layers']} quantised weights"
        found.notes.append(f"the run repacked {weights} for a bfloat16 kernel of this processor; the creator's did not")
    if before["layers"] != after["layers"]:
        message = f"{before['layers']} layers were quantised, {after['layers']} are now"
        found.contract("forward", "quantised-layers", message)


def limits(evidence: Evidence, found: Found) -> None:
    """State what the comparison lacks: probes of the golden that prove nothing, float64, and what only that shows."""
    golden, now = evidence.golden, evidence.now
    for probe, said in evidence.weak.items():
        if probe in signal.DECISIVE:
            found.add(probe, "proves-nothing", Verdict.NOT_COMPARABLE, str(said))
        else:
            found.notes.append(f"{said}; not judged")
    if alone := [name for name in evidence.unmeasured if name.split("/")[0] not in evidence.weak]:
        found.notes.append(f"the measured rounding noise of {', '.join(alone[:3])} is not finite; not judged")
    loaded = now.load.get("float64", {})
    if unmeasured := _unmeasured(evidence):
        what = f" of {', '.join(unmeasured)}" if evidence.noise.measured else ""
        found.notes.append(
            f"the golden has no float64{what}, so rounding was not measured; a general allowance is used"
        )
    elif loaded.get("outcome") != "ok":
        error = (loaded.get("error") or {}).get("type", "unknown")
        found.notes.append(f"the loader cannot run float64 ({error}); compared in float32 only")
    elif raising := [probe for probe in now.probes if _in_float32_alone(golden, now, probe)]:
        found.notes.append(f"the loader cannot run {', '.join(raising)} in float64; compared in float32 only")
    if hidden := evidence.hidden_by_float32():
        names = ", ".join(hidden[:3])
        size = "by less than float32 can show, though the base's outputs are equal"
        found.notes.append(f"in float64 {many(len(hidden), 'array')} differ {size}: {names}")


def _unmeasured(evidence: Evidence) -> list[str]:
    """The probes of the golden whose rounding noise is unknown; all others round like `forward`."""
    known = evidence.noise.measures
    return [
        probe
        for probe in ("base", "forward", "layers", "gradients")
        if any(not known(f"{probe}/float32/{name}") for name in evidence.golden.group(probe, "float32"))
    ]


def _in_float32_alone(golden: Observed, now: Observed, probe: str) -> bool:
    wide_before, wide_now = golden.outcome(probe, "float64"), now.outcome(probe, "float64")
    return now.outcome(probe) == wide_before == "ok" and wide_now != "ok"
