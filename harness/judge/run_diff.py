"""Compares two runs: what regressed, what was fixed, what is new. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from harness.core.comparison import Change, Comparison
from harness.core.run import Cell, Run
from harness.core.verdict import Verdict
from harness.judge import shape_measured

Standing = Literal["sound", "deviates", "unjudged"]
Key = tuple[str, ...]


def compare(before: Run, now: Run) -> tuple[Comparison, ...]:
    """How each cell changed, in the order of the later run; cells that are sound in both are left out.

    Known breaks do not count: a cell that newly deviates has `regressed` even if a break was added for it in between.
    So has a cell whose verdict is worse than before, or that deviates in another way or by more
    (`harness.judge.shape`). A cell that can no longer be judged is `gone`, not `regressed`.
    """
    key = _key(before, now)
    old, new = {key(cell): cell for cell in before.cells}, {key(cell): cell for cell in now.cells}
    found = [_compared(old.get(name), new.get(name), now.strict) for name in {**new, **old}]
    return tuple(comparison for comparison in found if comparison is not None)


def have_common(before: Run, now: Run) -> bool:
    """True if both runs judged some cell, so that anything was compared."""
    key = _key(before, now)
    judged = ({key(cell) for cell in run.cells if cell.verdict.is_judged} for run in (before, now))
    return not set.isdisjoint(*judged)


def against(now: Run, before: Run) -> Run:
    """The later run with what changed since the earlier one."""
    return now.model_copy(update={"baseline": before.id, "comparisons": compare(before, now)})


def _key(before: Run, now: Run) -> Callable[[Cell], Key]:
    """What identifies a cell in both runs: its id.

    If each run has one loader and they share no cell, two loaders are compared: then the id without the loader.
    """
    shared = {cell.id for cell in before.cells} & {cell.id for cell in now.cells}
    single = all(len({cell.loader for cell in run.cells}) == 1 for run in (before, now))
    if single and not shared:
        return lambda cell: (cell.scenario, cell.creator, cell.place)
    return lambda cell: (cell.id,)


def _compared(before: Cell | None, now: Cell | None, strict: bool) -> Comparison | None:
    sides = (standing(before, strict), standing(now, strict))
    cell = now or before
    worse = _worse(before, now) if before and now and sides == ("deviates", "deviates") else None
    change = _change(*sides, worse is not None)
    if change is None or cell is None:
        return None
    return Comparison(cell=cell.id, change=change, before=_verdict(before), now=_verdict(now), why=worse or "")


def _worse(before: Cell, now: Cell) -> str | None:
    """Why a cell that deviated is worse now; empty if the verdicts say it, None if it is not worse."""
    if now.verdict is not before.verdict:
        return "" if now.verdict.severity < before.verdict.severity else None
    if now.expected and now.expectation == before.expectation:
        return None  # both are as known, though what is random may differ
    return "; ".join(shape_measured.worse(before, now)) or None


def _verdict(cell: Cell | None) -> Verdict | None:
    return cell.verdict if cell else None


def standing(cell: Cell | None, strict: bool) -> Standing:
    """A cell's verdict, reduced to what comparing it with another needs."""
    if cell is None or not cell.verdict.is_judged:
        return "unjudged"
    return "deviates" if cell.verdict.is_deviation or (strict and cell.verdict is Verdict.WARNED) else "sound"


def _change(old: Standing, new: Standing, worse: bool) -> Change | None:
    """The change between two standings. The cases are the policy."""
    match old, new:
        case "sound", "deviates":
            return "regressed"
        case "deviates", "sound":
            return "fixed"
        case "deviates", "deviates":
            return "regressed" if worse else "still"
        case "unjudged", "sound" | "deviates":
            return "new"
        case "sound" | "deviates", "unjudged":
            return "gone"
        case _:
            return None
