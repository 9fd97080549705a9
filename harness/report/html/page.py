"""What the HTML page says, as data: the sentence, the filters, where the run comes from, the sections. Pure.

Nothing is escaped here: the template's environment escapes every value (`harness.report.html.render`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.core.errors import ExitCode
from harness.core.run import Cell, EnvironmentReport, ExpectationProblem, Run, exit_code_of
from harness.core.text import clip, many, seconds
from harness.core.verdict import Verdict
from harness.core.versions import package_order
from harness.judge import causes
from harness.judge.causes import Cause
from harness.report import cell_facts, change_summary, grid, structure_history, summary
from harness.report.cell_facts import Fact
from harness.report.grid import Grid
from harness.report.html import heat_map
from harness.report.html.heat_map import HeatMap

LISTED = 60
"""Cells that a cause lists in the markup; the rest is counted, and found on the map."""
TABLED = 400
"""Rows of the table of all cells; in a greater run it has only those that are not as they were."""

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
class CellLine:
    """A cell in a list."""

    index: int
    id: str
    verdict: Verdict
    size: str
    remark: str


@dataclass(frozen=True)
class CauseBlock:
    """A cause, with one cell of it in full."""

    number: int
    title: str
    verdict: Verdict
    reach: str
    since: str
    count: int
    size: str
    index: int
    """Of the representative in the run."""
    id: str
    facts: tuple[Fact, ...]
    cells: tuple[CellLine, ...]
    more: int
    """Cells that are not listed."""
    issue: str = ""
    expires: str = ""
    name: str = ""


@dataclass(frozen=True)
class Change:
    """A kind of change against the baseline."""

    name: str
    meaning: str
    rows: tuple[tuple[str, str, int | None], ...]
    """The two verdicts, the cell's id, its place in the run where it has one."""
    more: int


