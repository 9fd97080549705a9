"""The page on consumers, and what it takes from a run."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from harness.core import data
from harness.core.files import read_text
from harness.core.run import Cell, EnvironmentReport, Finding, Run
from harness.core.verdict import Verdict
from harness.report.pages import consumers
from harness.report.pages.consumers import Row

FAILED = Finding(probe="load", kind="error", verdict=Verdict.LOAD_ERROR, message="KeyError")
RIGHT = Row("consumer:a", "a 1", "lora", "v1", "close", 1.2e-6, 3.4e-6)
WRONG = Row("consumer:b", "b 2", "lora", "v1", "silent-wrong", 1e-6, 2.0, explained="b-forgets")
REFUSED = Row("consumer:b", "b 2", "dora", "v1", "refused", says="no DoRA | at all")


def test_a_table_of_scenarios_and_consumers() -> None:
    page = consumers.render([], [RIGHT, WRONG, REFUSED])

    assert "| Scenario | Creator | `consumer:a` | `consumer:b` |" in page
    wrong = "[silent-wrong](known-breaks/b-forgets.md) (1e-06, 2e+00)"
    assert f"| `lora` | v1 | close (1e-06, 3e-06) | {wrong} |" in page
    assert "| `dora` | v1 | – | refused |" in page, "a fixture that a consumer did not get"
    assert "| `dora` | `consumer:b` | no DoRA \\| at all |" in page
    assert "- `consumer:b`: b 2" in page


def test_rows_survive_the_file() -> None:
    rows = [RIGHT, WRONG, REFUSED]
    assert consumers.read(json.dumps([asdict(row) for row in rows])) == rows


def cell(verdict: Verdict, **more: object) -> Cell:
    """A cell under the consumer `c`."""
    names = {"id": "lora@v1:c[cpu]", "scenario": "lora", "creator": "v1", "loader": "c"}
    return Cell.model_validate({**names, "verdict": verdict, **more})


def of(*cells: Cell, spec: str = "consumer:c") -> list[Row]:
    """What is taken from a run with these cells."""
    environment = EnvironmentReport(name="c", spec=spec, versions={"c": "1", "c-core": "2", "numpy": "3", "other": "4"})
    pins = {"consumer:c": ["c", "c-core", "numpy"]}
    return consumers.measured(Run.model_construct(environments=(environment,), cells=cells), pins)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (cell(Verdict.CLOSE, base_delta=1e-6, adapter_delta=1e-6, reason="x"), ""),
        (cell(Verdict.REFUSED, reason="no DoRA\nreally"), "no DoRA"),
        (cell(Verdict.LOAD_ERROR, findings=(FAILED,)), "KeyError"),
        (cell(Verdict.REFUSED, reason="x" * 500), "x" * 158 + " …"),
    ],
    ids=["right", "refused", "error", "long"],
)  # fmt: skip
def test_what_a_consumer_says(made: Cell, says: str) -> None:
    (row,) = of(made)
    assert row.says == says
    assert row.release == "c 1, c-core 2", "what its file pins, without what others have too"


def test_other_loaders_and_unsupported_cells_are_left_out() -> None:
    assert of(cell(Verdict.CLOSE), spec="current") == []
    assert of(cell(Verdict.UNSUPPORTED)) == []


def test_the_measured_results_know_their_breaks() -> None:
    folder = data.matrices()
    for row in consumers.read(read_text(folder / consumers.FILE)):
        assert not row.explained or (folder / "breaks" / f"{row.explained}.toml").is_file(), row
