"""docs/expectations.md: what it shows of the command line and of the file is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from harness.cli import main
from harness.judge import expectations

PAGE = (Path(__file__).parents[2] / "docs" / "expectations.md").read_text(encoding="utf-8")


def test_its_commands_are_commands() -> None:
    found = re.findall(r"^\$ (peft-regress (?:[^\n]*\\\n)*[^\n]*)", PAGE, re.MULTILINE)
    assert len(found) >= 4
    for command in found:
        main.parser().parse_args(shlex.split(command.replace("\\\n", " "), comments=True)[1:])


def test_its_first_entry_is_an_expectation() -> None:
    (entry,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = expectations.parse(entry, Path("page"))
    assert found.id == "lokr-scaled-by-alpha-over-r"


def test_every_problem_and_every_option_is_told() -> None:
    for word in (
        "`stale`",
        "`expired`",
        "`mismatch`",
        "--strict",
        "--until",
        "--range",
        "--renew",
        "--remove",
        "--draft",
    ):
        assert word in PAGE
