"""What must be equal within one library: merged = unmerged, disabled = base, loaded again = loaded (pure).

Each side is compared with its own outputs, so that one moved base does not accuse ten probes. What fails with the
creator's library too is a standing defect: a loader is judged on what it makes worse.
"""

from __future__ import annotations

from harness.core.run import Figures, Finding
from harness.core.verdict import Verdict, worst
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.numbers import BELIEVED, beyond
from harness.worker.shared import EQUALS

_DISABLED = "with the adapter disabled the output is not the base's"

_MERGES = ("merged", "safe_merged", "merge_and_unload")
"""Three ways to one computation: what is wrong with all of them is reported once."""


def compare(evidence: Evidence, found: Found, outputs_moved: bool, lacks_reload: bool = False) -> None:
    """Run all these checks.

    Args:
        outputs_moved: the replay's own outputs differ from the golden's: defects are compared by order of magnitude.
        lacks_reload: the creator's own reload is wrong. Without a tensor that it lost, disabling the adapter may give
            the base's output; with it, it need not.
    """
    for probe, equal in EQUALS.items():
        now, before = (evidence.twin_gap(side, probe, equal.probe) for side in (evidence.now, evidence.creator))
        if before is not None and not evidence.is_rounding(before):
            found.creators_own.add(probe)
            if now is not None and not beyond(now):
                found.fixed.append(f"{equal.broken} for the creator (by {before.max_abs:.3g}), and not here")
        if _is_worse(evidence, now, before, equal.broken, found, outputs_moved):
            assert now is not None
            _broken(probe, now, before, found)
        elif now is not None and not beyond(now) and any(map(beyond, evidence.figures(probe))):
            # it differs from the golden's like its twin, and gets the twin's verdict
            causes = ("base",) if equal.probe == "base" else ("forward", "base", "layers")
            if moved := [f.verdict for f in found.findings if f.probe in causes]:
                found.follow.setdefault(probe, worst(moved))
            elif (twins := evidence.figures(equal.probe)) and not any(map(beyond, twins)):
                found.follow.setdefault(probe, Verdict.CLOSE)  # rounded once more on each side, each time allowed
    now, before = evidence.disabled_gap(evidence.now), None if lacks_reload else evidence.disabled_gap(evidence.creator)
    if _is_worse(evidence, now, before, _DISABLED, found, outputs_moved):
        found.add("base", "disabled-differs", Verdict.SILENT_WRONG, _worded(_DISABLED, before), figures=now)


def _is_worse(
    evidence: Evidence, now: Figures | None, before: Figures | None, meaning: str, found: Found, outputs_moved: bool
) -> bool:
    """True if the loader breaks what holds for the creator's library, or breaks it further."""
    if now is None or not beyond(now):
        return False
    if before is None:
        found.notes.append(f"{meaning} (by {now.max_abs:.3g}); the creator has no result to compare it with")
        return False
    if evidence.is_rounding(before):
        # the creator's own gap is one more measurement of the rounding on this path of computation
        return now.max_abs > now.allowance + before.max_abs
    # beside outputs that moved, a defect may have another size, but not another order of magnitude
    bound = BELIEVED * before.max_abs if outputs_moved else before.max_abs
    if now.max_abs <= bound + now.allowance:
        found.standing.append(f"{meaning} (by {now.max_abs:.3g}), as for the creator ({before.max_abs:.3g})")
        return False
    return True


def _broken(probe: str, now: Figures, before: Figures | None, found: Found) -> None:
    if probe in _MERGES and (same := _same_as_other_merge(now, found)):
        found.follow[probe] = same.verdict
        found.notes.append(f"{EQUALS[probe].broken} too, by as much as {same.probe}")
        return
    # once unloaded, the adapter is no longer used: what is left behind breaks a promise, not a result
    verdict = Verdict.CONTRACT if probe == "unloaded" else Verdict.SILENT_WRONG
    found.add(probe, f"differs-from-{EQUALS[probe].probe}", verdict, _worded(EQUALS[probe].broken, before), figures=now)


def _worded(meaning: str, before: Figures | None) -> str:
    if before is None or not beyond(before):
        return meaning
    return f"{meaning}, by more than for the creator ({before.max_abs:.3g})"


def _same_as_other_merge(now: Figures, found: Found) -> Finding | None:
    for other in found.findings:
        if other.probe in _MERGES and other.figures and other.kind == "differs-from-forward":
            same_size = abs(other.figures.max_abs - now.max_abs) <= now.allowance + other.figures.allowance
            if same_size or other.figures.max_abs == now.max_abs:  # the latter for two infinite ones
                return other
    return None
