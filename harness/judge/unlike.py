"""What of the differences between the two sides of a PR check is the change's fault, and what is listed (pure)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from harness.core import observation
from harness.core.comparison import Against
from harness.core.run import Cell, Finding
from harness.core.text import enumerated
from harness.core.verdict import worst
from harness.judge import causes, run_diff, side_by_side, size, worse
from harness.judge.side_by_side import Differences

UNLIKE = "unlike under the baseline"
_NOTES = 12


def differences(before: Cell | None, now: Cell, observed: Mapping[str, str]) -> Differences:
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
    noted = every if _is_better(before, now) else [each for each in found.values if _is_known(each, before, now, found)]
    return Differences(
        facts=tuple(each for each in every if each not in noted),
        listed=(*found.listed, *(f"{each.probe}: {causes.phrase(each)}" for each in noted)),
    )


def _is_better(before: Cell, now: Cell) -> bool:
    """True if something that was wrong under the baseline is right or nearer: then a difference may be the fix."""
    left = {worse.signature(finding) for finding in now.findings}
    gone = [each for each in before.findings if each.verdict.is_deviation and worse.signature(each) not in left]
    return bool(gone or worse.nearer(before, now))


def _is_known(finding: Finding, before: Cell, now: Cell, found: Differences) -> bool:
    """True if values differ where both sides deviate from the golden already, or follow from outputs that do."""
    if not (before.verdict.is_deviation and now.verdict.is_deviation):
        return False
    moved = {each.probe for each in found.values}
    return bool(moved & {*side_by_side.OUTPUTS}) or all(_is_wrong(cell, finding.probe) for cell in (before, now))


def _is_wrong(cell: Cell, probe: str) -> bool:
    return probe in cell.probes and cell.probes[probe].verdict.is_deviation


def with_differences(now: Cell, found: Differences, against: Against) -> Cell:
    """The cell with what differs from the baseline's."""
    notes = tuple(f"{UNLIKE}: {text}" for text in found.listed)
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


def listed(seen: Mapping[str, Differences]) -> list[str]:
    """What the sides observe differently and that is nobody's fault, with the cells that it is in."""
    cells: dict[str, list[str]] = {}
    for cell, found in seen.items():
        for text in found.listed:
            cells.setdefault(text, []).append(cell)
    notes = [f"{UNLIKE}: {text} ({enumerated(where, 1)})" for text, where in cells.items()]
    more = len(notes) - _NOTES
    return [*notes[:_NOTES], *([f"{more:,} more such differences (see the cells' notes)"] if more > 0 else [])]


def seen_only_here(now: Cell) -> str:
    """What differs from the baseline in a cell that agrees with the golden; empty if it does not."""
    deviating = [each for each in now.findings if each.verdict.is_deviation]
    if not all(map(side_by_side.is_of, deviating)) or not deviating:
        return ""
    return f"{deviating[0].probe}: {deviating[0].message}"
