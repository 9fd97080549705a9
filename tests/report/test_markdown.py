"""The Markdown report: its first line, its budget, and hostile text in a Markdown reader."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness.core.run import Run
from harness.report import markdown, sentence
from tests.support import samples

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OUR_TAGS = {"details", "/details", "details open", "summary", "/summary", "code", "/code"}


def tokens(text: str) -> list[Token]:
    """All tokens of a document, those within paragraphs too."""
    return [token for block in READER.parse(text) for token in (block, *(block.children or ()))]


def test_the_first_line_has_the_verdict_and_the_counts() -> None:
    first = markdown.render(samples.regressed()).split("\n")[0]
    assert first == f"**REGRESSED**: {sentence.of(samples.regressed()).text}"


@pytest.mark.parametrize("run", [samples.green(), samples.clean()])
def test_a_clean_run_is_one_line(run: Run) -> None:
    assert markdown.render(run) == f"**{sentence.of(run).word}**: {sentence.of(run).text}\n"


def test_verbose_has_every_cell() -> None:
    text = markdown.render(samples.clean(), verbose=True)
    assert (
        "| `lokr-alpha` | `v061` | `current` | `cpu` | silent-wrong (known break) | 1.9e+06× "
        "| `known break: lokr-alpha` |" in text
    )
    assert "All 4 cells: 2 silent-wrong, 1 exact, 1 close" in text


def test_nothing_compared_is_more_than_a_line() -> None:
    text = markdown.render(samples.nothing())
    assert text.startswith("**COULD NOT TELL**: nothing was compared")
    assert "`current: × No solution found`" in text


def test_the_table_by_cause() -> None:
    text = markdown.render(samples.regressed()).replace("\u200b", "")
    assert (
        "| silent-wrong | `lokr · forward: values differ` | 0.6.1 | 0.21.2 | `lokr-alpha, lokr-both, lokr-conv` "
        "| 3 | 2.5e+06× |"
    ) in text


def test_changes_come_before_the_causes_in_full() -> None:
    text = markdown.render(samples.against_baseline())
    assert "<details open><summary>regressed (1): " in text
    assert text.index("<summary>regressed") < text.index("starts at")
    assert "| exact → silent-wrong | `lokr-alpha@v061:current[cpu]` |" in text


def many_causes(count: int) -> Run:
    """As many causes, each with a long message and two cells."""
    words = [f"{'abcdefghij'[n // 100 % 10]}{'klmnopqrst'[n // 10 % 10]}{'uvwxyzabcd'[n % 10]}" for n in range(count)]
    cells = [
        samples.refused(f"lora-{word}-{copy}", f"the layer {word} was refused " + "because of this " * 20)
        for word in words
        for copy in "ab"
    ]
    return samples.run(*cells)


@pytest.mark.parametrize("budget", [3_000, 8_000, 20_000, 60_000])
@pytest.mark.parametrize(("count", "least"), [(3, 0), (20, 8_000), (80, 20_000)])
def test_no_budget_is_exceeded_and_no_cause_is_cut(budget: int, count: int, least: int) -> None:
    text = markdown.render(many_causes(count), budget)
    assert sum(line.startswith("| load-error") for line in text.split("\n")) == count
    if budget >= least:
        assert len(text) <= budget


def test_what_is_cut_is_counted() -> None:
    text = markdown.render(many_causes(40), markdown.COMMENT_BUDGET)
    found = re.search(r"Cut to fit, all of it in `report.json`: (.*)\.\n$", text)
    assert found is not None
    shown = text.count("  reproduce  ")
    assert f"causes in full ({40 - shown})" in found.group(1)


def test_without_a_budget_nothing_is_cut() -> None:
    assert "Cut to fit" not in markdown.render(many_causes(80))


@pytest.mark.parametrize("text", samples.HOSTILE)
@pytest.mark.parametrize("budget", [None, 6_000])
def test_nothing_of_a_checkpoint_is_markup(text: str, budget: int | None) -> None:
    document = markdown.render(samples.hostile(text), budget, verbose=True)
    document.encode()
    found = tokens(document)
    html = " ".join(token.content for token in found if token.type in ("html_block", "html_inline"))
    assert set(re.findall(r"<([^<>]*)>", html)) <= OUR_TAGS
    assert not [token for token in found if token.type in ("image", "heading_open", "s_open", "em_open")]
    assert {token.attrs["href"] for token in found if token.type == "link_open"} <= {
        "https://github.com/huggingface/peft/issues/1"
    }


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_no_table_has_a_row_of_another_width(text: str) -> None:
    document = markdown.render(samples.hostile(text), verbose=True)
    for table in re.findall(r"(?:^\|.*\n)+", document, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


@pytest.mark.parametrize("text", ["@somebody", "#1", "https://evil.example", "www.evil.example"])
def test_no_mention_and_no_link(text: str) -> None:
    document = markdown.render(samples.hostile(text), verbose=True)
    found = tokens(document)
    # The issue of a known break is a link on purpose: its file is reviewed.
    linked = {place + 1 for place, token in enumerate(found) if token.type == "link_open"}
    prose = "".join(t.content for place, t in enumerate(found) if t.type == "text" and place not in linked)
    assert not re.search(r"@somebody|#1\b|https://evil|www\.evil", prose)


def test_every_fold_is_closed() -> None:
    for run in (samples.every_verdict(), samples.against_baseline(), samples.hostile("</details>")):
        html = "".join(t.content for t in tokens(markdown.render(run, verbose=True)) if t.type == "html_block")
        assert html.count("<details") == html.count("</details>") > 0
