"""A handful of whole reports, as a reader gets them; what they say in detail is tested as data, elsewhere.

After a change that is meant, `python -m tests.report.test_whole` writes them anew; read the difference before you
commit it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.core.run import Run
from harness.report import junit, markdown, terminal
from tests.support import samples

GOLDEN = Path(__file__).parent / "golden"


def printed(run: Run, verbosity: int = 0, width: int = 80) -> str:
    """What is printed, without the spaces at the ends of lines."""
    file = io.StringIO()
    terminal.render(run, Console(file=file, width=width), verbosity)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def shown(run: Run) -> str:
    """One cell in full."""
    file = io.StringIO()
    terminal.show(run.cells[2], run, Console(file=file, width=80))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


WHOLE: dict[str, Callable[[], str]] = {
    "terminal.txt": lambda: printed(samples.against_baseline()),
    "terminal-v-120.txt": lambda: printed(samples.every_verdict(), 1, 120),
    "terminal-show.txt": lambda: shown(samples.regressed()),
    "terminal-hostile.txt": lambda: printed(samples.hostile("\x1b[31m[red]| <b>\n`\u202e"), 1),
    "comment.md": lambda: markdown.render(samples.against_baseline(), markdown.COMMENT_BUDGET),
    "report.md": lambda: markdown.render(samples.clean(), verbose=True),
    "junit.xml": lambda: junit.render(samples.regressed()).decode(),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_is_as_it_was_reviewed(name: str) -> None:
    assert WHOLE[name]() == (GOLDEN / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, make in WHOLE.items():
        (GOLDEN / name).write_text(make(), encoding="utf-8")
