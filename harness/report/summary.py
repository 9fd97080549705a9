"""Short texts on a run's changes, causes and cells.

Pure. Nothing here is escaped: renderers do that with `harness.core.text`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from harness.core.comparison import Comparison
from harness.core.run import Cell, Run
from harness.core.text import listed, many, one_line, seconds, times
from harness.core.verdict import Verdict
from harness.judge.causes import Cause, Releases

CHANGES: dict[str, str] = {
    "regressed": "fails now, and passed (or failed less badly) in the baseline",
    "new": "has a result now, and none in the baseline",
    "gone": "has a result in the baseline, and none now",
    "fixed": "failed in the baseline, and passes now",
    "still": "fails as it did in the baseline",
}
"""What each change against a baseline means, in the order in which changes are shown."""


def by_verdict(cells: Iterable[Cell]) -> str:
    """`41 exact, 19 close`, the most frequent first; the verdict alone if there is only one."""
    found = Counter(cell.verdict for cell in cells)
    if len(found) == 1:
        return str(next(iter(found)))
    ranked = sorted(
        found.items(), key=lambda item: (-item[1], item[0].severity if item[0].is_deviation else -item[0].severity)
    )
    return ", ".join(f"{count:,} {verdict}" for verdict, count in ranked)


def changes(run: Run) -> dict[str, tuple[Comparison, ...]]:
    """What changed against the baseline: by change in the order of `CHANGES`, worst verdict first."""
    found = {change: [c for c in run.comparisons if c.change == change] for change in CHANGES}
    return {change: tuple(sorted(every, key=_weight)) for change, every in found.items() if every}


def _weight(comparison: Comparison) -> tuple[int, str]:
    verdict = comparison.now or comparison.before
    return (verdict.severity if verdict else 0, comparison.cell)


def change_rows(run: Run) -> dict[str, list[tuple[str, str]]]:
    """By change: the two verdicts with a remark, and the cell.

    The remark says that a known break covers the cell or, in a PR check, why the cell is worse.
    """
    covered = {cell.id for cell in run.cells if cell.expected} if run.against is None else set()
    return {
        change: [(arrow(each) + _remarked(each, each.cell in covered), each.cell) for each in every]
        for change, every in changes(run).items()
    }


def _remarked(comparison: Comparison, covered: bool) -> str:
    said = "known break" if covered else comparison.why
    return f" ({one_line(said, 200)})" if said else ""


def arrow(comparison: Comparison) -> str:
    """`exact → silent-wrong`; a dash for a side without a result."""
    if comparison.change == "still" and comparison.before == comparison.now:
        return str(comparison.now)
    return f"{comparison.before or '–'} → {comparison.now or '–'}"


def reach(cause: Cause) -> str:
    """Where a cause shows: `creators 0.6.1–0.13.2, loader 0.21.2, 2 scenarios: lokr-alpha, lokr-both`."""
    names = cause.scenarios
    more = f", … {len(names) - 6:,} more" if len(names) > 6 else ""
    where = f"{many(len(names), 'scenario')}: {', '.join(names[:6])}{more}"
    return f"{_releases('creator', cause.creators)}, {_releases('loader', cause.loaders)}, {where}"


def _releases(word: str, releases: Releases) -> str:
    return f"{word}{'s' * (len(releases.bad) > 1)} {releases.ranges}"


def since(cause: Cause) -> str:
    """The first bad creator and loader in release order; empty if there is only one of each."""
    if len(cause.creators.bad) < 2 and len(cause.loaders.bad) < 2:
        return ""
    return f"first bad creator {cause.creators.first}, first bad loader {cause.loaders.first}"


def others(cause: Cause) -> tuple[tuple[Cell, str], ...]:
    """The cells that share the cause with its representative, each with its error as a multiple of the allowance."""
    return tuple((cell, size(cell)) for cell in cause.cells[1:])


def size(cell: Cell) -> str:
    """How bad a cell is in one figure: error ÷ allowance; empty if that has no size (an error, tokens)."""
    return times(cell.worst_ratio) if cell.worst_ratio is not None else ""


def remark(cell: Cell) -> str:
    """Why a cell has its verdict, unless another section says so in full."""
    if cell.expected:
        return f"known break: {cell.expectation}"
    if cell.verdict.is_deviation:
        return ""
    if cell.verdict is Verdict.WARNED and cell.new_warnings:
        return cell.new_warnings[0]
    return cell.reason or "".join(f"fixed: {text}" for text in cell.fixed[:1] if cell.creators_own)


def lasts(cell: Cell) -> str:
    """How long a known break counts: `until 2027-06-30`, or `permanent`; empty if nobody recorded it as known."""
    if not cell.expectation_issue:
        return ""
    return f"until {cell.expectation_expires}" if cell.expectation_expires else "permanent"


def reference(cell: Cell) -> str:
    """The issue of a known break and how long it counts: `ISSUE, until 2027-06-30`."""
    return ", ".join(part for part in (cell.expectation_issue, lasts(cell)) if part)


def headline(run: Run) -> str:
    """One line about the run: cells, creators, loaders, devices, duration."""
    creators, loaders = len({c.creator for c in run.cells}), len({c.loader for c in run.cells})
    devices = listed(dict.fromkeys(cell.place for cell in run.cells)) or "no device"
    what = f"{many(len(run.cells), 'cell')}, {many(creators, 'creator')}, {many(loaders, 'loader')}"
    return f"{run.title or run.id}: {what}, {devices}{f', {seconds(run.duration_s)}' if run.duration_s else ''}"
