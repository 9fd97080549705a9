"""A run for a terminal, with rich: what needs somebody in full, the rest in a line, the sentence last.

Nothing from a run is ever read as rich markup: every piece of text goes through `Painter.text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.core.errors import ExitCode
from harness.core.run import Cell, Run, exit_code_of
from harness.core.text import enumerated, many, visible, visible_lines
from harness.core.verdict import Verdict
from harness.judge import causes
from harness.judge.causes import Cause
from harness.report import cell_facts, change_summary, grid, summary
from harness.report.cell_facts import Fact

QUIET, NORMAL, VERBOSE = -1, 0, 1
"""`-q`: the sentence only. Without: what needs somebody. `-v`: a line a cell as well, and nothing folded."""

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
_OTHERS = 20
"""Cells that are listed under the one which stands for their cause, without `-v`; the rest is counted."""
_PLAIN = str.maketrans({"Δ": "d", "→": "->", "–": "-", "·": "-", "≠": "!=", "×": "x", "…": "...", "÷": "/"})
"""Our own signs for a terminal whose encoding has none of them."""


def render(run: Run, console: Console, verbosity: int = NORMAL) -> None:
    """Print a run; its sentence is the last thing on the screen."""
    painter = Painter(console)
    if verbosity >= NORMAL:
        _top(run, painter)
        if verbosity >= VERBOSE:
            _cells(run, painter)
        _changes(run, painter, verbosity)
        _rectangle(run, painter, verbosity)
        _deviations(run, painter, verbosity)
        _problems(run, painter)
        _untold(run, painter, verbosity)
        _expected(run, painter)
        _folded(run, painter, verbosity)
        _notices(run, painter)
    _sentence(run, painter, verbosity)


def show(cell: Cell, run: Run, console: Console) -> None:
    """Print one cell with all that is known of it."""
    painter = Painter(console)
    said = f"expected ({cell.expectation})" if cell.expected else ""
    took = f"{cell.duration_s:.2f} s" if cell.duration_s else ""
    painter.line(painter.verdict(cell.verdict), "  ", painter.text(cell.id, "bold"))
    painter.line(painter.text("  ".join(part for part in (cell.family, said, took) if part), "dim"), indent=2)
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
    """A console that takes only text which was made harmless, in an encoding which it has."""

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
        """Print pieces as one line; where it is too long it wraps, and goes on under its beginning."""
        self.print(Text.assemble(*parts, overflow="fold"), indent)

    def unbroken(self, *parts: Text | str, indent: int = 0) -> None:
        """Print pieces as one line however long it is, so that it can be copied."""
        self._console.print(Text.assemble(" " * indent, *parts), soft_wrap=True, highlight=False)

    def print(self, renderable: RenderableType, indent: int = 0) -> None:
        """Print something made of `text`."""
        self._console.print(
            Padding(renderable, (0, 0, 0, indent), expand=False) if indent else renderable, highlight=False
        )

    def heading(self, words: str) -> None:
        """Print a heading with an empty line above."""
        self._console.print()
        self._console.rule(self.text(words, "bold"), align="left", style="dim", characters="-" if self._ascii else "─")

    def table(
        self, heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()
    ) -> None:
        """Print a table; nothing where it has no row. Columns of numbers (`right`) never wrap."""
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


def _top(run: Run, painter: Painter) -> None:
    painter.line(painter.text(summary.headline(run), "dim"))
    for label, said in change_summary.about(run.against) if run.against else ():
        painter.line(painter.text(f"{label:<{_LABEL_WIDTH}}", "dim"), painter.text(said))
    for note in run.notes:
        painter.line(painter.text(f"note: {note}", "yellow"))
    for environment in run.environments:
        if environment.failed:
            painter.heading(f"Environment {environment.name} failed")
            painter.print(painter.block(environment.failed), indent=2)


def _cells(run: Run, painter: Painter) -> None:
    painter.heading(many(len(run.cells), "cell"))
    table = _grid(3)
    table.columns[1].justify = "right"
    table.columns[1].no_wrap = True
    for cell in run.cells:
        name = Text.assemble(painter.text(cell.id), "  ", painter.text(summary.remark(cell), "dim"), overflow="fold")
        table.add_row(painter.verdict(cell.verdict), painter.text(summary.size(cell)), name)
    painter.print(table)


def _changes(run: Run, painter: Painter, verbosity: int) -> None:
    if not run.baseline:
        return
    found = summary.change_rows(run)
    painter.heading(f"Against {run.baseline}")
    if not found:
        painter.line("no change", indent=2)
    for change, every in found.items():
        painter.line(painter.text(f"{change} ({len(every):,})", "bold"), f": {summary.CHANGES[change]}", indent=2)
        if change == "still" and verbosity < VERBOSE:
            continue
        table = _grid(2)
        for verdicts, cell in every:
            table.add_row(painter.text(verdicts), painter.text(cell))
        painter.print(table, indent=4)


def _rectangle(run: Run, painter: Painter, verbosity: int) -> None:
    """Creators × loaders, and under it what older loaders did with newer checkpoints."""
    found = grid.build(run)
    if found is None:
        return
    columns = ("creator", *(label for _, label in found.loaders))
    rows = [(row.label, *(box.text for box in row.boxes)) for row in found.rows]
    painter.table("Creators, under loaders", columns, rows, right=range(1, len(columns)))
    painter.line(painter.text(grid.LEGEND, "dim"), indent=2)
    if found.forward:
        painter.line()
        painter.line(painter.text(found.forward), indent=2)
    for each in found.outcomes:
        names = ", ".join(each.scenarios) if verbosity >= VERBOSE else enumerated(each.scenarios, 6)
        head = (painter.text(f"{each.reading}  ", "bold"), painter.text(each.title))
        painter.line(*head, painter.text(f"  {many(len(each.cells), 'cell')}: {each.verdicts}", "dim"), indent=4)
        painter.line(painter.text(f"{each.reach}; {names}", "dim"), indent=6)


def _deviations(run: Run, painter: Painter, verbosity: int) -> None:
    found = causes.unexpected(run)
    if not found:
        return
    painter.heading(f"{many(len(run.deviations), 'unexpected deviation')}, {many(len(found), 'cause')}")
    for place, cause in enumerate(found):
        if place:
            painter.line()
        _cause(cause, painter, verbosity)


def _cause(cause: Cause, painter: Painter, verbosity: int) -> None:
    head = _grid(2)
    count = painter.text(f"  {many(len(cause.cells), 'cell')}", "dim")
    head.add_row(
        painter.verdict(cause.verdict), Text.assemble(painter.text(cause.title, "bold"), count, overflow="fold")
    )
    painter.print(head)
    painter.line(painter.text(summary.reach(cause)), indent=2)
    if summary.since(cause):
        painter.line(painter.text(summary.since(cause)), indent=2)
    painter.line(painter.text(cause.representative.id, "underline"), indent=2)
    _facts(painter, cell_facts.facts(cause.representative, whole=verbosity >= VERBOSE), indent=4)
    rest = summary.others(cause)
    listed = rest if verbosity >= VERBOSE else rest[:_OTHERS]
    if rest:
        painter.line(painter.text(f"the same in {many(len(rest), 'other cell')}:", "dim"), indent=2)
        table = _grid(2)
        table.columns[0].justify = "right"
        for cell, size in listed:
            table.add_row(painter.text(size), painter.text(cell.id))
        painter.print(table, indent=4)
    if len(rest) > len(listed):
        painter.line(painter.text(f"and {len(rest) - len(listed):,} more; -v lists them", "dim"), indent=4)


def _facts(painter: Painter, rows: Sequence[Fact], indent: int = 2) -> None:
    """Label and value under one another; the line to reproduce it stays in one piece."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=_LABEL_WIDTH, no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for row in rows:
        if row.label != "reproduce":
            value = (
                painter.block(row.value, "dim") if row.tone == "block" else painter.text(row.value, _TONES[row.tone])
            )
            table.add_row(painter.text(row.label), value)
    painter.print(table, indent)
    for row in rows:
        if row.label == "reproduce":
            label = painter.text(f"{row.label:<{_LABEL_WIDTH + 2}}", "dim")
            painter.unbroken(label, painter.text(row.value, _TONES[row.tone]), indent=indent)


