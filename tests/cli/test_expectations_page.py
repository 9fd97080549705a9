"""docs/expectations.md: what it shows of the command line and of a file is correct."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from harness.cli import main
from harness.deviation.accept import break_file
from harness.judge import breaks

PAGE = (Path(__file__).parents[2] / "docs" / "expectations.md").read_text(encoding="utf-8")


def test_its_commands_are_commands() -> None:
    found = re.findall(r"^\$ (peft-regress (?:[^\n]*\\\n)*[^\n]*)", PAGE, re.MULTILINE)
    assert len(found) >= 4
    for command in found:
        main.parser().parse_args(shlex.split(command.replace("\\\n", " "), comments=True)[1:])


def test_its_example_is_a_known_break_with_every_key() -> None:
    example, *_ = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found = breaks.parse(example, Path("lokr-scaled-by-alpha-over-r.toml"))
    assert {key for key in break_file.KEYS if getattr(found, key) is None} == {"fixed", "permanent"}
    for key in (*break_file.KEYS, *break_file.CONDITION):
        assert f"`{key}`" in PAGE, key


def test_every_problem_and_every_option_is_explained() -> None:
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
