"""A report for a terminal, with rich: what needs attention in full, the rest in a line, the sentence last.

Nothing from a run is read as rich markup: every text goes through `Painter.text`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.core.errors import ExitCode
from harness.core.run import Cell, Run
from harness.core.text import enumerated, many, visible, visible_lines
from harness.core.verdict import Verdict
from harness.report import cell_facts, view
from harness.report.cell_facts import Fact
from harness.report.grid import Grid
from harness.report.provenance import Environments
from harness.report.structure_history import History
from harness.report.view import Group, Section, View
from harness.report.written import Written

QUIET, NORMAL, VERBOSE = -1, 0, 1
"""`-q`: the sentence only. Default: what needs attention. `-v`: also one line per cell, and nothing shortened."""

_STYLES = {
    Verdict.SILENT_WRONG: "bold red",
    Verdict.LOAD_ERROR: "red",
    Verdict.RUN_ERROR: "red",
    Verdict.CRASH: "bold magenta",
    Verdict.TIMEOUT: "magenta",
    Verdict.CONTRACT: "yellow",
    Verdict.BASE_MOVED: "yellow",
    Verdict.WARNED: "yellow",
    Verdict.CLOSE: "green",
    Verdict.EXACT: "bold green",
    Verdict.REFUSED: "green",
    Verdict.UNSUPPORTED: "dim",
}
_WORD_STYLES = {
    ExitCode.CLEAN: "bold green",
    ExitCode.REGRESSED: "bold red",
    ExitCode.CANNOT_TELL: "bold cyan",
    ExitCode.INTERRUPTED: "bold yellow",
}
_TONES = {"": "", "bad": "red", "good": "cyan", "quiet": "dim", "block": "dim"}
_LABEL_WIDTH = 13
_COMMANDS = ("see more", "reproduce")
_OTHERS = 20
"""How many further cells of a cause are listed without `-v`."""
_PLAIN = str.maketrans({"Δ": "d", "→": "->", "–": "-", "·": "-", "≠": "!=", "×": "x", "…": "...", "÷": "/"})
"""Replacements for our own signs in an ASCII terminal."""


def render(run: Run, console: Console, verbosity: int = NORMAL) -> None:
    """Print a run. Its sentence is the last thing on the screen."""
    painter, report = Painter(console), view.build(run, whole=verbosity >= VERBOSE)
    if verbosity >= NORMAL:
        _head(report, painter)
        for section in report.sections:
            _section(section, painter, verbosity >= VERBOSE)
        painter.line()
    painter.line(painter.text(report.word, _WORD_STYLES[report.code]), painter.text(f": {report.sentence}"))


def _head(report: View, painter: Painter) -> None:
    painter.line(painter.text(report.headline, "dim"))
    for label, said in report.about:
        painter.line(painter.text(f"{label:<{_LABEL_WIDTH}}", "dim"), painter.text(said))
    for note in report.notes:
        painter.line(painter.text(f"note: {note}", "yellow"))


def _section(section: Section, painter: Painter, verbose: bool) -> None:
    match section:
        case view.Failures():
            for name, lines in section.environments:
                painter.heading(f"Environment {name} failed")
                painter.print(painter.block(lines), indent=2)
        case view.Changes():
            _changes(section, painter, verbose)
        case Written():
            painter.heading(section.title)
            painter.print(_rows(painter, section.rows, styles=("bold",)), indent=2)
            painter.line(section.readers_title, indent=2)
            if section.readers:
                painter.print(_rows(painter, section.readers, styles=("bold",)), indent=4)
        case Grid():
            _creators_under_loaders(section, painter, verbose)
        case view.Causes():
            painter.heading(section.title)
            for group in section.groups:
                _cause(group, painter, verbose)
        case view.Problems():
            painter.heading(section.title)
            rows = [(problem.problem, problem.id, problem.message) for problem in section.problems]
            painter.print(_rows(painter, rows, styles=("bold red",)), indent=2)
        case view.Undetermined():
            _undetermined(section, painter, verbose)
        case view.KnownBreaks():
            _known(section, painter, verbose)
        case view.Aside():
            _aside(section, painter, verbose)
        case view.Cells() if verbose:
            _cells(section, painter)
        case view.Notices():
            painter.line()
            for notice in section.texts:
                painter.line(painter.text(notice, "yellow"))
        case History() | Environments() | view.Cells():
            pass  # too wide for a terminal, or for -v only


def show(cell: Cell, run: Run, console: Console) -> None:
    """Print everything that is known about one cell."""
    painter = Painter(console)
    said = f"known break ({cell.expectation})" if cell.expected else ""
    took = f"{cell.duration_s:.2f} s" if cell.duration_s else ""
    painter.line(painter.verdict(cell.verdict), "  ", painter.text(cell.id, "bold"))
    painter.line(painter.text("  ".join(part for part in (cell.family, said, took) if part), "dim"), indent=2)
    _facts(painter, cell_facts.known_break(cell, run))
    _facts(painter, [fact for fact in cell_facts.facts(cell, whole=True) if fact.label != "probes"])
    probes = ("probe", "verdict", "array", "error", "allowance", "ratio")
    painter.table("Probes", probes, cell_facts.probe_rows(cell), right=(3, 4, 5))
    layers = ("layer", "kind", "error", "allowance", "ratio")
    painter.table("Layers, in execution order", layers, cell_facts.layer_rows(cell), right=(2, 3, 4))
    packages = ("package", cell.creator, cell.loader)
    painter.table("Packages that differ", packages, cell_facts.package_rows(run, cell))
    if cell.verdict.is_deviation:
        painter.heading("Further")
        for words, command in (
            ("where it starts", f"show '{cell.id}' --layers"),
            ("which library", f"blame '{cell.id}'"),
            ("which release", f"bisect '{cell.id}'"),
            ("a folder for an issue", f"repro '{cell.id}'"),
        ):
            painter.unbroken(painter.text(f"{words:<23}", "dim"), painter.text(f"peft-regress {command}"))


class Painter:
    """A console that prints only escaped text, in the encoding of the terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ascii = not console.encoding.lower().startswith("utf")

    def text(self, value: str, style: str = "") -> Text:
        """A piece of one line."""
        return Text(self._fit(visible(value)), style=style, overflow="fold")

    def block(self, value: str, style: str = "") -> Text:
        """A piece of several lines."""
        return Text(self._fit(visible_lines(value)), style=style, overflow="fold")

    def verdict(self, verdict: Verdict) -> Text:
        """A verdict with its letter."""
        return self.text(f"{verdict.letter} {verdict}", _STYLES.get(verdict, "cyan"))

    def line(self, *parts: Text | str, indent: int = 0) -> None:
        """Print pieces as one line. A long line wraps and keeps its indent."""
        self.print(Text.assemble(*parts, overflow="fold"), indent)

    def unbroken(self, *parts: Text | str, indent: int = 0) -> None:
        """Print pieces as one line that never wraps, so that it can be copied."""
        self._console.print(Text.assemble(" " * indent, *parts), soft_wrap=True, highlight=False)

    def print(self, renderable: RenderableType, indent: int = 0) -> None:
        """Print something that is made of `text`."""
        self._console.print(
            Padding(renderable, (0, 0, 0, indent), expand=False) if indent else renderable, highlight=False
        )

    def heading(self, words: str) -> None:
        """Print a heading below an empty line; a long one wraps instead of being cut."""
        text = self.text(words, "bold")
        self._console.print()
        if text.cell_len > self._console.width - 4:
            self.line(text)
        else:
            self._console.rule(text, align="left", style="dim", characters="-" if self._ascii else "─")

    def table(
        self, heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()
    ) -> None:
        """Print a table, unless it is empty. Columns of numbers (`right`) never wrap."""
        rows = list(rows)
        if not rows:
            return
        self.heading(f"{heading} ({len(rows):,})")
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for place, name in enumerate(columns):
            number = place in right
            table.add_column(
                self.text(name), justify="right" if number else "left", no_wrap=number, overflow="fold", min_width=4
            )
        for row in rows:
            table.add_row(*(self.text(value) for value in row))
        self.print(table)

    def _fit(self, value: str) -> str:
        return value.translate(_PLAIN).encode("ascii", "backslashreplace").decode() if self._ascii else value