def _problems(run: Run, painter: Painter) -> None:
    if not run.expectation_problems:
        return
    painter.heading(f"{many(len(run.expectation_problems), 'expectation')} to look at")
    table = _grid(3)
    for problem in run.expectation_problems:
        table.add_row(
            painter.text(problem.problem, "bold red"), painter.text(problem.id), painter.text(problem.message)
        )
    painter.print(table, indent=2)


def _untold(run: Run, painter: Painter, verbosity: int) -> None:
    found = causes.untold(run)
    if found:
        painter.heading(f"{many(sum(len(cause.cells) for cause in found), 'cell')} could not be judged")
    for cause in found:
        painter.line(painter.verdict(cause.verdict), "  ", painter.text(cause.title), indent=2)
        painter.line(painter.text(f"{many(len(cause.cells), 'cell')}: {summary.reach(cause)}", "dim"), indent=4)
        if verbosity >= VERBOSE:
            for cell in cause.cells:
                painter.line(painter.text(cell.id), indent=6)
    if run.not_run:
        painter.line(painter.text(f"{many(len(run.not_run), 'planned cell')} did not run", "cyan"), indent=2)
        for name in run.not_run if verbosity >= VERBOSE else ():
            painter.line(painter.text(name), indent=6)


def _expected(run: Run, painter: Painter) -> None:
    found = causes.expected(run)
    if not found:
        return
    heading = "deviation on both sides" if run.against else "expected deviation"
    painter.heading(
        many(sum(len(cause.cells) for cause in found), heading, "deviations on both sides" * bool(run.against))
    )
    for cause in found:
        head = Text.assemble(painter.text(cause.details["id"], "bold"), f"  {many(len(cause.cells), 'cell')}  ")
        painter.print(Text.assemble(head, painter.text(summary.expiry(cause), "dim"), overflow="fold"), indent=2)
        painter.print(painter.text(" ".join(cause.title.split())), indent=4)