@dataclass(frozen=True)
class Provenance:
    """Where the run comes from."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    differing: tuple[tuple[str, tuple[str, ...]], ...]
    """Package → its version in each environment; those that are not the same everywhere."""
    same: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    failed: tuple[tuple[str, str], ...]
    fixtures: str
    devices: str


@dataclass(frozen=True)
class Coverage:
    """What was not compared, and why."""

    unsupported: tuple[CauseBlock, ...]
    left_out: tuple[tuple[str, tuple[str, ...], int], ...]
    """Reason, the first names, how many."""
    not_run: tuple[str, ...]
    not_run_count: int
    standing: tuple[tuple[str, int, str], ...]
    """A defect that the creator has too, in how many cells, one of them."""


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    word: str
    tone: str
    sentence: str
    title: str
    about: tuple[tuple[str, str], ...]
    """What was held against what, where a change was."""
    run: Run
    took: str
    chips: tuple[Chip, ...]
    map: HeatMap
    grid: Grid | None
    grid_legend: str
    provenance: Provenance
    causes: tuple[CauseBlock, ...]
    history: structure_history.History | None
    untold: tuple[CauseBlock, ...]
    expected: tuple[CauseBlock, ...]
    problems: tuple[ExpectationProblem, ...]
    coverage: Coverage
    changes: tuple[Change, ...]
    cells: tuple[CellLine, ...]
    cells_left: int
    legend: tuple[tuple[Verdict, str], ...]


def build(run: Run) -> Page:
    """All that the page says of a run."""
    said, places = summary.sentence(run), {cell.id: place for place, cell in enumerate(run.cells)}
    unexpected, expected = causes.unexpected(run), causes.expected(run)
    cells = _table(run)
    return Page(
        word=said.word,
        tone=_TONES[exit_code_of(run)],
        sentence=said.text,
        title=run.title or run.id,
        about=tuple(change_summary.about(run.against)) if run.against else (),
        run=run,
        took=seconds(run.duration_s) if run.duration_s else "",
        chips=chips(run),
        map=heat_map.build(run),
        grid=grid.build(run),
        grid_legend=grid.LEGEND,
        provenance=provenance(run),
        causes=_blocks(unexpected, places),
        history=structure_history.history(run),
        expected=_blocks(expected, places, len(unexpected)),
        untold=_blocks(causes.untold(run), places),
        problems=run.expectation_problems,
        coverage=coverage(run, places),
        changes=changes(run, places),
        cells=cells,
        cells_left=len(run.cells) - len(cells),
        legend=tuple((verdict, verdict.meaning) for verdict in Verdict if str(verdict) in run.counts),
    )


def https(address: str) -> str:
    """The address, where it is an `https` one; else nothing, so that there is no link."""
    return address if re.fullmatch(r"https://[A-Za-z0-9._~:/?#@!$&'*+,;=%-]+", address) else ""


# The top -------------------------------------------------------------------------------------------------------------


def chips(run: Run) -> tuple[Chip, ...]:
    """Counts by verdict, worst first; then the changes against the baseline and what is expected."""
    counts = Counter(cell.verdict for cell in run.cells)
    found = [Chip(str(v), f"verdict:{v}", counts[v], v.meaning, v) for v in Verdict if counts[v]]
    expected = sum(cell.expected for cell in run.cells)
    if expected:
        found.append(Chip("expected", "is:expected", expected, "a deviation that an expectation covers"))
    there = {cell.id for cell in run.cells}
    changed = Counter(comparison.change for comparison in run.comparisons if comparison.cell in there)
    found += [Chip(name, f"change:{name}", count, summary.CHANGES[name]) for name, count in changed.items()]
    return tuple(found)


def provenance(run: Run) -> Provenance:
    """The environments side by side, in release order: creators, then loaders."""
    every = _ordered(run)
    packages = {e.name: e.versions | ({"python": e.python} if e.python else {}) for e in every}
    names = sorted({name for known in packages.values() for name in known}, key=package_order)
    table = [(name, tuple(packages[e.name].get(name, "–") for e in every)) for name in names]
    known = [place for place, e in enumerate(every) if packages[e.name]]
    alike = {name for name, row in table if len({row[place] for place in known}) == 1}
    return Provenance(
        names=tuple(e.name for e in every),
        labels=tuple(_role(e) for e in every),
        differing=tuple((name, row) for name, row in table if name not in alike),
        same=tuple((name, row[known[0]]) for name, row in table if name in alike),
        facts=_facts(every),
        failed=tuple((e.name, e.failed) for e in every if e.failed),
        fixtures=fixtures(run),
        devices=", ".join(dict.fromkeys(cell.place for cell in run.cells)) or "none",
    )


def _ordered(run: Run) -> list[EnvironmentReport]:
    order = {name: place for place, name in enumerate([*heat_map.creator_labels(run), *heat_map.loader_labels(run)])}
    return sorted(run.environments, key=lambda e: order.get(e.name, len(order)))


def _role(environment: EnvironmentReport) -> str:
    return " and ".join(environment.role) or environment.kind


def _facts(every: Sequence[EnvironmentReport]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Where each environment ran; a line that says nothing of any is left out."""
    lines = {
        "spec": [e.spec if e.spec != e.name else "" for e in every],
        "kind": [e.kind for e in every],
        "lock": [e.lock_digest[:12] for e in every],
        "platform": [str(e.facts.get("platform", "")) for e in every],
        "processor": [str(e.facts.get("cpu", "")) for e in every],
        "device": [_device(e) for e in every],
        "threads": [str(e.facts.get("threads", "")) for e in every],
    }
    return tuple((name, tuple(values)) for name, values in lines.items() if any(values))


def _device(environment: EnvironmentReport) -> str:
    cuda, gpu = environment.facts.get("cuda"), environment.facts.get("gpu")
    name = gpu.get("name", "") if isinstance(gpu, dict) else gpu
    return str(environment.facts.get("device") or name or ("cuda" if cuda else ""))


