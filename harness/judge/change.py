"""Compares a change's cells with the baseline's, so that only what the change broke is red. Pure.

The two sides differ in one package, and a replay repeats to the bit. So more than verdicts can be compared: a cell that
was wrong before, and is now wrong for another reason or by more, has regressed too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from harness.core.comparison import Against, Comparison
from harness.core.run import Cell, Run, finished
from harness.core.text import enumerated
from harness.core.verdict import Verdict
from harness.judge import run_diff, side_by_side, unlike, worse

Key = tuple[str, str, str]
"""Scenario, creator, device: common to two cells that differ only in their loader."""
STILL = "(baseline)"
"""Replaces an expectation's id for cells that deviate on both sides without an expectation."""
_UNKNOWN = "(no baseline)"
_SHOWN = 3


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
    seen = {cell.id: unlike.differences(old.get(key_of(cell)), cell, observed) for cell in run.cells}
    cells = tuple(unlike.with_differences(cell, seen[cell.id], against) for cell in run.cells)
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
                "notes": (*run.notes, *_notes(run, old, observed), *unlike.listed(seen)),
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
            return said(change="regressed", why=unlike.seen_only_here(now))
        case "deviates", "sound":
            known = f"no longer shows the known break {before.expectation}" if before and before.expectation else ""
            return said(change="fixed", why=known)
        case "deviates", "deviates":
            assert before is not None
            how = worse.worse(before, now)
            known = "; ".join(part for part in (now.expectation, worse.nearer(before, now)) if part)
            return said(change="regressed" if how else "still", why=how or known)
        case "unjudged", "deviates" if any(map(side_by_side.is_of, now.findings)):
            return said(change="regressed", why=unlike.seen_only_here(now))
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
