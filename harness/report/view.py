"""A report as data: all sections, assembled once, in one order. Pure.

Terminal, Markdown and HTML are thin renderers of this. A section holds its title and everything that a report can show
of it. Nothing here is escaped or shortened: a renderer escapes each text for its format and counts what it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from harness.core.errors import ExitCode
from harness.core.run import Cell, ExpectationProblem, Run, exit_code_of
from harness.core.text import many, seconds
from harness.core.verdict import Verdict
from harness.judge import causes
from harness.judge.causes import Cause
from harness.report import (
    cell_facts,
    change_summary,
    grid,
    provenance,
    sentence,
    structure_history,
    summary,
    written,
)  # fmt: skip
from harness.report.cell_facts import Fact
from harness.report.grid import Grid
from harness.report.provenance import Environments
from harness.report.structure_history import History
from harness.report.written import Written


@dataclass(frozen=True)
class Line:
    """A cell in a list."""

    index: int
    """Its place in the run."""
    id: str
    scenario: str
    creator: str
    loader: str
    place: str
    verdict: Verdict
    known: bool
    """A known break."""
    size: str
    """Error ÷ allowance."""
    remark: str
    reproduce: str


@dataclass(frozen=True)
class Group:
    """Cells with one cause or reason. The first cell represents them; `facts` describe it in full."""

    number: int
    """Counts breaks: first the unexpected, then the known ones."""
    title: str
    verdict: Verdict
    creators: str
    loaders: str
    scenarios: tuple[str, ...]
    reach: str
    since: str
    cells: tuple[Line, ...]
    facts: tuple[Fact, ...]
    name: str = ""
    """Of a known break: its id. The next four are also set for known breaks only."""
    issue: str = ""
    lasts: str = ""
    reference: str = ""
    about: tuple[Fact, ...] = ()
    """What is recorded of it: since when, how it was verified, a workaround, references."""

    @property
    def more(self) -> str:
        """The command that prints all of the first cell."""
        return cell_facts.more(self.cells[0].id)

    @property
    def size(self) -> str:
        """Error ÷ allowance of the worst cell."""
        return self.cells[0].size


@dataclass(frozen=True)
class Failures:
    """Environments that did not resolve, build or import, with the tool's last lines."""

    id: ClassVar[str] = "failures"
    environments: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Change:
    """One kind of change against the baseline."""

    name: str
    meaning: str
    rows: tuple[tuple[str, str, int | None], ...]
    """The two verdicts, the cell's id, and its place in the run if it has one."""


@dataclass(frozen=True)
class Changes:
    """What changed against the baseline, regressions first."""

    id: ClassVar[str] = "baseline"
    title: str
    kinds: tuple[Change, ...]


@dataclass(frozen=True)
class Causes:
    """The unexpected breaks by cause."""

    id: ClassVar[str] = "causes"
    note: ClassVar[str] = "one cell per cause in full"
    title: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Problems:
    """Entries for known breaks that no longer apply."""

    id: ClassVar[str] = "problems"
    title: str
    problems: tuple[ExpectationProblem, ...]


@dataclass(frozen=True)
class Undetermined:
    """Cells without a comparison: something has to be fixed first."""

    id: ClassVar[str] = "undetermined"
    note: ClassVar[str] = "nothing was compared: fix the reason first"
    title: str
    groups: tuple[Group, ...]
    not_run: tuple[str, ...]


@dataclass(frozen=True)
class KnownBreaks:
    """Breaks that are known and reviewed; in a PR check, what fails on the baseline too."""

    id: ClassVar[str] = "known"
    title: str
    note: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Aside:
    """What needs no action."""

    id: ClassVar[str] = "aside"
    unsupported: tuple[Group, ...]
    """Groups of cells that are refused or unsupported."""
    left_out: tuple[tuple[str, tuple[str, ...]], ...]
    """Reason → names of cells or scenarios."""
    standing: tuple[tuple[str, str], ...]
    """Cell and defect."""
    standing_note: ClassVar[str] = "the creator's own library has them too; they do not count against the loader"
    fixed: tuple[tuple[str, str], ...] = ()
    """Cell, and what the creator's own library gets wrong there."""
    fixed_note: ClassVar[str] = "the creator's own library gets this wrong, and the loader gets it right"

    @property
    def title(self) -> str:
        """What there is of it: `Unsupported, left out`."""
        parts = {str(group.verdict): True for group in self.unsupported}
        parts |= {"left out": bool(self.left_out), "standing defects": bool(self.standing), "fixed": bool(self.fixed)}
        return ", ".join(name for name, there in parts.items() if there).capitalize()


@dataclass(frozen=True)
class Cells:
    """All cells, in the order of the plan."""

    id: ClassVar[str] = "cells"
    title: str
    note: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Notices:
    """What is not about this run's cells but should be known."""

    id: ClassVar[str] = "notices"
    texts: tuple[str, ...]