def fixtures(run: Run) -> str:
    """What is known of the fixtures: how many were read and intact, where they come from, how many were bad."""
    origins = Counter(cell.fixture_origin for cell in {c.fixture: c for c in run.cells if c.fixture}.values())
    total = origins.total()
    where = ", ".join(f"{origins[name]:,} {name}" for name in ("committed", "created") if origins[name])
    parts = [f"{many(total, 'checkpoint')} read, digests intact" + (f" ({where})" if where else "")] if total else []
    shared = sum(bool(cell.same_as) for cell in run.cells)
    parts += (
        [f"{many(shared, 'cell')} judged on the replay of another fixture that the loader reads alike"]
        if shared
        else []
    )
    for verdict, word in ((Verdict.BAD_FIXTURE, "damaged"), (Verdict.NO_FIXTURE, "missing")):
        count = sum(cell.verdict is verdict for cell in run.cells)
        parts += [f"{count:,} {word}"] if count else []
    return "; ".join(parts) or "none was read"


# The sections --------------------------------------------------------------------------------------------------------


def _blocks(found: Iterable[Cause], places: dict[str, int], before: int = 0) -> tuple[CauseBlock, ...]:
    return tuple(_block(before + place + 1, cause, places) for place, cause in enumerate(found))


def _block(number: int, cause: Cause, places: dict[str, int]) -> CauseBlock:
    cell, known = cause.representative, cause.details
    return CauseBlock(
        number=number,
        title=clip(cause.title.split("\n", 1)[0], 400),
        verdict=cause.verdict,
        reach=summary.reach(cause, 4),
        since=summary.since(cause),
        count=len(cause.cells),
        size=summary.size(cell),
        index=places[cell.id],
        id=cell.id,
        facts=cell_facts.facts(cell),
        cells=tuple(_line(places[each.id], each) for each in cause.cells[:LISTED]),
        more=max(0, len(cause.cells) - LISTED),
        issue=known.get("issue", ""),
        expires=known.get("expires", ""),
        name=known.get("id", ""),
    )


def _line(place: int, cell: Cell) -> CellLine:
    return CellLine(place, cell.id, cell.verdict, summary.size(cell), clip(summary.remark(cell).split("\n", 1)[0], 160))


def _table(run: Run) -> tuple[CellLine, ...]:
    """All cells of a small run; of a great one as many of those that are not as they were as there is room for."""
    lines = [_line(place, cell) for place, cell in enumerate(run.cells)]
    if len(lines) > TABLED:
        dull = (Verdict.EXACT, Verdict.CLOSE, Verdict.UNSUPPORTED)
        lines = sorted((line for line in lines if line.verdict not in dull), key=lambda line: line.verdict.severity)
    return tuple(lines[:TABLED])


def coverage(run: Run, places: dict[str, int]) -> Coverage:
    """What was not compared, each with its reason; and the defects that are not counted against a loader."""
    reasons: dict[str, list[str]] = {}
    for name, reason in run.left_out.items():
        reasons.setdefault(reason, []).append(name)
    defects: dict[str, list[str]] = {}
    for cell, defect in summary.standing(run):
        defects.setdefault(defect, []).append(cell.id)
    not_run = run.not_run
    return Coverage(
        unsupported=_blocks(causes.unsupported(run), places),
        left_out=tuple((reason, tuple(names[:LISTED]), len(names)) for reason, names in reasons.items()),
        not_run=not_run[:LISTED],
        not_run_count=len(not_run),
        standing=tuple((defect, len(cells), cells[0]) for defect, cells in defects.items()),
    )


def changes(run: Run, places: dict[str, int]) -> tuple[Change, ...]:
    """What changed against the baseline, regressions first."""
    found = []
    for name, rows in summary.change_rows(run).items():
        shown = tuple((said, cell, places.get(cell)) for said, cell in rows[:TABLED])
        found.append(Change(name, summary.CHANGES[name], shown, max(0, len(rows) - TABLED)))
    return tuple(found)
