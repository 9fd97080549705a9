"""Run folders: what is finished is on disk, whatever becomes of the process."""

from __future__ import annotations

import contextlib
import datetime
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.core import run_file
from harness.core.errors import UsageError
from harness.core.run import EnvironmentReport
from harness.runner import folder as runs
from harness.runner.folder import Recorder
from tests.support.samples import cell, exact, wrong

ONE, TWO = exact("lora-a"), wrong("lokr-a")
PLAN = [ONE.id, TWO.id]


def recorder(folder: Path, plan: list[str] | None = None) -> Recorder:
    return Recorder(folder, plan or PLAN, "peft-regress check", "title")


def test_a_cell_is_on_disk_before_the_next(tmp_path: Path) -> None:
    run = recorder(tmp_path / "run")
    assert run.add(ONE)
    assert runs.finished_cells(run.folder) == [ONE]
    assert not run.add(ONE)
    assert run.add(TWO)
    assert runs.finished_cells(run.folder) == [ONE, TWO]


def test_infinite_figures_come_back(tmp_path: Path) -> None:
    broken = TWO.model_copy(update={"worst_ratio": float("inf"), "base_delta": float("nan")})
    recorder(tmp_path / "run").add(broken)
    (found,) = runs.finished_cells(tmp_path / "run")
    assert found.worst_ratio == float("inf")
    assert found.base_delta != found.base_delta


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    many = [exact(f"lora-{n}") for n in range(60)]
    run = recorder(tmp_path / "run", [one.id for one in many])
    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(run.add, many))
        assert not any(executor.map(run.add, many))
    assert sorted(one.id for one in runs.finished_cells(run.folder)) == sorted(one.id for one in many)


@pytest.mark.parametrize("torn", ['{"id": "x', '{"id": "x"}\n', "\n\n", "\x00\xff"])
def test_a_torn_line_spoils_no_other(tmp_path: Path, torn: str) -> None:
    first = recorder(tmp_path / "run")
    first.add(ONE)
    first.close()
    with (tmp_path / "run" / "cells.jsonl").open("a") as file:
        file.write(torn)
    second = recorder(tmp_path / "run")
    assert second.resumed == {ONE.id}
    second.add(TWO)
    assert runs.finished_cells(second.folder) == [ONE, TWO]


def test_what_could_not_be_told_is_not_done(tmp_path: Path) -> None:
    first = recorder(tmp_path / "run")
    failed = cell("lokr-a", "env-failed")
    first.add(ONE)
    first.add(failed)
    first.close()
    second = recorder(tmp_path / "run")
    assert second.resumed == {ONE.id}
    assert second.add(TWO)
    second.close()
    assert recorder(tmp_path / "run").cells == {ONE.id: ONE, TWO.id: TWO}


def test_cells_of_another_plan_are_not_taken_over(tmp_path: Path) -> None:
    first = recorder(tmp_path / "run")
    first.add(ONE)
    first.close()
    assert not recorder(tmp_path / "run", [TWO.id]).resumed


def test_the_newest_unfinished_run_of_the_plan_is_resumed(tmp_path: Path) -> None:
    def nothing() -> bool:
        with contextlib.suppress(UsageError):
            runs.to_resume(tmp_path, PLAN)
            return False
        return True

    with pytest.raises(UsageError, match="no unfinished run of these 2 cells"):
        runs.to_resume(tmp_path, PLAN)
    run = recorder(tmp_path / "b")
    run.add(ONE)
    assert nothing(), "it is under way"
    assert runs.judged_before(tmp_path, PLAN) == [ONE]
    run.close()
    assert runs.to_resume(tmp_path, PLAN) == tmp_path / "b"
    with pytest.raises(UsageError):
        runs.to_resume(tmp_path, [ONE.id])
    run_file.dump(run.run([], [], interrupted=True), tmp_path / "b" / "report.json")
    assert runs.to_resume(tmp_path, PLAN) == tmp_path / "b"
    run_file.dump(run.run([], []), tmp_path / "b" / "report.json")
    assert nothing()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "plan.json").write_text("[]")
    assert nothing()


@pytest.mark.parametrize("name", [runs.PLAN, "report.json"])
@pytest.mark.parametrize(
    "content", ["pipe", "[" * 100_000, '{"plan": 7}', "[]"], ids=["pipe", "deep", "number", "list"]
)
def test_a_folder_that_cannot_be_read_is_no_run(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "run").mkdir()
    if content == "pipe":
        os.mkfifo(tmp_path / "run" / name)
    else:
        (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UsageError, match="no unfinished run"):
        runs.to_resume(tmp_path, ["a"])


def test_what_was_known_of_environments_is_kept(tmp_path: Path) -> None:
    run = recorder(tmp_path / "run")
    known = EnvironmentReport(name="v061", versions={"peft": "0.6.1"})
    run_file.dump(run.run([known], [], interrupted=True), run.folder / "report.json")
    run.close()
    assert recorder(tmp_path / "run").environments == (known,)


def test_folders_of_two_runs_at_once_differ(tmp_path: Path) -> None:
    folders = {runs.new_folder(tmp_path, "v061-../../x y") for _ in range(20)}
    assert len(folders) == 20
    assert all(folder.parent == tmp_path for folder in folders)


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    run = recorder(tmp_path / "run")
    run.add(ONE)
    made = run.run([], [], interrupted=True, today=datetime.date(2026, 1, 1))
    assert (made.exit_code, made.not_run) == (130, (TWO.id,))
    assert run.run([], []).exit_code == 2
    assert recorder(tmp_path / "other").run([], []).exit_code == 2
