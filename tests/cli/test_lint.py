"""`lint` prints a line a complaint; its exit code says whether there was one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.main import main
from tests.runner.test_lint import BREAK, FILES, folder


def test_the_repository_has_no_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint"]) == 0
    assert capsys.readouterr().out == ""


def test_complaints_are_printed_with_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = FILES["scenarios/lora.toml"].replace("lora_alpha = 6", "lora_alpha = 4")
    folder(tmp_path, {"scenarios/lora.toml": wrong})
    assert main(["lint", "--matrices", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path}/scenarios/lora.toml:3: alpha: ")
    assert main(["lint", "--json", "--matrices", str(tmp_path)]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["rule"], found["line"]) == ("alpha", 3)


@pytest.mark.parametrize("name", ["gone", "empty", "text", "misspelt", "folders"])
def test_a_folder_with_nothing_to_check_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("")
    (tmp_path / "misspelt" / "scenario").mkdir(parents=True)
    (tmp_path / "misspelt" / "scenario" / "lora.toml").write_text("")
    (tmp_path / "folders" / "scenarios" / "lora.toml").mkdir(parents=True)
    assert main(["lint", "--matrices", str(tmp_path / name)]) == 64
    assert "no complaint" not in capsys.readouterr().err


def test_known_breaks_in_the_old_form_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As by `check` and `triage`: on stderr, and no complaint."""
    folder(tmp_path, {"expectations.toml": ""})
    assert main(["lint", "--matrices", str(tmp_path)]) == 0
    assert f"{tmp_path}/expectations.toml is the old form" in capsys.readouterr().err


def test_known_breaks_without_a_rule_are_named_and_are_no_complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without, rule = BREAK.replace(', "lokr-*"', ""), '\n[condition.adapter]\nmethod = "LORA"\n'
    folder(tmp_path, {"breaks/mute.toml": without, "breaks/told.toml": without + rule})
    assert main(["lint", "--matrices", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "note: mute: `doctor` does not know which adapters the known break is about" in said
    assert "told" not in said.replace("untold", "")