Section = (
    Failures | Changes | Written | Grid | Causes | Problems | Undetermined | History | KnownBreaks | Aside
    | Environments | Cells | Notices
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """A whole report."""

    word: str
    code: ExitCode
    sentence: str
    headline: str
    title: str
    took: str
    about: tuple[tuple[str, str], ...]
    """In a PR check: what was compared with what."""
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    """Those that have content, in the order in which they are shown."""


def build(run: Run, whole: bool = False) -> View:
    """The report of a run.

    Args:
        run: the run.
        whole: do not shorten the facts of a cell.
    """
    said = sentence.of(run)
    return View(
        word=said.word,
        code=exit_code_of(run),
        sentence=said.text,
        headline=summary.headline(run),
        title=run.title or run.id,
        took=seconds(run.duration_s) if run.duration_s else "",
        about=(*(change_summary.about(run.against) if run.against else ()), *_remembered(run)),
        notes=run.notes,
        sections=tuple(section for section in _Assembly(run, whole).sections() if section is not None),
    )


class _Assembly:
    def __init__(self, run: Run, whole: bool) -> None:
        self._run, self._whole = run, whole
        self._places = {cell.id: place for place, cell in enumerate(run.cells)}
        self._unexpected = self._groups(causes.unexpected(run))

    def sections(self) -> Iterable[Section | None]:
        """All sections in order; None for an empty one."""
        run = self._run
        failed = tuple((one.name, one.failed) for one in run.environments if one.failed)
        yield Failures(failed) if failed else None
        yield self._changes()
        yield written.build(run)
        yield grid.build(run)
        yield self._causes()
        yield self._problems()
        yield self._undetermined()
        yield structure_history.history(run)
        yield self._known()
        yield self._aside()
        yield provenance.environments(run) if run.environments else None
        yield self._cells()
        yield Notices(run.notices) if run.notices else None

    def _changes(self) -> Changes | None:
        kinds = tuple(
            Change(name, summary.CHANGES[name], tuple((said, cell, self._places.get(cell)) for said, cell in rows))
            for name, rows in summary.change_rows(self._run).items()
        )
        return Changes(f"Compared with {self._run.baseline}", kinds) if kinds or self._run.baseline else None

    def _causes(self) -> Causes | None:
        groups = self._unexpected
        word = "unexpected break" if self._run.against is None else "regression"
        counts = f"{many(len(self._run.deviations), word)}, {many(len(groups), 'cause')}"
        return Causes(counts, groups) if groups else None

    def _problems(self) -> Problems | None:
        problems = self._run.expectation_problems
        return Problems(f"{many(len(problems), 'known break')} to review", problems) if problems else None

    def _undetermined(self) -> Undetermined | None:
        groups, not_run = self._groups(causes.undetermined(self._run)), self._run.not_run
        count = sum(len(group.cells) for group in groups)
        parts = [f"{many(count, 'cell')} could not be judged"] if count else []
        parts += [f"{many(len(not_run), 'planned cell')} did not run"] if not_run else []
        return Undetermined(", ".join(parts), groups, not_run) if parts else None

    def _known(self) -> KnownBreaks | None:
        found = self._groups(causes.expected(self._run), before=len(self._unexpected))
        count = sum(len(group.cells) for group in found)
        title, note = many(count, "known break"), "see docs/known-breaks/NAME.md"
        if self._run.against:
            title, note = many(count, "cell also fails on the baseline", "cells also fail on the baseline"), ""
        return KnownBreaks(title, note, found) if found else None

    def _aside(self) -> Aside | None:
        reasons: dict[str, list[str]] = {}
        for name, reason in self._run.left_out.items():
            reasons.setdefault(reason, []).append(name)
        found = Aside(
            unsupported=self._groups(causes.unsupported(self._run)),
            left_out=tuple((reason, tuple(names)) for reason, names in reasons.items()),
            standing=tuple((cell.id, defect) for cell in self._run.cells for defect in cell.standing_defects),
            fixed=tuple((cell.id, text) for cell in self._run.cells for text in cell.fixed),
        )
        return found if found.unsupported or found.left_out or found.standing or found.fixed else None

    def _cells(self) -> Cells | None:
        cells = self._run.cells
        lines = tuple(map(self._line, cells))
        counts = self._run.counts
        compared = f"{counts.get('compared', 0):,} of {counts.get('planned', 0):,} planned cells were compared"
        note = f"{summary.by_verdict(cells)}; {compared}"
        return Cells(f"All {many(len(cells), 'cell')}", note, lines) if cells else None

    def _groups(self, found: Iterable[Cause], before: int = 0) -> tuple[Group, ...]:
        return tuple(self._group(before + place + 1, cause) for place, cause in enumerate(found))

    def _group(self, number: int, cause: Cause) -> Group:
        known = cause.details
        return Group(
            number=number,
            title=cause.title,
            verdict=cause.verdict,
            creators=cause.creators.ranges,
            loaders=cause.loaders.ranges,
            scenarios=cause.scenarios,
            reach=summary.reach(cause),
            since=summary.since(cause),
            cells=tuple(map(self._line, cause.cells)),
            facts=cell_facts.facts(cause.representative, self._whole),
            name=known.get("id", ""),
            issue=known.get("issue", ""),
            lasts=summary.lasts(cause.representative),
            reference=summary.reference(cause.representative),
            about=cell_facts.known_break(cause.representative, self._run),
        )

    def _line(self, cell: Cell) -> Line:
        return Line(
            index=self._places[cell.id],
            id=cell.id,
            scenario=cell.scenario,
            creator=cell.creator,
            loader=cell.loader,
            place=cell.place,
            verdict=cell.verdict,
            known=cell.expected,
            size=summary.size(cell),
            remark=summary.remark(cell),
            reproduce=cell.reproduce,
        )


def _remembered(run: Run) -> list[tuple[str, str]]:
    """How many cells an earlier run computed, as a row of a label and a text."""
    when = [cell.remembered for cell in run.cells if cell.remembered]
    since = f"computed since {min(when)[:16].replace('T', ' ')} UTC" if when else ""
    return [("remembered", f"{many(len(when), 'cell')}, {since} (--fresh computes them again)")] if when else []
