"""How a cell that deviates under the baseline too is worse under the change, or nearer to the golden (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from harness.core.run import Cell, Figures, Finding
from harness.core.text import enumerated, many
from harness.core.verdict import Verdict
from harness.judge import causes, shape_measured

_SHOWN = 3


def worse(before: Cell, now: Cell) -> str:
    """How a cell that deviated before is worse now; empty if it is not."""
    if now.verdict.severity < before.verdict.severity:
        reason = _other_cause(before, now)
        return f"{before.verdict} became {now.verdict}{f': {reason}' if reason else ''}"
    if now.verdict.severity > before.verdict.severity and _raises(before) and not _raises(now):
        return ""  # it gets further than it did
    if lost := set(now.keys.lost if now.keys else ()) - set(before.keys.lost if before.keys else ()):
        return f"{many(len(lost), 'tensor')} more lost on loading: {enumerated(sorted(lost), _SHOWN)}"
    if other := _other_cause(before, now):
        return f"for another reason: {other}"
    return _further_off(before, now) or _in_another_way(before, now)


def _in_another_way(before: Cell, now: Cell) -> str:
    """How the shape of a cell's findings changed, if its verdict did not: another pattern is not less of the same."""
    if now.verdict is not before.verdict:
        return ""
    return "; ".join(f"in another way: {text}" for text in shape_measured.worse(before, now)[:_SHOWN])


def _raises(cell: Cell) -> bool:
    return cell.error is not None or bool(cell.log_tail) or any(map(causes.is_error, cell.findings))


def _other_cause(before: Cell, now: Cell) -> str:
    if now.verdict in (Verdict.CRASH, Verdict.TIMEOUT) and before.verdict is not now.verdict:
        return causes.title(now)
    known = [finding for finding in before.findings if finding.verdict.is_deviation]
    reasons = (_new(finding, known) for finding in now.findings if finding.verdict.is_deviation)
    return next(filter(None, reasons), "")


def _new(finding: Finding, known: Sequence[Finding]) -> str:
    """What is new in a finding: all of it, some of its details, or nothing."""
    alike = [each for each in known if signature(each) == signature(finding)]
    if not alike:
        return f"{finding.probe}: {finding.message}"
    if finding.figures or causes.is_error(finding):
        return ""
    old = {_verbatim(detail) for each in alike for detail in each.details}
    fresh = [detail for detail in finding.details if _verbatim(detail) not in old]
    if not finding.details and causes.normalised(finding.message) not in {causes.normalised(f.message) for f in alike}:
        return f"{finding.probe}: {finding.message}"
    return f"{finding.probe}: {enumerated(fresh, _SHOWN)}" if fresh else ""


def signature(finding: Finding) -> tuple[str, ...]:
    """What two equal findings have in common; sizes and details are compared separately."""
    if causes.is_error(finding):
        return ("error", finding.probe, finding.stage, finding.error_type, causes.normalised(causes.raised(finding)))
    return (finding.probe, finding.kind, "" if finding.figures else finding.subject)


def _verbatim(detail: str) -> str:
    """A detail without addresses. Digits count, since `float32 → float16` is not its reverse."""
    return re.sub(r"\b0x[0-9a-f]+", "", detail)


def _further_off(before: Cell, now: Cell) -> str:
    """The array that is further from the golden than before, by more than its allowance."""
    every = ((was, each) for was, each in _same_arrays(before, now) if _further(each, was))
    return next((f"further off: {each.array} {_apart(was, each)}" for was, each in every), "")


def nearer(before: Cell, now: Cell) -> str:
    """In a cell that still deviates, the array that is nearer to the golden than before: the change affects it."""
    every = ((was, each) for was, each in _same_arrays(before, now) if _further(was, each))
    return next((f"nearer: {each.array} off {_apart(was, each)}" for was, each in every), "")


def _same_arrays(before: Cell, now: Cell) -> Iterable[tuple[Figures, Figures]]:
    """The figures of each array that both cells have figures of: from the golden, or from what a finding compares."""
    old = _figures(before)
    return ((old[key], each) for key, each in _figures(now).items() if key in old)


def _apart(was: Figures, now: Figures) -> str:
    if not now.is_size:
        return f"in {now.differing} elements, before in {was.differing}"
    return f"by {now.max_abs:.3g}, before by {was.max_abs:.3g}"


def _figures(cell: Cell) -> dict[tuple[str, ...], Figures]:
    """By what was compared: an array can differ from the golden by more than from its twin."""
    deviating = [finding for finding in cell.findings if finding.verdict.is_deviation]
    probes = {finding.probe for finding in deviating}
    found = {(each.array,): each for name in cell.probes if name in probes for each in cell.probes[name].figures}
    return found | {(each.kind, each.figures.array): each.figures for each in cell.findings if each.figures is not None}


def _further(now: Figures, was: Figures) -> bool:
    if not now.is_size:
        return now.differing > was.differing
    if not math.isfinite(now.max_abs):
        return math.isfinite(was.max_abs)
    return now.max_abs > was.max_abs + now.allowance
