"""Compares a change's cells with the baseline's, so that only what the change broke is red. Pure.

The two sides differ in one package, and a replay repeats to the bit. So more than verdicts can be compared: a cell that
was wrong before, and is now wrong for another reason or by more, has regressed too.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from harness.core import observation
from harness.core.comparison import Against, Comparison
from harness.core.run import Cell, Figures, Finding, Run, finished
from harness.core.text import enumerated, many
from harness.core.verdict import Verdict, worst
from harness.judge import causes, run_diff, shape_measured, side_by_side, size
from harness.judge.side_by_side import Differences

Key = tuple[str, str, str]
"""Scenario, creator, device: common to two cells that differ only in their loader."""
STILL = "(baseline)"
"""Replaces an expectation's id for cells that deviate on both sides without an expectation."""
_UNKNOWN = "(no baseline)"
_UNLIKE = "unlike under the baseline"
_SHOWN, _NOTES = 3, 12


def key_of(cell: Cell) -> Key:
    """What a cell has in common with the baseline's."""
    return cell.scenario, cell.creator, cell.place


def held(run: Run, before: Iterable[Cell], against: Against, observed: Mapping[str, str] = MappingProxyType({})) -> Run:
    """The change's run, compared with the baseline's cells.

    A cell that deviates on both sides counts as expected; one that regressed does not, even if an expectation covers
    it. Problems of expectations are dropped, since they are not the change's: what it fixed is reported as fixed.

    Args:
        observed: cell of either side → what it observed, packed.
    """
    old = {key_of(cell): cell for cell in before}
    seen = {cell.id: _differences(old.get(key_of(cell)), cell, observed) for cell in run.cells}
    cells = tuple(_with(cell, seen[cell.id], against) for cell in run.cells)
    comparisons = _traded(
        [found for cell in cells if (found := compared(old.get(key_of(cell)), cell, run.strict)) is not None]
    )
    change = {comparison.cell: comparison for comparison in comparisons}
    cells = tuple(_shown(cell, change.get(cell.id), against) for cell in cells)
    return finished(
        run.model_copy(
            update={
                "cells": cells,
                "baseline": against.baseline,
                "comparisons": comparisons,
                "against": against,
                "expectation_problems": (),
                "notes": (*run.notes, *_notes(run, old, observed), *_listed(seen)),
            }
        )
    )


