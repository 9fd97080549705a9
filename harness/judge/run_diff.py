"""Compares two runs: what regressed, what was fixed, what is new. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from harness.core.comparison import Change, Comparison
from harness.core.run import Cell, Run
from harness.core.verdict import Verdict

Standing = Literal["sound", "deviates", "unjudged"]
Key = tuple[str, ...]


def compare(before: Run, now: Run) -> tuple[Comparison, ...]:
    """How each cell changed, in the order of the later run; cells that are sound in both are left out.

    Only verdicts are compared, with or without expectations: a cell that newly deviates has `regressed` even if an
    expectation was added for it in between. So has a cell whose verdict is worse than before. A cell that can no longer
    be judged is `gone`, not `regressed`.
    """
    key = _key(before, now)
    old, new = {key(cell): cell for cell in before.cells}, {key(cell): cell for cell in now.cells}
    found = [_compared(old.get(name), new.get(name), now.strict) for name in {**new, **old}]
    return tuple(comparison for comparison in found if comparison is not None)


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
    change = _change(standing(before, strict), standing(now, strict), before, now)
    cell = now or before
    if change is None or cell is None:
        return None
    return Comparison(cell=cell.id, change=change, before=_verdict(before), now=_verdict(now))


def _verdict(cell: Cell | None) -> Verdict | None:
    return cell.verdict if cell else None


def standing(cell: Cell | None, strict: bool) -> Standing:
    """A cell's verdict, reduced to what comparing it with another needs."""
    if cell is None or not cell.verdict.is_judged:
        return "unjudged"
    return "deviates" if cell.verdict.is_deviation or (strict and cell.verdict is Verdict.WARNED) else "sound"


def _change(old: Standing, new: Standing, before: Cell | None, now: Cell | None) -> Change | None:
    """The change between two standings. The cases are the policy."""
    match old, new:
        case "sound", "deviates":
            return "regressed"
        case "deviates", "sound":
            return "fixed"
        case "deviates", "deviates":
            worse = before is not None and now is not None and now.verdict.severity < before.verdict.severity
            return "regressed" if worse else "still"
        case "unjudged", "sound" | "deviates":
            return "new"
        case "sound" | "deviates", "unjudged":
            return "gone"
        case _:
            return None