def _changes(section: view.Changes, painter: Painter, verbose: bool) -> None:
    painter.heading(section.title)
    if not section.kinds:
        painter.line("no change", indent=2)
    for change in section.kinds:
        painter.line(painter.text(f"{change.name} ({len(change.rows):,})", "bold"), f": {change.meaning}", indent=2)
        if change.name != "still" or verbose:
            for verdicts, cell, _ in change.rows:
                painter.line(painter.text(cell), "  ", painter.text(verdicts, "dim"), indent=4)


def _creators_under_loaders(grid: Grid, painter: Painter, verbose: bool) -> None:
    columns = ("creator", *(label for _, label in grid.loaders))
    rows = [(row.label, *(box.text for box in row.boxes)) for row in grid.rows]
    painter.table(grid.title, columns, rows, right=range(1, len(columns)))
    painter.line(painter.text(grid.note, "dim"), indent=2)
    if grid.forward:
        painter.line()
        painter.line(painter.text(grid.forward), indent=2)
    for each in grid.outcomes:
        names = ", ".join(each.scenarios) if verbose else enumerated(each.scenarios, 6)
        head = (painter.text(f"{each.reading}  ", "bold"), painter.text(each.title))
        painter.line(*head, painter.text(f"  {many(len(each.cells), 'cell')}: {each.verdicts}", "dim"), indent=4)
        painter.line(painter.text(f"{each.reach}; {names}", "dim"), indent=6)


