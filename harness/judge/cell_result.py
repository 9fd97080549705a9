"""Makes a cell from a reply: a judgement, a process that died, or the reason why there is no judgement. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.errors import HarnessError
from harness.core.matrix import CellId
from harness.core.observation import Done, Observed
from harness.core.run import Cell, Figures
from harness.core.verdict import Verdict, worst
from harness.judge import compare, consumer, load_behaviour, outcomes, precision, size, writes
from harness.judge.contracts import finding
from harness.judge.judgement import Judgement
from harness.judge.numbers import BELIEVED, difference, same_bits
from harness.store import device_class
from harness.worker.shared import CONSUMER

_HARNESS_FAILED, _WORKER_FAILED = "peft-regress itself failed", "the worker itself failed"
_STARVED = "the machine did not let it run, not even alone; free disk or memory, or run it on a less busy machine"


def cell(identity: CellId, golden: Observed, now: Observed, done: Done) -> Cell:
    """The cell of a replay that ended normally."""
    if said := _not_in_cache(now):
        return could_not_tell(identity, Verdict.NOT_COMPARABLE, said)
    if identity.device != device_class.CPU and (said := _exhausted(now)):
        return could_not_tell(identity, Verdict.NO_DEVICE, said).model_copy(
            update={"gpu_peak_mb": now.timings.get("gpu_peak_mb"), "compute_s": round(done.duration_s, 4)}
        )
    if hindered := precision.hindered(now):
        return could_not_tell(identity, *hindered)
    judgement = consumer.judge(golden, now) if CONSUMER in now.facts else compare.judge(golden, now)
    if judgement.verdict.is_clean and (undetermined := precision.undetermined(now)):
        return could_not_tell(identity, *undetermined)
    found = _cell(
        identity,
        gpu_peak_mb=now.timings.get("gpu_peak_mb"),
        verdict=judgement.verdict,
        reason=_why_not(judgement),
        probes=dict(judgement.probes),
        findings=judgement.findings,
        notes=(*judgement.notes, *([done.note] if done.note else [])),
        standing_defects=judgement.standing_defects,
        fixed=judgement.fixed,
        creators_own=judgement.creators_own,
        compute_s=round(done.duration_s, 4),
        first_difference=judgement.first_difference,
        layers=judgement.layers,
        adapter_delta=judgement.adapter_delta,
        base_delta=judgement.base_delta,
        keys=judgement.keys,
        conversion=judgement.conversion,
        config_differences=judgement.config_differences,
        new_warnings=judgement.new_warnings,
        error=judgement.error,
        writes=writes.of(now),
    )
    return found.model_copy(update={"reading": load_behaviour.of(found), "worst_ratio": size.ratio(found)})


def _why_not(judgement: Judgement) -> str:
    """Why a replay that ran is not comparable, or how a consumer refuses; empty if it was compared."""
    if judgement.verdict is not Verdict.NOT_COMPARABLE:
        return judgement.reason
    return "; ".join(f.message for f in judgement.findings if f.verdict is Verdict.NOT_COMPARABLE)


def _not_in_cache(now: Observed) -> str:
    """The message of a worker that found no Hub model on its machine; empty where it found it, or needed none."""
    error = outcomes.error_report((now.load.get("float32") or {}).get("error"))
    return error.message if error and error.type.rpartition(".")[2] == "NotInHubCache" else ""


def _exhausted(now: Observed) -> str:
    """The error of a GPU that is busy or too small, which says nothing about the libraries; else empty."""
    tried = {"loading": now.load, **now.probes}
    for what, by_precision in tried.items():
        for said in by_precision.values():
            error = outcomes.error_report(said.get("error")) if isinstance(said, dict) else None
            if error and device_class.exhausted(error.type, error.message):
                peak = now.timings.get("gpu_peak_mb")
                had = f"; the cell's tensors had {peak:,.1f} MB of it" if peak is not None else ""
                return (
                    f"the GPU is busy or too small: {what}: {error.type}: {device_class.in_short(error.message)}{had}"
                )
    return ""


def no_device(identity: CellId, gpu: Mapping[str, Any] | None) -> Cell:
    """The cell of a device that can't be used.

    Args:
        gpu: what the worker says about it.
    """
    why = f": {gpu['why']}" if gpu and gpu.get("why") else ""
    return could_not_tell(identity, Verdict.NO_DEVICE, f"{identity.loader} sees no device {identity.device!r}{why}")


def died(identity: CellId, done: Done) -> Cell:
    """The cell of a process that died or hung, or in which the harness itself failed."""
    verdict = {"died": Verdict.CRASH, "timeout": Verdict.TIMEOUT}.get(done.outcome, Verdict.NOT_COMPARABLE)
    words = {
        "died": "the process that worked on it died",
        "timeout": "no answer within the time limit",
        "starved": _STARVED,
    }
    message = f"{words.get(done.outcome, _WORKER_FAILED)}: {done.detail}"
    found = (finding("load", str(verdict), verdict, message),) if verdict.is_deviation else ()
    return _cell(
        identity,
        verdict=verdict,
        findings=found,
        reason=message,
        log_tail=done.log_tail,
        compute_s=round(done.duration_s, 4),
        notes=(done.note,) if done.note else (),
    )


def own_failure(identity: CellId, error: Exception) -> Cell:
    """The cell without a judgement because of a mistake in the harness."""
    text = f"{_HARNESS_FAILED}: {type(error).__name__}: {error}"
    return could_not_tell(identity, Verdict.NOT_COMPARABLE, text)


def is_own_failure(cell: Cell) -> bool:
    """True if the worker or the harness failed, which says nothing about the libraries."""
    return cell.verdict is Verdict.NOT_COMPARABLE and cell.reason.startswith((_WORKER_FAILED, _HARNESS_FAILED))


def could_not_tell(identity: CellId, verdict: Verdict, reason: str, log_tail: str = "") -> Cell:
    """The cell without a judgement, and why."""
    return _cell(identity, verdict=verdict, reason=reason, log_tail=log_tail)


def failed(identity: CellId, verdict: Verdict, error: HarnessError) -> Cell:
    """The cell without a judgement because a step failed: the error in one line, the tool's output in `log_tail`."""
    return could_not_tell(identity, verdict, one_line(error), last_words(error))


