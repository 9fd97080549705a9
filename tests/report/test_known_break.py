"""What is recorded of a known break reaches every report: since when, how it was verified, a workaround, references."""

from __future__ import annotations

import io
from datetime import date

from rich.console import Console

from harness.core.run import KnownBreak
from harness.judge.breaks import Break
from harness.report import markdown, terminal, view
from harness.report.html import data
from tests.support import samples

FOUND = KnownBreak(
    title="LoKr adapters act too strongly",
    since="PEFT 0.14.0",
    verified="By replay: 0.13.2 is right, 0.14.0 is not.",
    workaround="Divide the tensors by alpha/r.",
    references=("https://github.com/huggingface/peft/pull/2180", "https://example.org/2"),
)
RUN = samples.clean().model_copy(update={"breaks": {"lokr-alpha": FOUND}})
CELL = next(cell for cell in RUN.cells if cell.expected)
RECORDED = (FOUND.since, FOUND.verified, FOUND.workaround)


def printed(what: str) -> str:
    file = io.StringIO()
    console = Console(file=file, width=300)
    if what == "show":
        terminal.show(CELL, RUN, console)
    else:
        terminal.render(RUN, console, terminal.VERBOSE if what == "-v" else terminal.NORMAL)
    return file.getvalue()


def test_show_and_the_verbose_terminal_have_all_of_it() -> None:
    for what in ("show", "-v"):
        assert all(text in printed(what) for text in (*RECORDED, *FOUND.references)), what
    assert FOUND.workaround in printed("")
    assert FOUND.verified not in printed("")


def test_markdown_and_the_drawer_have_it() -> None:
    said = markdown.render(RUN, verbose=True)
    assert all(text in said for text in RECORDED)
    recorded = dict(data.detail(CELL, RUN)["recorded"])
    assert recorded["workaround"] == FOUND.workaround
    assert recorded["reference"] == FOUND.references[0]


def test_a_break_reports_its_texts_on_one_line() -> None:
    one = Break.model_validate({
        "id": "a-break", "title": "T", "cause": "C", "references": ["https://github.com/huggingface/peft/pull/1"],
        "since": "PEFT 0.14", "workaround": "Do\nthis.", "expires": date(2030, 1, 1),
        "condition": [{"verdict": "silent-wrong", "scenarios": ["a"], "creators": "peft>=1", "loaders": "peft>=1"}],
    })  # fmt: skip
    assert (one.report.since, one.report.workaround, one.report.verified) == ("PEFT 0.14", "Do this.", "")
    assert one.report.references == ("https://github.com/huggingface/peft/pull/1",)


def test_every_block_names_verdict_scenario_and_the_command_to_see_more() -> None:
    run = samples.every_verdict()
    for section in view.build(run).sections:
        if isinstance(section, view.Causes | view.Undetermined | view.KnownBreaks):
            for group in section.groups:
                assert group.verdict
                assert group.scenarios
                assert group.more == f"peft-regress show '{group.cells[0].id}'"
                file = io.StringIO()
                terminal.render(run, Console(file=file, width=80))
                assert group.more in file.getvalue()
                assert group.more in markdown.render(run)
