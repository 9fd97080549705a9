"""Notices are near the end of what people read, and change no verdict."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.core import run as results
from harness.core.run import Run
from harness.report import markdown, terminal
from harness.report.html import render
from harness.runner import shards
from tests.support import samples

NOTICE = "the matrix is behind the package index: no environment for PEFT 9.9.9"
ALL = [samples.clean(), samples.regressed(), samples.nothing()]


def with_notice(run: Run) -> Run:
    return run.model_copy(update={"notices": (NOTICE,)})


def printed(run: Run, verbosity: int = terminal.NORMAL) -> str:
    file = io.StringIO()
    terminal.render(run, Console(file=file, width=200), verbosity)
    return file.getvalue()


@pytest.mark.parametrize("run", ALL)
def test_it_is_near_the_end(run: Run) -> None:
    said = [line.strip() for line in printed(with_notice(run)).splitlines() if line.strip()]
    assert NOTICE in said[-3:], "only the sentence comes after it"
    comment = markdown.render(with_notice(run), markdown.COMMENT_BUDGET)
    assert f"- `{NOTICE}`" in comment.rstrip().splitlines()[-3:]
    page = render.render(with_notice(run)).decode()
    assert page.index(f'<p class="note">{NOTICE}</p>') > page.rfind("</table>")


@pytest.mark.parametrize("run", ALL)
def test_it_changes_nothing_else(run: Run) -> None:
    assert results.finished(with_notice(run)).exit_code == results.finished(run).exit_code
    assert NOTICE not in printed(with_notice(run), terminal.QUIET)
    assert printed(with_notice(run)).replace(f"\n{NOTICE}\n", "") == printed(run)


def test_the_newest_of_the_shards_is_shown() -> None:
    one = samples.clean()
    newer = with_notice(one.model_copy(update={"id": "newer", "created": "2999-01-01T00:00:00+00:00"}))
    assert shards.merge([newer, one]).notices == (NOTICE,)