def _cause(group: Group, painter: Painter, verbose: bool) -> None:
    if group.number > 1:
        painter.line()
    head = _grid(2)
    count = painter.text(f"  {many(len(group.cells), 'cell')}", "dim")
    title = Text.assemble(painter.text(group.title, "bold"), count, overflow="fold")
    head.add_row(painter.verdict(group.verdict), title)
    painter.print(head)
    for text in filter(None, (group.reach, group.since)):
        painter.line(painter.text(text), indent=2)
    painter.line(painter.text(group.cells[0].id, "underline"), indent=2)
    _facts(painter, group.facts, indent=4)
    rest = group.cells[1:]
    listed = rest if verbose else rest[:_OTHERS]
    if rest:
        painter.line(painter.text(f"the same in {many(len(rest), 'other cell')}:", "dim"), indent=2)
        painter.print(_rows(painter, [(line.size, line.id) for line in listed], right=True), indent=4)
    if len(rest) > len(listed):
        painter.line(painter.text(f"and {len(rest) - len(listed):,} more (-v lists them)", "dim"), indent=4)


def _facts(painter: Painter, rows: Sequence[Fact], indent: int = 2) -> None:
    """Labels and values in two columns. Commands are never wrapped."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=_LABEL_WIDTH, no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for row in rows:
        if row.label not in _COMMANDS:
            value = (
                painter.block(row.value, "dim") if row.tone == "block" else painter.text(row.value, _TONES[row.tone])
            )
            table.add_row(painter.text(row.label), value)
    painter.print(table, indent)
    for row in rows:
        if row.label in _COMMANDS:
            label = painter.text(f"{row.label:<{_LABEL_WIDTH + 2}}", "dim")
            painter.unbroken(label, painter.text(row.value, _TONES[row.tone]), indent=indent)


def _undetermined(section: view.Undetermined, painter: Painter, verbose: bool) -> None:
    painter.heading(section.title)
    for group in section.groups:
        painter.line(painter.verdict(group.verdict), "  ", painter.text(group.title), indent=2)
        painter.line(painter.text(f"{many(len(group.cells), 'cell')}: {group.reach}", "dim"), indent=4)
        painter.unbroken(painter.text(group.more, "cyan"), indent=4)
        for line in group.cells if verbose else ():
            painter.line(painter.text(line.id), indent=6)
    if section.not_run:
        painter.line(painter.text(f"{many(len(section.not_run), 'planned cell')} did not run", "cyan"), indent=2)
    for name in section.not_run if verbose else ():
        painter.line(painter.text(name), indent=6)


def _known(section: view.KnownBreaks, painter: Painter, verbose: bool) -> None:
    """Each break with the first sentence of its cause; all of it with `-v`."""
    painter.heading(section.title)
    if section.note:
        painter.line(painter.text(section.note, "dim"), indent=2)
    for group in section.groups:
        count = f"  {many(len(group.cells), 'cell')}  {group.verdict}  "
        head = Text.assemble(painter.text(group.name, "bold"), count)
        painter.print(Text.assemble(head, painter.text(group.reference, "dim"), overflow="fold"), indent=2)
        cause = " ".join(group.title.split())
        painter.print(painter.text(cause if verbose else cause.partition(". ")[0].removesuffix(".") + "."), indent=4)
        _facts(painter, [fact for fact in group.about[1:] if verbose or fact.label == "workaround"], indent=4)
        painter.unbroken(painter.text(group.more, "cyan"), indent=4)


def _aside(section: view.Aside, painter: Painter, verbose: bool) -> None:
    """Counts; every reason is named, the cells only with `-v`."""
    painter.heading(section.title)
    for group in section.unsupported:
        painter.line(f"{many(len(group.cells), 'cell')} {group.verdict}: ", painter.text(group.title), indent=2)
    for reason, names in section.left_out:
        which = painter.text(f" ({', '.join(names) if verbose else enumerated(names, 6)})", "dim")
        painter.line(f"{len(names):,} left out: ", painter.text(reason), which, indent=2)
    _listed(section.standing, "standing defect", section.standing_note, painter, verbose)
    _listed(section.fixed, "fixed defect", section.fixed_note, painter, verbose)


def _listed(rows: Sequence[tuple[str, str]], word: str, note: str, painter: Painter, verbose: bool) -> None:
    """The number of defects, and with `verbose` each with its cell."""
    if rows:
        where = many(len({cell for cell, _ in rows}), "cell")
        hint = "" if verbose else "; -v lists them"
        painter.line(f"{many(len(rows), word)} in {where} ({note}{hint})", indent=2)
    for cell, text in rows if verbose else ():
        painter.line(painter.text(cell), "  ", painter.text(text, "dim"), indent=4)


def _cells(section: view.Cells, painter: Painter) -> None:
    painter.heading(section.title)
    table = _grid(3)
    table.columns[1].justify = "right"
    table.columns[1].no_wrap = True
    for line in section.lines:
        name = Text.assemble(painter.text(line.id), "  ", painter.text(line.remark, "dim"), overflow="fold")
        table.add_row(painter.verdict(line.verdict), painter.text(line.size), name)
    painter.print(table)


def _rows(painter: Painter, rows: Sequence[Sequence[str]], styles: Sequence[str] = ("",), right: bool = False) -> Table:
    """Rows of texts without lines; `styles` are those of the first columns."""
    table = _grid(len(rows[0]))
    table.columns[0].justify = "right" if right else "left"
    for row in rows:
        table.add_row(*(painter.text(text, style) for text, style in itertools.zip_longest(row, styles, fillvalue="")))
    return table


def _grid(columns: int) -> Table:
    """Columns without lines. The first one never wraps."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for place in range(columns):
        table.add_column(overflow="fold", no_wrap=place == 0)
    return table
