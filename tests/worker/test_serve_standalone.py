"""A plan without a controller: every cell gets a reply, whatever the others do; a rerun goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.runner.workers.process import WORKER

HANDLER = Path(__file__).parents[1] / "support" / "fakes" / "handler.py"


def write_plan(folder: Path, *cells: dict[str, Any], **more: Any) -> Path:
    """A plan with the fixture `fixture/` beside it."""
    (folder / "fixture" / "adapter").mkdir(parents=True, exist_ok=True)
    (folder / "fixture" / "adapter" / "config.json").write_text("{}")
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"format": 1, "cells": cells, **more}))
    return plan


def cell(id: str, do: str = "nothing", limit_s: float = 30.0, **more: Any) -> dict[str, Any]:
    """A cell of the fake handler."""
    common = {"kind": "replay", "scenario": {}, "fixture": "fixture"}
    return {"id": id, **common, "do": do, "time_limit_s": limit_s, **more}


def command(plan: Path, *options: str) -> list[str]:
    """The command line, with `out/` beside the plan."""
    worker = [sys.executable, str(WORKER), "--plan", str(plan), "--out", str(plan.parent / "out")]
    return [*worker, "--handler", str(HANDLER), *options]


def run(plan: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run(command(plan, *options), capture_output=True, text=True, timeout=20, check=False)


def outcomes(plan: Path) -> dict[str, str]:
    """Id → outcome of every cell that has a reply."""
    replies = [json.loads(path.read_text()) for path in (plan.parent / "out" / "cells").glob("*/reply.json")]
    return {reply["id"]: reply["outcome"] for reply in replies}


CELLS = [cell("a"), cell("b", "sigsegv"), cell("c", "loop", 1.0), cell("d", "exit"), cell("e", "raise"), cell("f")]
ENDED = {"a": "done", "b": "died", "c": "timeout", "d": "died", "e": "error", "f": "done"}


@pytest.mark.parametrize("options", [["--jobs", "2"], ["--no-fork"]], ids=["forked", "in one process"])
def test_every_cell_gets_a_reply(tmp_path: Path, options: list[str]) -> None:
    plan = write_plan(tmp_path, *CELLS)
    ended = run(plan, *options)
    assert ended.returncode == 0, ended.stderr
    assert outcomes(plan) == ENDED
    assert "[6/6]" in ended.stderr
    first = tmp_path / "out" / "cells" / "0"
    assert sorted(path.name for path in first.iterdir()) == ["log.txt", "now", "reply.json", "request.json"]
    assert json.loads((first / "request.json").read_text()) == {**CELLS[0], "device": "cpu"}
    assert json.loads((tmp_path / "out" / "hello.json").read_text())["facts"]["numerics"]["hash_seed"] == "0"


def test_a_rerun_does_what_is_left_or_has_changed(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, cell("a"), cell("b"))
    run(plan, "-k", "a")
    assert outcomes(plan) == {"a": "done"}
    results = [tmp_path / "out" / "cells" / str(n) / "now" / "result.json" for n in range(3)]
    before = results[0].read_text()
    assert "1 of 2 cells to run" in run(plan).stderr
    assert outcomes(plan) == {"a": "done", "b": "done"}
    assert results[0].read_text() == before
    write_plan(tmp_path, cell("a"), cell("b", given=1), cell("c"))
    assert "2 of 3 cells to run" in run(plan).stderr
    assert results[0].read_text() == before
    assert json.loads(results[1].read_text())["given"] == 1


def test_ids_are_chosen_as_they_stand(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, cell("lora@v061:current[cpu]"), cell("lora@v061:current[cuda]"))
    assert run(plan, "-k", "*current[cpu]").returncode == 0
    assert list(outcomes(plan)) == ["lora@v061:current[cpu]"]


@pytest.mark.parametrize("options", [[], ["--no-fork"]], ids=["forked", "in one process"])
def test_ctrl_c_keeps_what_was_done(tmp_path: Path, options: list[str]) -> None:
    go = tmp_path / "go"
    plan = write_plan(tmp_path, cell("a"), cell("b", "wait_for", file=str(go)))
    with subprocess.Popen(command(plan, *options), stderr=subprocess.DEVNULL, start_new_session=True) as process:
        end = time.monotonic() + 10
        while not (tmp_path / "out" / "cells" / "1" / "log.txt").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(5) == 130
    assert outcomes(plan) == {"a": "done"}
    go.touch()
    assert run(plan, *options).returncode == 0
    assert outcomes(plan) == {"a": "done", "b": "done"}


def test_an_environment_that_does_not_import(tmp_path: Path) -> None:
    ended = run(write_plan(tmp_path, cell("a"), preload=["raise"]))
    assert ended.returncode == 2
    assert "no module named frobnicate" in ended.stderr
    assert json.loads((tmp_path / "out" / "hello.json").read_text())["outcome"] == "error"


def test_a_wrong_plan_says_so(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, cell("a"))
    assert "none of its 1 cells matches 'x'" in run(plan, "-k", "x").stderr
    plan.write_text('{"format": 2}')
    assert "not a plan of format 1" in run(plan).stderr
    plan.write_text("{")
    assert run(plan).returncode == 64


HOSTILE: list[dict[str, Any]] = [
    {"cells": None}, {"cells": "abc"}, {"cells": {}}, {"preload": 5}, {"cells": [None]}, {"cells": [[]]},
    {"cells": [{}]}, {"cells": [cell("a") | {"id": 5}]}, {"cells": [cell("a\x1b]52;c;x\x07")]},
    {"cells": [cell("\ud800")]}, {"cells": [cell("a") | {"kind": None}]}, {"cells": [cell("a") | {"scenario": "x"}]},
    *({"cells": [cell("a", fixture=fixture)]} for fixture in (5, ["x"], "/etc", "..", "fixture/../../..")),
    *({"cells": [cell("a") | {"time_limit_s": limit}]} for limit in (float("nan"), float("inf"), -1, 0, "x")),
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: json.dumps(change)[:60])
def test_a_plan_that_was_changed_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    plan = write_plan(tmp_path)
    plan.write_text(json.dumps({"format": 1, "cells": [cell("a")], "preload": []} | change))
    _must_be_refused(plan)


@pytest.mark.parametrize("text", [b"", b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"null"])
def test_a_plan_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(text)
    _must_be_refused(tmp_path / "plan.json")


def test_a_pipe_in_the_place_of_a_plan_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    _must_be_refused(tmp_path / "plan.json")


def _must_be_refused(plan: Path) -> None:
    ended = run(plan)
    assert ended.returncode == 64, ended
    assert ended.stderr.startswith("worker: ")
    assert "Traceback" not in ended.stderr
    assert ended.stderr.rstrip("\n").isprintable()
    assert not (plan.parent / "out").exists()


def test_what_a_cell_says_does_not_control_the_terminal(tmp_path: Path) -> None:
    ended = run(write_plan(tmp_path, cell("a", "raise", text="\x1b]52;c;aGk=\x07\ud800")))
    assert ended.returncode == 0
    assert "]52;c;aGk=" in ended.stderr
    assert ended.stderr.replace("\n", "").isprintable()
