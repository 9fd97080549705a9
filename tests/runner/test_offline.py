"""Export and judge as library calls."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.runner import offline
from harness.runner.offline import ExportRequest, JudgeRequest
from harness.runner.request import Places, Selection
from tests.support.mini.world import HANDLER, World


@pytest.fixture
def places(mini: World, tmp_path: Path) -> Places:
    return Places(mini.matrices, mini.fixtures, tmp_path / "reports")


@pytest.fixture
def request_(mini: World, places: Places, tmp_path: Path) -> ExportRequest:
    return ExportRequest(tmp_path / "box", loader=mini.spec("2.0"), name="box", places=places)


def test_what_a_worker_leaves_is_judged_by_the_steps_of_a_check(mini: World, request_: ExportRequest) -> None:
    exported = offline.export(request_)
    assert exported.cells == 2
    (why,) = exported.left_out.values()
    assert why.startswith("creator: needs minipeft")
    box = request_.folder
    python = mini.spec("2.0").removeprefix("python:")
    command = [python, "worker", "--plan", "plan.json", "--out", "out", "--handler", str(HANDLER)]
    subprocess.run(command, cwd=box, check=True, capture_output=True)
    run, folder = offline.judge(JudgeRequest(box, places=request_.places))
    assert {str(cell.verdict) for cell in run.cells} == {"exact"}
    assert folder.parent == request_.places.reports
    assert all(cell.family and cell.method and cell.reproduce for cell in run.cells)
    (box / "out" / "cells" / "0" / "reply.json").unlink()
    (box / "fixtures" / mini.name("1.0") / "one-layer" / "golden" / "observation.json").write_text("{")
    run, _ = offline.judge(JudgeRequest(box, places=request_.places))
    assert [str(cell.verdict) for cell in run.cells] == ["not-comparable", "not-comparable"]
    assert "left no reply" in run.cells[0].reason


def test_a_fixture_of_an_older_declaration_is_left_out(mini: World, request_: ExportRequest) -> None:
    path = mini.matrices / "scenarios" / "plain.toml"
    path.write_text(path.read_text().replace("r = 4, alpha = 3.0", "r = 4, alpha = 4.0"))
    exported = offline.export(request_)
    assert any("declaration changed" in why for why in exported.left_out.values())


def test_an_export_needs_a_new_folder_a_device_of_its_class_and_a_cell(request_: ExportRequest, places: Places) -> None:
    with pytest.raises(UsageError, match="is no cpu"):
        offline.export(ExportRequest(request_.folder, device_class="cuda-sm90", places=places))
    with pytest.raises(UsageError, match="no cell has a fixture"):
        offline.export(
            ExportRequest(request_.folder, loader=request_.loader, places=places, selection=Selection("later"))
        )
    request_.folder.mkdir(exist_ok=True)
    (request_.folder / "x").touch()
    with pytest.raises(UsageError, match="already exists"):
        offline.export(request_)


def test_a_folder_that_nobody_exported_is_refused(tmp_path: Path, places: Places) -> None:
    with pytest.raises(UsageError, match=r"plan\.json"):
        offline.judge(JudgeRequest(tmp_path, places=places))
    (tmp_path / "plan.json").write_text(json.dumps([]))
    with pytest.raises(UsageError, match=r"judge\.json"):
        offline.judge(JudgeRequest(tmp_path, places=places))
