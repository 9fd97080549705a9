"""What one change did: its cells held against the baseline's, so that only what it broke is red. Pure.

The two sides differ in one package and nothing else, and a replay repeats to the bit. So verdicts are not all that can
be compared: a cell that was wrong before and is now wrong for another reason, or by more, has regressed as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from harness.core.comparison import Against, Comparison
from harness.core.run import Cell, Figures, Finding, Run, finished
from harness.core.text import enumerated, many
from harness.core.verdict import Verdict
from harness.judge import causes, run_diff

Key = tuple[str, str, str]
"""Scenario, creator, device: what two cells have in common that differ in their loader."""
STILL = "(baseline)"
"""In the place of an expectation's id, for what deviates on both sides and no expectation covers."""
_UNKNOWN = "(no baseline)"
_SHOWN = 3


def key_of(cell: Cell) -> Key:
    """What a cell has in common with the baseline's."""
    return cell.scenario, cell.creator, cell.place


def held(run: Run, before: Iterable[Cell], against: Against) -> Run:
    """The change's run with what it did, compared with the baseline's cells.

    What deviates on both sides is as if an expectation covered it; what regressed is not, whatever covers it. The
    expectations' own problems are no matter of the change: what it fixed is told as fixed.
    """
    old = {key_of(cell): cell for cell in before}
    comparisons = tuple(
        found for cell in run.cells if (found := compared(old.get(key_of(cell)), cell, run.strict)) is not None
    )
    change = {comparison.cell: comparison for comparison in comparisons}
    cells = tuple(_told(cell, change.get(cell.id), against) for cell in run.cells)
    return finished(
        run.model_copy(
            update={
                "cells": cells,
                "baseline": against.baseline,
                "comparisons": comparisons,
                "against": against,
                "expectation_problems": (),
                "notes": (*run.notes, *_notes(run, old)),
            }
        )
    )


def compared(before: Cell | None, now: Cell, strict: bool) -> Comparison | None:
    """How one cell changed; None where it is sound on both sides, or nobody can tell on either."""
    sides = (run_diff.standing(before, strict), run_diff.standing(now, strict))
    said = partial(Comparison, cell=now.id, before=before.verdict if before else None, now=now.verdict)
    match sides:
        case "sound", "deviates":
            return said(change="regressed")
        case "deviates", "sound":
            known = f"expected until now ({before.expectation})" if before and before.expectation else ""
            return said(change="fixed", why=known)
        case "deviates", "deviates":
            assert before is not None
            worse = _worse(before, now)
            told = "; ".join(part for part in (now.expectation, _nearer(before, now)) if part)
            return said(change="regressed" if worse else "still", why=worse or told)
        case "unjudged", "sound" | "deviates":
            return said(change="new", why=before.reason if before else "")
        case "sound" | "deviates", "unjudged":
            return said(change="gone", why=now.reason)
        case _:
            return None


def _told(cell: Cell, comparison: Comparison | None, against: Against) -> Cell:
    """The cell as the report is to show it: red where the change made it deviate, and only there."""
    if comparison is None or run_diff.standing(cell, strict=True) != "deviates":
        return cell
    none = {"expectation": "", "expectation_issue": "", "expectation_expires": "", "expectation_reason": ""}
    if comparison.change == "regressed":
        why = (f"under the baseline it deviates too; here {comparison.why}",) if comparison.why else ()
        covered = (f"an expectation covers it ({cell.expectation}), and not the baseline",) if cell.expected else ()
        return cell.model_copy(update={"expected": False, **none, "notes": (*cell.notes, *why, *covered)})
    if cell.expected:
        return cell
    said = {
        "still": (STILL, f"deviates the same way under {against.baseline}"),
        "new": (_UNKNOWN, f"deviates, and nobody knows what it did under {against.baseline}"),
    }.get(comparison.change)
    if said is None:
        return cell
    return cell.model_copy(update={"expected": True, **none, "expectation": said[0], "expectation_reason": said[1]})


def _notes(run: Run, old: Mapping[Key, Cell]) -> list[str]:
    """What changed without anything being wrong."""
    pairs = [(old[key_of(cell)], cell) for cell in run.cells if key_of(cell) in old]
    moved = sum(b.verdict is Verdict.EXACT and n.verdict is Verdict.CLOSE for b, n in pairs)
    warned = [n for b, n in pairs if n.new_warnings and set(n.new_warnings) - set(b.new_warnings)]
    notes = [f"{moved} cells that were equal to the bit are so within the measured noise now"] * bool(moved)
    if warned:
        first = next(text for text in warned[0].new_warnings)
        notes.append(f"{len(warned)} cells warn anew, for example {warned[0].id}: {first}")
    return notes


