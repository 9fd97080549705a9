"""Files that break a parser are wrong input with a name, and no crash: exit code 1 would mean a regression."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core import run_file, toml_files
from harness.core.errors import UsageError

DEEP = "[" * 5000 + "]" * 5000
LONG = "9" * 5000


@pytest.mark.parametrize("value", [DEEP, LONG], ids=["deep", "long"])
def test_toml_that_python_cannot_parse(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"title = {value}")
    with pytest.raises(UsageError, match=str(path)):
        toml_files.read(path)


TWICE = '{"cells": [{"verdict": "exact", "verdict": "crash"}]}'


@pytest.mark.parametrize(
    "text", [DEEP, LONG, f'{{"format": {DEEP}}}', "\xff", TWICE], ids=["deep", "long", "inside", "bytes", "twice"]
)
def test_a_report_that_python_cannot_parse(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=str(path)):
        run_file.load(tmp_path)


def test_a_key_that_is_there_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(TWICE)
    with pytest.raises(UsageError, match=r"report\.json.*the key 'verdict' is there 2 times"):
        run_file.load(tmp_path)


def test_a_report_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be read"):
        run_file.load(tmp_path / "file" / "report.json")