def one_line(error: HarnessError) -> str:
    """An error's three parts in one line, with the last line of a tool's output."""
    said = last_words(error).rstrip().rpartition("\n")[2].strip()
    found = error.found.partition("\n")[0]
    parts = [f"{found}: {said}" if said else found]
    parts += [f"expected: {error.expected}"] if error.expected else []
    parts += [f"next: {error.next_step}"] if error.next_step else []
    return "; ".join(parts)


def last_words(error: HarnessError) -> str:
    """The output of the tool that failed, as far as the error has it; empty where there was no tool."""
    return str(getattr(error, "tail", "") or error.found.partition("\n")[2])


def unless_unstable(first: Cell, second: Cell, now: Observed, again: Observed) -> Cell:
    """The first result; `unstable` where a second replay of the same fixture yields other numbers.

    An array that deviates in both is wrong even if it differs between them, in two cases: if it deviates far more than
    the replays differ, or if the creator's own reload is wrong, as where each load draws a lost tensor at random.

    Args:
        second: the result of the second replay.
    """
    deviating = [f.figures for f in first.findings if f.figures and f.verdict is first.verdict]
    differing = [figures for figures in deviating if not _same(figures.array, now, again)]
    wrong = {f.figures.array for f in second.findings if f.figures and f.verdict is first.verdict}
    at_random = bool(first.creators_own)
    moved = [
        figures.array
        for figures in differing
        if figures.array not in wrong or not (at_random or _far_more(figures, now, again))
    ]
    if not moved:
        names = ", ".join(figures.array for figures in differing[:3])
        note = f"two replays give different results, and both are wrong: {names}"
        return first.model_copy(update={"notes": (*first.notes, note)}) if differing else first
    note = f"two replays disagree in {', '.join(moved[:3])}"
    findings = tuple(
        f.model_copy(update={"verdict": Verdict.UNSTABLE}) if f.figures and f.figures.array in moved else f
        for f in first.findings
    )
    verdict = worst([*(f.verdict for f in findings), Verdict.UNSTABLE])
    cell = first.model_copy(update={"verdict": verdict, "findings": findings, "notes": (*first.notes, note)})
    return cell.model_copy(update={"worst_ratio": size.ratio(cell)})


def _same(name: str, now: Observed, again: Observed) -> bool:
    if name not in now.arrays or name not in again.arrays:
        return True  # the figures of an invariant are of two arrays; this name alone proves nothing
    return same_bits(now.arrays[name], again.arrays[name])


def _far_more(figures: Figures, now: Observed, again: Observed) -> bool:
    """True if an array deviates far more than the two replays differ from each other."""
    apart = difference(figures.array, now.arrays[figures.array], again.arrays[figures.array], 0.0).max_abs
    return figures.max_abs > BELIEVED * apart


def _cell(identity: CellId, **fields: Any) -> Cell:
    names: dict[str, Any] = {"scenario": identity.scenario, "creator": identity.creator, "loader": identity.loader}
    return Cell(id=str(identity), device=identity.device, settings=str(identity.settings), **names, **fields)
