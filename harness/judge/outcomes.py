"""Did it load, and did each probe do what it did for the creator? (pure)"""

from __future__ import annotations

from collections.abc import Mapping

from harness.core.observation import Observed
from harness.core.run import ErrorReport
from harness.core.verdict import Verdict
from harness.judge import doors, sft
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.worker.shared import LOAD_PATH, PROBES

_GOES_ON_FROM: Mapping[str, str] = {"unmerged": "merged", "merged_saved": "merge_and_unload"}
"""Probe → the probe whose model it goes on with; it can't run where that one raised."""


def load_failure(golden: Observed, now: Observed, found: Found) -> Verdict | None:
    """The verdict of a replay that did not load; None where it did."""
    loaded = now.load.get("float32", {})
    if loaded.get("outcome") == "ok":
        return None
    found.error = error_report(loaded.get("error"))
    if found.error is None:
        found.notes.append("the worker left no outcome of loading")
        return Verdict.NOT_COMPARABLE
    stage, kind = found.error.stage, found.error.type
    message = f"loading failed ({stage}): {kind}: {found.error.message}"
    if golden.load.get("float32", {}).get("outcome") == "error":
        found.standing.append(message)
        found.notes.append("the creator's own library could not load it either: there is nothing to compare")
        return Verdict.NOT_COMPARABLE
    found.add("load", "error", Verdict.LOAD_ERROR, message, stage=stage, error_type=kind)
    return Verdict.LOAD_ERROR


def error_report(error: Mapping[str, str] | None) -> ErrorReport | None:
    """The worker's error as a value, or None."""
    return ErrorReport(**error) if error else None


def compare(golden: Observed, now: Observed, found: Found) -> None:
    """Hold the outcome of every probe in float32 against the creator's. A probe that raises hides no other."""
    for probe in sorted(set(golden.probes) | set(now.probes)):
        before, after = golden.outcome(probe), now.outcome(probe)
        said = now.probes.get(probe, {}).get("float32", {})
        error = error_report(said.get("error"))
        if after == "error" and error is not None:
            _raised(probe, before, error, found)
        elif before == "ok" and after != "ok":
            _lost(probe, now, said.get("reason", "it did not run"), found)
        elif before == "error" and after == "ok":
            found.notes.append(f"{probe} raised for the creator and works now")


def _raised(probe: str, before: str, error: ErrorReport, found: Found) -> None:
    text = f"{_does(probe)} raised {error.type}: {error.message}"
    if before == "ok" or (before != "error" and probe.startswith(LOAD_PATH)):  # the fixture is the same at a newer door
        found.error = found.error or error
        kind = doors.kind(probe, "error") if probe.startswith(LOAD_PATH) else "error"
        found.add(probe, kind, Verdict.RUN_ERROR, text, stage=error.stage, error_type=error.type)
    elif before == "error":
        found.standing.append(text)
    else:
        found.notes.append(f"{text} (the creator's library did not offer it)")


def _does(probe: str) -> str:
    if probe.startswith(LOAD_PATH):
        return doors.titled(probe)
    return (PROBES[probe].action if probe in PROBES else "") or probe


def _lost(probe: str, now: Observed, reason: str, found: Found) -> None:
    if now.outcome(_GOES_ON_FROM.get(probe, "")) == "error":
        found.notes.append(f"{probe} could not run: {reason}")
    elif probe.startswith(LOAD_PATH):  # whether it is only too new for the loader, or was taken away, the worker knows
        found.notes.append(f"{doors.titled(probe)} was open for the creator and is not there: {reason}")
    elif probe == sft.PROBE:  # a loader without TRL loads what was trained, as most do
        found.notes.append(f"training anew with SFTTrainer was left out: {reason}")
    else:
        message = f"{probe} worked for the creator and no longer applies: {reason}"
        found.add(probe, "probe-lost", Verdict.CONTRACT, message)


def limits(evidence: Evidence, found: Found) -> None:
    """Say what the judgement could not rest on: float64 that is missing, and what only float64 shows."""
    golden, now = evidence.golden, evidence.now
    loaded = now.load.get("float64", {})
    if not evidence.noise.measured:
        found.notes.append("the golden has no float64: rounding is not measured here, its allowance is a general one")
    elif loaded.get("outcome") != "ok":
        error = (loaded.get("error") or {}).get("type", "unknown")
        found.notes.append(f"float64 can't be run by the loader ({error}); judged in float32 alone")
    elif raising := [probe for probe in now.probes if _in_float32_alone(golden, now, probe)]:
        found.notes.append(f"in float64 {', '.join(raising)} can't be run by the loader; judged in float32 alone")
    if hidden := evidence.hidden_by_float32():
        names = ", ".join(hidden[:3])
        size = "by less than float32 can show, though the base's outputs are equal"
        found.notes.append(f"in float64 {len(hidden)} array(s) differ {size}: {names}")


def _in_float32_alone(golden: Observed, now: Observed, probe: str) -> bool:
    wide_before, wide_now = golden.outcome(probe, "float64"), now.outcome(probe, "float64")
    return now.outcome(probe) == wide_before == "ok" and wide_now != "ok"