def _worse(before: Cell, now: Cell) -> str:
    """In what a cell that deviated already is worse now; empty where it is not."""
    if now.verdict.severity < before.verdict.severity:
        return f"{before.verdict} became {now.verdict}"
    if now.verdict.severity > before.verdict.severity and _raises(before) and not _raises(now):
        return ""  # it gets further than it did
    if lost := set(now.keys.lost if now.keys else ()) - set(before.keys.lost if before.keys else ()):
        return f"{many(len(lost), 'tensor')} more lost on loading: {enumerated(sorted(lost), _SHOWN)}"
    if other := _other_cause(before, now):
        return f"for another reason: {other}"
    return _further_off(before, now)


def _raises(cell: Cell) -> bool:
    return cell.error is not None or bool(cell.log_tail) or any(map(causes.is_error, cell.findings))


def _other_cause(before: Cell, now: Cell) -> str:
    if now.verdict in (Verdict.CRASH, Verdict.TIMEOUT) and before.verdict is not now.verdict:
        return causes.title(now)
    known = [finding for finding in before.findings if finding.verdict.is_deviation]
    told = (_new(finding, known) for finding in now.findings if finding.verdict.is_deviation)
    return next(filter(None, told), "")


def _new(finding: Finding, known: Sequence[Finding]) -> str:
    """What a finding says that the baseline's do not: all of it, some of its details, or nothing."""
    alike = [each for each in known if _signature(each) == _signature(finding)]
    if not alike:
        return f"{finding.probe}: {finding.message}"
    if finding.figures or causes.is_error(finding):
        return ""
    old = {_verbatim(detail) for each in alike for detail in each.details}
    fresh = [detail for detail in finding.details if _verbatim(detail) not in old]
    if not finding.details and causes.normalised(finding.message) not in {causes.normalised(f.message) for f in alike}:
        return f"{finding.probe}: {finding.message}"
    return f"{finding.probe}: {enumerated(fresh, _SHOWN)}" if fresh else ""


def _signature(finding: Finding) -> tuple[str, ...]:
    """What two findings have in common that say the same; sizes and details are compared apart from it."""
    if causes.is_error(finding):
        return ("error", finding.probe, finding.stage, finding.error_type, causes.normalised(causes.raised(finding)))
    return (finding.probe, finding.kind, "" if finding.figures else finding.subject)


def _verbatim(detail: str) -> str:
    """A detail without what differs between two replays: digits count, since `float32 → float16` is not its reverse."""
    return re.sub(r"\b0x[0-9a-f]+", "", detail)


def _further_off(before: Cell, now: Cell) -> str:
    """The array that lies further from the golden than it did, by more than its allowance."""
    every = ((was, each) for was, each in _same_arrays(before, now) if _further(each, was))
    return next((f"further off: {each.array} {_apart(was, each)}" for was, each in every), "")


def _nearer(before: Cell, now: Cell) -> str:
    """The array of a cell that still deviates which lies nearer to the golden than it did: the change reaches it."""
    every = ((was, each) for was, each in _same_arrays(before, now) if _further(was, each))
    return next((f"nearer: {each.array} off {_apart(was, each)}" for was, each in every), "")


def _same_arrays(before: Cell, now: Cell) -> Iterable[tuple[Figures, Figures]]:
    """The figures of each array that both cells have figures of."""
    old = {each.array: each for each in _figures(before)}
    return ((old[each.array], each) for each in _figures(now) if each.array in old)


def _apart(was: Figures, now: Figures) -> str:
    return f"by {now.max_abs:.3g}, and was by {was.max_abs:.3g}"


def _figures(cell: Cell) -> Sequence[Figures]:
    probes = {finding.probe for finding in cell.findings if finding.verdict.is_deviation}
    found = [figures for name in cell.probes if name in probes for figures in cell.probes[name].figures]
    return [*found, *(finding.figures for finding in cell.findings if finding.figures)]


def _further(now: Figures, was: Figures) -> bool:
    if not math.isfinite(now.max_abs):
        return math.isfinite(was.max_abs)
    return now.max_abs > was.max_abs + now.allowance
