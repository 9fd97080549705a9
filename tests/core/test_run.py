"""The model of a run: its file, its counts, its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core import run_file
from harness.core.errors import ExitCode, UsageError
from harness.core.run import Run
from tests.support import samples
from tests.support.samples import cell, exact, known, run, wrong

ALL = samples.plain()


@pytest.mark.parametrize("sample", ALL)
def test_a_run_is_read_back_unchanged(sample: Run, tmp_path: Path) -> None:
    run_file.dump(sample, tmp_path / "report.json")
    assert run_file.load(tmp_path) == sample
    assert run_file.load(tmp_path / "report.json") == sample


def test_the_file_is_strict_json_whatever_was_measured(tmp_path: Path) -> None:
    sample = run(wrong("lokr-alpha", float("inf"), adapter_delta=float("nan"), reason="lone \ud800"))
    run_file.dump(sample, tmp_path / "report.json")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    data = json.loads((tmp_path / "report.json").read_bytes(), parse_constant=refuse)
    assert data["cells"][0]["worst_ratio"] == "Infinity"
    back = run_file.load(tmp_path).cells[0]
    assert back.worst_ratio == float("inf")
    assert back.adapter_delta != back.adapter_delta
    assert back.reason == r"lone \ud800"


def test_what_a_program_reads_is_always_there(tmp_path: Path) -> None:
    run_file.dump(run(cell("lora-a", "no-fixture", duration_s=0.0)), tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_bytes())
    assert data.keys() >= {"format", "id", "plan", "cells", "counts", "exit_code"}
    wanted = {
        "id",
        "scenario",
        "creator",
        "loader",
        "device",
        "verdict",
        "expected",
        "probes",
        "findings",
        "duration_s",
    }
    assert data["cells"][0].keys() >= wanted
    assert next(iter(data)) == "format"


def test_a_cell_is_a_line_of_the_file(tmp_path: Path) -> None:
    run_file.dump(samples.regressed(), tmp_path / "report.json")
    lines = (tmp_path / "report.json").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line.strip().rstrip(",")) for line in lines if line.startswith('  {"id": ')]
    assert [cell["id"] for cell in found] == [cell.id for cell in samples.regressed().cells]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no report at"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "report format 'list'"),
        (b'{"format": 99}', "report format 99"),
        (b'{"format": 1}', "Field required"),
        (b'{"format": 1, "id": "x", "created": "", "tool_version": "", "nothing": 1}', "nothing"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        run_file.load(tmp_path)
    assert said in caught.value.found
    assert caught.value.next_step


EXIT_CODES = [
    (samples.green(), ExitCode.CLEAN),
    (samples.clean(), ExitCode.CLEAN),
    (samples.regressed(), ExitCode.REGRESSED),
    (samples.interrupted(), ExitCode.INTERRUPTED),
    (samples.nothing(), ExitCode.CANNOT_TELL),
    (samples.empty(), ExitCode.CANNOT_TELL),
    (run(known(wrong("lokr-a"))), ExitCode.CLEAN),
    (run(exact("lora-a"), cell("lora-b", "unstable")), ExitCode.CANNOT_TELL),
    (run(exact("lora-a"), cell("lora-b", "unsupported")), ExitCode.CLEAN),
    (run(cell("lora-b", "unsupported")), ExitCode.CANNOT_TELL),
    (run(wrong("lokr-a"), cell("lora-b", "env-failed")), ExitCode.REGRESSED),
    (run(cell("lora-a", "warned")), ExitCode.CLEAN),
    (run(cell("lora-a", "warned"), strict=True), ExitCode.REGRESSED),
    (run(exact("lora-a"), plan=("lora-a@v061:current[cpu]", "other")), ExitCode.CANNOT_TELL),
]


@pytest.mark.parametrize(("sample", "code"), EXIT_CODES)
def test_the_exit_code(sample: Run, code: ExitCode) -> None:
    assert sample.exit_code == code


def test_counts() -> None:
    assert samples.regressed().counts == {
        "silent-wrong": 5,
        "load-error": 1,
        "warned": 1,
        "close": 1,
        "exact": 1,
        "unsupported": 1,
        "no-fixture": 1,
        "expected": 1,
        "compared": 9,
        "planned": 11,
    }


def test_cells_are_in_the_order_of_the_plan() -> None:
    one, two = exact("lora-a"), exact("lora-b")
    assert [cell.id for cell in run(one, two, plan=(two.id, one.id)).cells] == [two.id, one.id]
