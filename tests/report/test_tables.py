"""Data frames of a run."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from harness.core import run as results
from harness.core import run_file
from harness.core.errors import HarnessError, UsageError
from harness.report import tables
from tests.support import samples


def test_a_row_a_cell_of_a_report_on_disk(tmp_path: Path) -> None:
    run_file.dump(samples.across_releases(), tmp_path / "report.json")
    found = tables.cells(run_file.load(tmp_path))
    assert len(found) == 10
    wrong = found[found.verdict == "silent-wrong"]
    assert sorted(wrong.creator_peft) == ["0.13.2", "0.6.1", "0.6.1", "0.9.0"]
    assert set(found.loader_transformers) == {"5.23.0"}
    assert found.groupby("loader").deviates.sum().to_dict() == {"current": 3, "v0200": 1}


def test_what_changed_against_the_baseline() -> None:
    found = tables.cells(samples.against_baseline()).set_index("scenario")
    assert found.loc["lokr-alpha", "change"] == "regressed"
    assert found.loc["lora-llama", "change"] == ""


@pytest.mark.parametrize("run", [samples.every_verdict(), samples.nothing(), samples.green()])
def test_frames_of_all_runs_have_one_shape(run: results.Run) -> None:
    assert tables.cells(run).dtypes.equals(tables.cells(samples.empty()).dtypes)


def test_csv_comes_back(tmp_path: Path) -> None:
    made = tables.cells(samples.every_verdict())
    tables.write(made, tmp_path / "cells.csv")
    back = pd.read_csv(tmp_path / "cells.csv", keep_default_na=False)
    assert list(back.columns) == list(made.columns)
    assert list(back.id) == list(made.id)


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_hostile_text_is_neither_a_formula_nor_a_control(text: str) -> None:
    raw = tables.csv(tables.cells(samples.hostile(text))).decode()
    assert raw.count("\n") == len(samples.hostile(text).cells) + 1
    back = pd.read_csv(io.StringIO(raw), dtype=str, keep_default_na=False)
    assert not [value for value in back.to_numpy().ravel() if value[:1] in ("=", "+", "@")]
    assert not any(ord(c) < 32 for value in back.to_numpy().ravel() for c in value)


def test_without_pandas_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HarnessError) as caught:
        tables.cells(samples.green())
    assert "pandas" in caught.value.found
    assert "peft-regress[tables]" in caught.value.next_step


def test_parquet_without_pyarrow_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HarnessError) as caught:
        tables.write(tables.cells(samples.green()), tmp_path / "cells.parquet")
    assert "pyarrow" in caught.value.found
    assert "peft-regress[parquet]" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        tables.write(tables.cells(samples.green()), tmp_path / "cells.xlsx")


def test_parquet_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    run_frame = tables.cells(samples.every_verdict())
    tables.write(run_frame, tmp_path / "cells.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "cells.parquet"), run_frame)


def test_the_command_line_starts_without_pandas() -> None:
    code = "import sys; sys.modules['pandas'] = None; import harness.cli.main"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