def _traded(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons; where one adapter of a scenario is fixed and another regressed, the former says so."""
    worse: dict[str, list[str]] = {}
    for each in comparisons:
        if each.change == "regressed":
            scenario, creator = _adapter_of(each)
            worse.setdefault(scenario, []).append(creator)
    return tuple(_but(each, worse.get(_adapter_of(each)[0], ())) for each in comparisons)


def _but(comparison: Comparison, others: Sequence[str]) -> Comparison:
    if comparison.change != "fixed" or not others:
        return comparison
    why = f"but it regressed with the adapter of {enumerated(others, _SHOWN)}"
    return comparison.model_copy(update={"why": "; ".join(part for part in (comparison.why, why) if part)})


def _adapter_of(comparison: Comparison) -> tuple[str, str]:
    """A cell's scenario and creator."""
    scenario, _, rest = comparison.cell.partition("@")
    return scenario, rest.partition(":")[0]


# -- what the two sides observed ---------------------------------------------------------------------------------------


def _differences(before: Cell | None, now: Cell, observed: Mapping[str, str]) -> Differences:
    """What differs between the observations of the two sides; nothing where one of them has none.

    Findings are the change's fault. What may be a fix, or follow from a deviation that is known, is listed.
    """
    sides = [observed.get(cell.id, "") for cell in (before, now) if cell is not None]
    if before is None or len(sides) < 2 or not all(sides) or sides[0] == sides[1]:
        return Differences()
    found = side_by_side.compare(*map(observation.unpacked, sides))
    every = (*found.values, *found.facts)
    standings = [run_diff.standing(cell, strict=False) for cell in (before, now)]
    if standings == ["sound", "deviates"]:
        every = ()  # the golden says what broke
    listed = (
        every if _is_better(before, now) else [each for each in found.values if _is_known(each, before, now, found)]
    )
    return Differences(
        facts=tuple(each for each in every if each not in listed),
        listed=(*found.listed, *(f"{each.probe}: {causes.phrase(each)}" for each in listed)),
    )


def _is_better(before: Cell, now: Cell) -> bool:
    """True if something that was wrong under the baseline is right or nearer: then a difference may be the fix."""
    left = {_signature(finding) for finding in now.findings}
    gone = [each for each in before.findings if each.verdict.is_deviation and _signature(each) not in left]
    return bool(gone or _nearer(before, now))


def _is_known(finding: Finding, before: Cell, now: Cell, found: Differences) -> bool:
    """True if values differ where both sides deviate from the golden already, or follow from outputs that do."""
    if not (before.verdict.is_deviation and now.verdict.is_deviation):
        return False
    moved = {each.probe for each in found.values}
    return bool(moved & {*side_by_side.OUTPUTS}) or all(_is_wrong(cell, finding.probe) for cell in (before, now))


def _is_wrong(cell: Cell, probe: str) -> bool:
    return probe in cell.probes and cell.probes[probe].verdict.is_deviation


def _with(now: Cell, found: Differences, against: Against) -> Cell:
    """The cell with what differs from the baseline's."""
    notes = tuple(f"{_UNLIKE}: {text}" for text in found.listed)
    if not found.facts:
        return now.model_copy(update={"notes": (*now.notes, *notes)})
    probes = dict(now.probes)
    for each in found.facts:
        if each.probe in probes:
            verdict = worst([each.verdict, probes[each.probe].verdict])
            probes[each.probe] = probes[each.probe].model_copy(update={"verdict": verdict})
    words = ["peft-regress", "check", "--against", against.spec, "--cell", now.id]
    if against.baseline_loader not in ("", "current"):
        words += ["--baseline", against.baseline_loader]
    cell = now.model_copy(
        update={
            "findings": tuple(sorted((*now.findings, *found.facts), key=lambda each: each.verdict.severity)),
            "verdict": worst([*([now.verdict] if now.verdict.is_judged else []), *(e.verdict for e in found.facts)]),
            "probes": probes,
            "notes": (*now.notes, *notes),
            "reproduce": now.reproduce if now.verdict.is_deviation else shlex.join(words),
        }
    )
    return cell.model_copy(update={"worst_ratio": size.ratio(cell)})


def _listed(seen: Mapping[str, Differences]) -> list[str]:
    """What the sides observe differently and that is nobody's fault, with the cells that it is in."""
    cells: dict[str, list[str]] = {}
    for cell, found in seen.items():
        for text in found.listed:
            cells.setdefault(text, []).append(cell)
    notes = [f"{_UNLIKE}: {text} ({enumerated(where, 1)})" for text, where in cells.items()]
    more = len(notes) - _NOTES
    return [*notes[:_NOTES], *([f"{more:,} more such differences (see the cells' notes)"] if more > 0 else [])]


def compared(before: Cell | None, now: Cell, strict: bool) -> Comparison | None:
    """How one cell changed; None if it is sound on both sides in every probe, or undetermined on both."""
    found = _compared(before, now, strict)
    unjudged = _no_longer_judged(before, now) if before is not None and now.verdict.is_judged else ()
    if not unjudged:
        return found
    if found is not None:
        return found.model_copy(update={"unjudged": unjudged})
    why = f"{', '.join(unjudged)}: judged under the baseline, but not comparable under the change"
    assert before is not None
    return Comparison(cell=now.id, change="gone", before=before.verdict, now=now.verdict, why=why, unjudged=unjudged)


def _no_longer_judged(before: Cell, now: Cell) -> tuple[str, ...]:
    """The probes that ran on both sides, and have a verdict under the baseline alone."""
    return tuple(
        name
        for name, probe in now.probes.items()
        if probe.verdict is Verdict.NOT_COMPARABLE
        and probe.outcome == "ok"
        and name in before.probes
        and before.probes[name].outcome == "ok"
        and before.probes[name].verdict.is_judged
    )


def _compared(before: Cell | None, now: Cell, strict: bool) -> Comparison | None:
    sides = (run_diff.standing(before, strict), run_diff.standing(now, strict))
    said = partial(Comparison, cell=now.id, before=before.verdict if before else None, now=now.verdict)
    match sides:
        case "sound", "deviates":
            return said(change="regressed", why=_seen_only_by_side(now))
        case "deviates", "sound":
            known = f"no longer shows the known break {before.expectation}" if before and before.expectation else ""
            return said(change="fixed", why=known)
        case "deviates", "deviates":
            assert before is not None
            worse = _worse(before, now)
            known = "; ".join(part for part in (now.expectation, _nearer(before, now)) if part)
            return said(change="regressed" if worse else "still", why=worse or known)
        case "unjudged", "deviates" if any(map(side_by_side.is_of, now.findings)):
            return said(change="regressed", why=_seen_only_by_side(now))
        case "unjudged", "sound" | "deviates":
            return said(change="new", why=before.reason if before else "")
        case "sound" | "deviates", "unjudged":
            return said(change="gone", why=now.reason)
        case _:
            return None


def _shown(cell: Cell, comparison: Comparison | None, against: Against) -> Cell:
    """The cell as the report shows it: red only if the change made it deviate."""
    if comparison is None or run_diff.standing(cell, strict=True) != "deviates":
        return cell
    none = {"expectation": "", "expectation_issue": "", "expectation_expires": "", "expectation_reason": ""}
    if comparison.change == "regressed":
        too = comparison.why and comparison.before is not None and comparison.before.is_deviation
        why = (f"it deviates on the baseline too; here {comparison.why}",) if too else ()
        covered = (f"expectation {cell.expectation} covers it here, but not on the baseline",) if cell.expected else ()
        return cell.model_copy(update={"expected": False, **none, "notes": (*cell.notes, *why, *covered)})
    if cell.expected:
        return cell
    said = {
        "still": (STILL, f"deviates the same way under {against.baseline}"),
        "new": (_UNKNOWN, f"deviates; its result under {against.baseline} is unknown"),
    }.get(comparison.change)
    if said is None:
        return cell
    return cell.model_copy(update={"expected": True, **none, "expectation": said[0], "expectation_reason": said[1]})


def _notes(run: Run, old: Mapping[Key, Cell], observed: Mapping[str, str]) -> list[str]:
    """Changes that are no deviation, as far as the verdicts show them."""
    pairs = [(old[key_of(cell)], cell) for cell in run.cells if key_of(cell) in old]
    moved = sum(b.verdict is Verdict.EXACT and n.verdict is Verdict.CLOSE for b, n in pairs)
    unseen = [(b, n) for b, n in pairs if not observed.get(b.id)]
    warned = [n for b, n in unseen if n.new_warnings and set(n.new_warnings) - set(b.new_warnings)]
    notes = [f"{moved} cells that were exact are now close"] * bool(moved)
    if warned:
        first = next(text for text in warned[0].new_warnings)
        notes.append(f"{len(warned)} cells have new warnings, for example {warned[0].id}: {first}")
    if observed and unseen and len(unseen) == len(pairs):
        notes.append(
            "only findings were compared: the baseline is an earlier run, which does not keep what it observed"
        )
    return notes


def _worse(before: Cell, now: Cell) -> str:
    """How a cell that deviated before is worse now; empty if it is not."""
    if now.verdict.severity < before.verdict.severity:
        return f"{before.verdict} became {now.verdict}"
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


def _seen_only_by_side(now: Cell) -> str:
    """What differs from the baseline in a cell that agrees with the golden; empty if it does not."""
    deviating = [each for each in now.findings if each.verdict.is_deviation]
    if not all(map(side_by_side.is_of, deviating)) or not deviating:
        return ""
    return f"{deviating[0].probe}: {deviating[0].message}"


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


def _nearer(before: Cell, now: Cell) -> str:
    """In a cell that still deviates, the array that is nearer to the golden than before: the change affects it."""
    every = ((was, each) for was, each in _same_arrays(before, now) if _further(was, each))
    return next((f"nearer: {each.array} off {_apart(was, each)}" for was, each in every), "")


def _same_arrays(before: Cell, now: Cell) -> Iterable[tuple[Figures, Figures]]:
    """The figures of each array that both cells have figures of."""
    old = {each.array: each for each in _figures(before)}
    return ((old[each.array], each) for each in _figures(now) if each.array in old)


def _apart(was: Figures, now: Figures) -> str:
    if not now.is_size:
        return f"in {now.differing} elements, before in {was.differing}"
    return f"by {now.max_abs:.3g}, before by {was.max_abs:.3g}"


def _figures(cell: Cell) -> Sequence[Figures]:
    probes = {finding.probe for finding in cell.findings if finding.verdict.is_deviation}
    found = [figures for name in cell.probes if name in probes for figures in cell.probes[name].figures]
    return [*found, *(finding.figures for finding in cell.findings if finding.figures)]


def _further(now: Figures, was: Figures) -> bool:
    if not now.is_size:
        return now.differing > was.differing
    if not math.isfinite(now.max_abs):
        return math.isfinite(was.max_abs)
    return now.max_abs > was.max_abs + now.allowance
