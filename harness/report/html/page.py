"""What the HTML page shows besides the view: its filters, its map and its legend, as data. Pure.

Nothing is escaped here: the template's environment escapes every value (`harness.report.html.render`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.core.errors import ExitCode
from harness.core.run import Run
from harness.core.text import is_https
from harness.core.verdict import Verdict
from harness.report import summary, view
from harness.report.grid import Grid
from harness.report.html import heat_map
from harness.report.html.heat_map import HeatMap
from harness.report.provenance import Environments
from harness.report.view import Causes, Cells, Line, Section, View

LISTED = 60
"""How many names or cells a list in the markup has. The rest is counted; cells are on the map."""
TABLED = 400
"""How many rows a table of cells has. In a larger run it holds only the cells that changed."""

_TONES = {
    ExitCode.CLEAN: "good",
    ExitCode.REGRESSED: "bad",
    ExitCode.CANNOT_TELL: "unknown",
    ExitCode.INTERRUPTED: "unknown",
}


@dataclass(frozen=True)
class Chip:
    """A count that filters."""

    label: str
    query: str
    count: int
    meaning: str
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Page:
    """All that the template shows. It draws the environments in its header and the grid above its map."""

    view: View
    run: Run
    tone: str
    chips: tuple[Chip, ...]
    map: HeatMap
    legend: tuple[Verdict, ...]
    causes: Causes | None
    grid: Grid | None
    environments: Environments | None
    sections: tuple[Section, ...]
    """The others, in the view's order."""
    listed: int = LISTED
    tabled: int = TABLED


def build(run: Run) -> Page:
    """The page of a run."""
    report = view.build(run)
    drawn = {section.id: section for section in report.sections}
    environments, grid, causes = drawn.get(Environments.id), drawn.get(Grid.id), drawn.get(Causes.id)
    return Page(
        view=report,
        run=run,
        tone=_TONES[report.code],
        chips=chips(run),
        map=heat_map.build(run),
        legend=tuple(verdict for verdict in Verdict if str(verdict) in run.counts),
        causes=causes if isinstance(causes, Causes) else None,
        grid=grid if isinstance(grid, Grid) else None,
        environments=environments if isinstance(environments, Environments) else None,
        sections=tuple(each for each in report.sections if not isinstance(each, Environments | Grid)),
    )


def https(address: str) -> str:
    """The address if it is an `https` one, else nothing: then there is no link."""
    return address if is_https(address) else ""


def chips(run: Run) -> tuple[Chip, ...]:
    """Counts by verdict, worst first; then known breaks, and the changes against the baseline."""
    counts = Counter(cell.verdict for cell in run.cells)
    found = [Chip(str(v), f"verdict:{v}", counts[v], v.meaning, v) for v in Verdict if counts[v]]
    known = sum(cell.expected for cell in run.cells)
    if known:
        found.append(Chip("known", "is:known", known, "a break that is known and reviewed"))
    there = {cell.id for cell in run.cells}
    changed = Counter(comparison.change for comparison in run.comparisons if comparison.cell in there)
    found += [Chip(name, f"change:{name}", count, summary.CHANGES[name]) for name, count in changed.items()]
    return tuple(found)


def tabled(cells: Cells) -> tuple[Line, ...]:
    """All cells of a small run; of a larger one those that changed, worst first, as many as there is room for."""
    lines = cells.lines
    if len(lines) > TABLED:
        dull = (Verdict.EXACT, Verdict.CLOSE, Verdict.REFUSED, Verdict.UNSUPPORTED)
        changed = (line for line in lines if line.verdict not in dull)
        lines = tuple(sorted(changed, key=lambda line: line.verdict.severity))
    return lines[:TABLED]