def _folded(run: Run, painter: Painter, verbosity: int) -> None:
    """What nobody has to act on: counted; in full only with `-v`, but never a skip without its reason."""
    out = causes.unsupported(run)
    standing = summary.standing(run)
    if not (out or standing or run.left_out):
        return
    painter.heading("Also")
    for cause in out:
        painter.line(f"{many(len(cause.cells), 'cell')} unsupported: ", painter.text(cause.title), indent=2)
    reasons: dict[str, list[str]] = {}
    for name, reason in run.left_out.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        painter.line(
            f"{len(names):,} left out: ",
            painter.text(reason),
            painter.text(f" ({', '.join(names) if verbosity >= VERBOSE else enumerated(names, 6)})", "dim"),
            indent=2,
        )
    if standing:
        where = many(len({cell.id for cell, _ in standing}), "cell")
        hint = "" if verbosity >= VERBOSE else "; -v lists them"
        said = f"{many(len(standing), 'standing defect')} in {where} (the creator's own library has them too{hint})"
        painter.line(said, indent=2)
    for cell, defect in standing if verbosity >= VERBOSE else ():
        painter.line(painter.text(cell.id), "  ", painter.text(defect, "dim"), indent=4)


def _notices(run: Run, painter: Painter) -> None:
    if run.notices:
        painter.line()
    for notice in run.notices:
        painter.line(painter.text(notice, "yellow"))


def _sentence(run: Run, painter: Painter, verbosity: int) -> None:
    said = summary.sentence(run)
    style = _WORD_STYLES[exit_code_of(run)]
    if verbosity >= NORMAL:
        painter.line()
    painter.line(painter.text(said.word, style), painter.text(f": {said.text}."))


def _grid(columns: int, firm: bool = True) -> Table:
    """Columns without lines; a `firm` first one never wraps."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for place in range(columns):
        table.add_column(overflow="fold", no_wrap=place == 0 and firm)
    return table
