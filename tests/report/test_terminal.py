"""The terminal: with and without colour, narrow and wide, quiet and verbose, and safe from hostile text."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.core.run import Run
from harness.report import sentence, terminal
from tests.support import samples

SAMPLES = samples.plain()
SGR = re.compile(r"\x1b\[[0-9;]*m")


def printed(run: Run, verbosity: int = 0, width: int = 80, colour: bool = False) -> str:
    """The output of `render`, without trailing spaces."""
    file = io.StringIO()
    system = "truecolor" if colour else None
    terminal.render(run, Console(file=file, width=width, force_terminal=colour, color_system=system), verbosity)  # type: ignore[arg-type]
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def flat(text: str) -> str:
    """The text as one line, without its wrapping."""
    return " ".join(text.split())


@pytest.mark.parametrize("run", SAMPLES)
def test_the_sentence_is_last_and_alone_with_q(run: Run) -> None:
    said = flat(str(sentence.of(run)))
    assert flat(printed(run)).endswith(said)
    assert flat(printed(run, terminal.QUIET)) == said


@pytest.mark.parametrize("run", SAMPLES)
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("verbosity", [0, 1])
def test_no_line_is_too_long_but_the_one_to_copy(run: Run, width: int, verbosity: int) -> None:
    lines = printed(run, verbosity, width).splitlines()
    assert [line for line in lines if cell_len(line) > width and "peft-regress " not in line] == []


def test_no_codes_without_a_terminal_and_the_same_words_with_one() -> None:
    plain, coloured = printed(samples.regressed(), 1), printed(samples.regressed(), 1, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    assert flat(SGR.sub("", coloured)) == flat(plain)


def test_nothing_is_truncated_at_80_columns() -> None:
    assert "…" not in printed(samples.regressed(), 1)
    shown = flat(printed(samples.regressed()))
    for figure in ("|Δ| 0.791 at [0, 3, 17], allowance 4.10e-07, so 1.9e+06×", "golden -0.41250001, now 0.37873455"):
        assert figure in shown


def test_a_cause_has_one_cell_in_full_and_the_others_in_a_line() -> None:
    shown = printed(samples.regressed())
    assert shown.count("starts at") == 2, "once for each of the two causes that have one"
    assert "  the same in 2 other cells:\n    1.9e+06×  lokr-alpha@v061:current[cpu]\n         31×  lokr-conv@" in shown


def test_a_wide_cause_lists_the_first_cells_and_counts_the_rest() -> None:
    run = samples.run(*(samples.wrong(f"lokr-{n:02}") for n in range(30)))
    assert "and 9 more (-v lists them)" in printed(run)
    assert "-v lists them" not in printed(run, 1)
    assert all(cell.id in printed(run, 1) for cell in run.cells)


def test_known_breaks_have_cells_issue_expiry_and_reason() -> None:
    shown = flat(printed(samples.clean(), width=200))
    assert "2 known breaks" in shown
    assert "lokr-alpha 2 cells silent-wrong https://github.com/huggingface/peft/issues/1, until 2027-06-30" in shown
    assert "LoKr with alpha ≠ r: no scaling up to 0.13.2" in shown
    assert "starts at" not in shown


def test_what_could_not_be_judged_says_why_and_how_often() -> None:
    shown = flat(printed(samples.nothing()))
    assert "E env-failed current: × No solution found" in shown
    assert "3 cells: creator 0.6.1, loader current, 3 scenarios: lora-0, lora-1, lora-2" in shown
    assert "× No solution found: because peft==9 does not exist" in shown


def test_what_the_creator_gets_wrong_and_the_loader_right_is_counted_and_listed_with_v() -> None:
    shown = printed(samples.fixed())
    assert "1 of them fixed (its creator's own library cannot read it back)" in flat(shown)
    assert "1 fixed defect in 1 cell" in shown
    assert "the creator's own reload is wrong" in printed(samples.fixed(), 1)


def test_standing_defects_are_counted_and_listed_with_v() -> None:
    assert "1 standing defect in 1 cell" in printed(samples.clean())
    assert "can't merge this either" not in printed(samples.clean())
    assert "can't merge this either" in printed(samples.clean(), 1)


def test_problems_and_left_out_scenarios_are_shown() -> None:
    shown = printed(samples.every_verdict())
    assert "stale    gone  nothing deviates any more: remove it" in shown
    assert "1 left out: takes an hour; ask with --slow (lora-slow)" in shown
    assert "1 planned cell did not run" in shown


def test_a_line_a_cell_only_with_v() -> None:
    line = "= exact               0×  lora-llama@v061:current[cpu]"
    assert line in printed(samples.regressed(), 1)
    assert line not in printed(samples.regressed())


def test_what_changed_comes_before_the_deviations() -> None:
    shown = printed(samples.against_baseline())
    assert shown.index("Compared with 2026-11-19") < shown.index("unexpected breaks")
    assert "    lokr-alpha@v061:current[cpu]  exact → silent-wrong" in shown
    assert "still (1)" in shown
    assert "lokr-old@v061:current[cpu]" not in shown[: shown.index("unexpected breaks")]


def test_a_terminal_without_unicode() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    for run in (*SAMPLES, samples.hostile("漢 ≠ \x1b[0m")):
        terminal.render(run, Console(file=file, width=80), 1)
    file.flush()
    assert b"|d| 0.791" in raw.getvalue()


def test_show_has_all_of_a_cell() -> None:
    file = io.StringIO()
    run = samples.regressed()
    terminal.show(run.cells[2], run, Console(file=file, width=80))
    shown = file.getvalue()
    for part in (
        "forward   silent-wrong  forward/float32/logits",
        "model.layers.0.input_layernorm",
        "transformers  4.35.2",
    ):
        assert part in shown
    assert "reproduce      peft-regress check --creator v061 --loader current -k lokr-alpha\n" in shown


@pytest.mark.parametrize("text", samples.HOSTILE)
@pytest.mark.parametrize("colour", [False, True])
def test_nothing_of_a_checkpoint_reaches_the_terminal_raw(text: str, colour: bool) -> None:
    run = samples.hostile(text)
    file = io.StringIO()
    system = "truecolor" if colour else None
    console = Console(file=file, width=100, force_terminal=colour, color_system=system)  # type: ignore[arg-type]
    terminal.render(run, console, 1)
    terminal.show(run.cells[0], run, console)
    shown = SGR.sub("", file.getvalue()) if colour else file.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)


def test_markup_is_shown_not_interpreted() -> None:
    shown = flat(printed(samples.hostile("[red]x[/red] :skull:"), width=200))
    assert "[red]x[/red] :skull:" in shown
