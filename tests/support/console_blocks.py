"""Commands in the documentation: found, parsed, and run again where the page says that its output is tested.

A block is tested if the line before it is `<!-- tested -->`. `python -m tests.support.console_blocks` writes the
present output into every tested block; look at the difference before you commit it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from harness.cli.main import main
from tests.support.mini.world import REPOSITORY

_BLOCK = re.compile(r"(?P<mark><!-- tested -->\n)?```(?P<kind>console|sh)\n(?P<body>.*?)```", re.DOTALL)
_COLUMNS = "100"


@dataclass(frozen=True)
class Block:
    """One fenced block with commands."""

    page: Path
    body: str
    tested: bool

    @property
    def commands(self) -> list[list[str]]:
        """The words of each `peft-regress` command in it; those with an ellipsis are left out."""
        lines = [line.removeprefix("$ ") for line in self.body.replace("\\\n", " ").splitlines()]
        ours = [line for line in lines if line.startswith("peft-regress ") and "…" not in line.partition("#")[0]]
        return [shlex.split(line, comments=True)[1:] for line in ours]


def pages() -> list[Path]:
    """Every page of the documentation that people write."""
    top = ("README.md", "CONTRIBUTING.md", "fixtures/FORMAT.md")
    return [*(REPOSITORY / name for name in top), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of one page."""
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield Block(page, found["body"], bool(found["mark"]))


def output(words: list[str]) -> str:
    """What a command prints to stdout, in the repository's folder, as a terminal of 100 columns shows it."""
    out = io.StringIO()
    environ = {"COLUMNS": _COLUMNS, "NO_COLOR": "1", "TERM": "dumb"}
    here, quiet = contextlib.chdir(REPOSITORY), contextlib.suppress(SystemExit)  # --help ends so
    with mock.patch.dict(os.environ, environ), here, contextlib.redirect_stdout(out), quiet:
        main(words)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def shown(block: Block) -> str:
    """The block as it is now: its one command and what that prints; output that is cut with `…` stays cut."""
    first, _, rest = block.body.partition("\n")
    now = output(shlex.split(first.removeprefix("$ "), comments=True)[1:])
    lines = rest.rstrip("\n").splitlines()
    if lines and lines[-1].strip() == "…":
        now = "\n".join([*now.splitlines()[: max(len(lines) - 1, 1)], "…"])
    return f"{first}\n{now}\n"


def write() -> None:
    """Write the present output into every tested block."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for block in blocks(page):
            if block.tested:
                text = text.replace(block.body, shown(block))
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
