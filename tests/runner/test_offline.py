"""Export and judge as library calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.report import write
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
    assert [str(cell.verdict) for cell in run.cells] == ["not-comparable", "bad-fixture"]
    assert "left no reply" in run.cells[0].reason


@pytest.fixture(scope="module")
def returned(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> tuple[Path, Places]:
    """A folder that was exported, and run on another machine."""
    world = World(tmp_path_factory.mktemp("returned"), loaders)
    places = Places(created.parent / "matrices", created, world.root / "reports")
    box = world.root / "box"
    offline.export(ExportRequest(box, loader=world.spec("2.0"), name="box", places=places))
    python = world.spec("2.0").removeprefix("python:")
    command = [python, "worker", "--plan", "plan.json", "--out", "out", "--handler", str(HANDLER)]
    subprocess.run(command, cwd=box, check=True, capture_output=True)
    return box, places


@pytest.fixture
def box(returned: tuple[Path, Places], tmp_path: Path) -> tuple[Path, Places]:
    """A copy of it."""
    shutil.copytree(returned[0], tmp_path / "box")
    return tmp_path / "box", Places(returned[1].matrices, returned[1].fixtures, tmp_path / "reports")


GOOD = {"id": "", "outcome": "done", "duration_s": 0.1, "detail": ""}
REPLIES: dict[str, Any] = {
    "no JSON": "{",
    "bytes": b"\xff\xfe\x00",
    "a list": [],
    "null": None,
    "no keys": {},
    "no outcome": {"id": "", "duration_s": 0.1},
    "unknown outcome": {**GOOD, "outcome": "fine"},
    "an outcome that is a list": {**GOOD, "outcome": ["done"]},
    "a detail that is a number": {**GOOD, "outcome": "died", "detail": 7},
    "a duration that is a text": {**GOOD, "duration_s": "long"},
    "a duration that is NaN": json.dumps({**GOOD, "duration_s": float("nan")}),
    "a duration below 0": {**GOOD, "duration_s": -1},
    "a duration of 400 digits": f'{{"outcome": "done", "duration_s": {"9" * 400}}}',
    "a duration of 5,000 digits": f'{{"outcome": "done", "duration_s": {"9" * 5000}}}',
    "deep": "[" * 100_000 + "]" * 100_000,
    "of another cell": {**GOOD, "id": "lora@v061:current[cpu]"},
    "a surrogate": '{"id": "\\ud800", "outcome": "died", "detail": "\\ud800", "duration_s": 1}',
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_bad_reply_costs_its_cell_only(box: tuple[Path, Places], reply: Any) -> None:
    path = box[0] / "out" / "cells" / "0" / "reply.json"
    path.write_bytes(
        reply if isinstance(reply, bytes) else (reply if isinstance(reply, str) else json.dumps(reply)).encode()
    )
    run, folder = offline.judge(JudgeRequest(box[0], places=box[1]))
    assert [str(cell.verdict) for cell in run.cells] == ["not-comparable", "exact"]
    write(run, folder)


@pytest.mark.parametrize("name", ["reply.json", "now/observation.json", "now/arrays.safetensors", "log.txt"])
@pytest.mark.parametrize("by", ["fifo", "device", "folder", "huge"])
def test_anything_in_the_place_of_a_result_costs_its_cell_only(box: tuple[Path, Places], name: str, by: str) -> None:
    path = box[0] / "out" / "cells" / "0" / name
    path.unlink()
    if by == "fifo":
        os.mkfifo(path)
    elif by == "device":
        path.symlink_to("/dev/zero")
    elif by == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    run, _ = offline.judge(JudgeRequest(box[0], places=box[1]))
    assert [str(cell.verdict) for cell in run.cells] == ["exact" if name == "log.txt" else "not-comparable", "exact"]


@pytest.mark.parametrize("hello", ["{", "[]", '{"facts": []}', '{"facts": {"gpu": 7, "versions": [1]}}', "[" * 100_000])
def test_bad_facts_of_a_machine_cost_no_cell(box: tuple[Path, Places], hello: str) -> None:
    for name in ("hello.json", "hello-1.json"):
        (box[0] / "out" / name).write_text(hello)
    (box[0] / "out" / "cells" / "0" / "reply.json").unlink()
    run, folder = offline.judge(JudgeRequest(box[0], places=box[1]))
    assert [str(cell.verdict) for cell in run.cells] == ["not-comparable", "exact"]
    write(run, folder)


def test_a_golden_that_the_worker_changed_is_no_golden(box: tuple[Path, Places]) -> None:
    """The cell's own results in the place of its golden would make it green."""
    plan = json.loads((box[0] / "plan.json").read_text())
    golden = box[0] / plan["cells"][0]["fixture"] / "golden"
    for name in ("observation.json", "arrays.safetensors"):
        shutil.copy(box[0] / "out" / "cells" / "0" / "now" / name, golden / name)
    run, _ = offline.judge(JudgeRequest(box[0], places=box[1]))
    assert [str(cell.verdict) for cell in run.cells] == ["bad-fixture", "exact"]
    assert "was changed after `export`" in run.cells[0].reason


def test_a_plan_that_was_changed_is_refused(box: tuple[Path, Places]) -> None:
    path = box[0] / "plan.json"
    path.write_text(path.read_text().replace('"golden": "cpu"', '"golden": "cuda"'))
    with pytest.raises(UsageError, match=r"plan\.json was changed after `export`"):
        offline.judge(JudgeRequest(box[0], places=box[1]))


def test_another_machine_refuses_a_fixture_that_was_changed(box: tuple[Path, Places], loaders: Path) -> None:
    plan = json.loads((box[0] / "plan.json").read_text())
    for path in (box[0] / plan["cells"][0]["fixture"] / "adapter").iterdir():
        path.write_text("{}")
    shutil.rmtree(box[0] / "out")
    python = World(box[0], loaders).spec("2.0").removeprefix("python:")
    command = [python, "worker", "--plan", "plan.json", "--out", "out", "--handler", str(HANDLER)]
    subprocess.run(command, cwd=box[0], check=True, capture_output=True)
    replies = [json.loads((box[0] / "out" / "cells" / str(n) / "reply.json").read_text()) for n in range(2)]
    assert [reply["outcome"] for reply in replies] == ["error", "done"]
    assert "is not what was exported" in replies[0]["detail"]


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
    (tmp_path / "plan.json").write_text(json.dumps({}))
    with pytest.raises(UsageError, match=r"judge\.json"):
        offline.judge(JudgeRequest(tmp_path, places=places))
