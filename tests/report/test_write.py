"""All formats of a run, written to a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import report
from harness.core import run_file
from harness.report import sentence
from tests.support import samples


def test_all_formats_are_written(tmp_path: Path) -> None:
    written = report.write(samples.regressed(), tmp_path / "run")
    assert [path.name for path in written] == ["report.json", "report.md", "junit.xml", "report.html"]
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["junit.xml", "report.html", "report.json", "report.md"]
    assert run_file.load(tmp_path / "run").model_copy(update={"sentence": ""}) == samples.regressed()
    said = str(sentence.of(samples.regressed()))
    assert run_file.load(tmp_path / "run").sentence == said
    assert said.partition(": ")[2] in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_report_md_has_the_whole_table_even_where_all_is_well(tmp_path: Path) -> None:
    report.write(samples.green(), tmp_path)
    assert "| `lora-opt` |" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_hostile_runs_are_written_and_read(tmp_path: Path, text: str) -> None:
    report.write(samples.hostile(text), tmp_path)
    assert len(run_file.load(tmp_path).cells) == 7
