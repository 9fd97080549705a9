"""Ctrl-C, kill -9, two runs at once: what is finished is kept, nothing goes on running, a run can be resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.core import run_file
from tests.end_to_end.test_against import FIX, edit, unpacked
from tests.end_to_end.test_environments import declare, named
from tests.support.mini import releases
from tests.support.mini.world import Said, World, ended, interrupt, scenario, until

__all__ = ["named"]

SLOW = ["slow-a", "slow-b"]


@pytest.fixture
def waiting(mini: World) -> World:
    """A world with two cells that finish and two that wait for the gate, the waiting ones first."""
    mini.scenarios(*(scenario(name, fault="wait") for name in SLOW), file="a-slow")  # before the others
    assert mini.run("create", mini.spec("1.0"), "-k", "slow").code == 0
    mini.trace.unlink()
    return mini


def begin(world: World, *more: str) -> subprocess.Popen[str]:
    """Starts a check, and waits until what can finish has finished."""
    process = world.start("check", "--loader", world.spec("2.0"), "-k", "not later", "--jobs", "4", *more)
    until(lambda: len(world.kept()) >= 2 and len(world.traced("replay")) == 4, "the cells did not come so far")
    return process


def resumed(world: World, *more: str) -> Said:
    """The same command with `--resume`, the gate open."""
    world.gate.touch()
    return world.spawn("check", "--loader", world.spec("2.0"), "-k", "not later", "--jobs", "4", "--resume", *more)


def check_interrupted(world: World, said: Said, seconds: float) -> None:
    assert said.code == 130, said
    assert seconds < 10
    assert "INTERRUPTED" in said.out
    run = world.report()
    assert run.interrupted
    assert run.exit_code == 130
    assert sorted(cell.scenario for cell in run.cells) == sorted(world.kept()) == ["one-layer", "two-layers"]
    assert {cell.verdict for cell in run.cells} == {"exact"}
    assert len(run.plan) == 4
    until(lambda: not world.processes(), f"still there: {world.processes()}")


def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(waiting: World) -> None:
    process = begin(waiting)  # the two that finish stand behind those that do not
    begun = time.monotonic()
    said = interrupt(process)
    check_interrupted(waiting, said, time.monotonic() - begun)
    again = resumed(waiting)
    assert again.code == 0, again
    assert "resuming: 2 of 4 cells are done" in again.err
    (folder,) = waiting.reports.iterdir()
    run = run_file.load(folder)
    assert not run.interrupted
    assert waiting.verdicts() == dict.fromkeys([*SLOW, "one-layer", "two-layers"], "exact")
    replays = waiting.traced("replay")
    assert replays.count("one-layer") == replays.count("two-layers") == 1
    assert replays.count("slow-a") == 2
    third = resumed(waiting)
    assert third.code == 64
    assert "no unfinished run of these 4 cells" in third.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU])
def test_a_signal_keeps_what_is_finished_and_ends_the_workers(
    waiting: World, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    process = begin(waiting)
    begun = time.monotonic()
    os.killpg(process.pid, number)  # a closed terminal and Ctrl-\ signal the whole group
    check_interrupted(waiting, ended(process), time.monotonic() - begun)
    assert not list((tmp_path / "temporary").iterdir())


def test_under_nohup_a_closed_terminal_ends_nothing(waiting: World) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = begin(waiting)
    finally:
        signal.signal(signal.SIGHUP, before)
    os.killpg(process.pid, signal.SIGHUP)
    waiting.gate.touch()
    said = ended(process)
    assert said.code == 0, said
    assert not waiting.report().interrupted


@pytest.mark.slow
def test_ctrl_c_under_xdist(waiting: World) -> None:
    slow = waiting.matrices / "scenarios" / "a-slow.toml"
    slow.rename(slow.with_name("z-slow.toml"))  # under xdist cells are kept in their order
    process = begin(waiting, "-n", "2")
    begun = time.monotonic()
    said = interrupt(process)
    assert said.code == 130, said
    assert time.monotonic() - begun < 15
    until(lambda: not waiting.processes(), f"still there: {waiting.processes()}")
    again = resumed(waiting, "-n", "2")
    assert again.code == 0, again
    assert waiting.verdicts() == dict.fromkeys([*SLOW, "one-layer", "two-layers"], "exact")


def test_ctrl_c_while_the_libraries_import(mini: World) -> None:
    program = mini.loaders / "python-hanging"
    hang = 'case "$*" in *--serve*) echo started >> "$MINI_TRACE.started"; sleep 600;; esac'
    releases.script(program, f'{hang}\nexec "{mini.spec("2.0").removeprefix("python:")}" "$@"')
    process = mini.start("check", "--loader", f"python:{program}")
    until(lambda: mini.trace.with_name("trace.started").exists())
    begun = time.monotonic()
    said = interrupt(process)
    assert said.code == 130, said
    assert time.monotonic() - begun < 10
    assert mini.report().interrupted


def test_kill_9_loses_nothing_and_resume_goes_on(waiting: World) -> None:
    process = begin(waiting)
    os.kill(process.pid, signal.SIGKILL)
    ended(process)
    until(lambda: not waiting.processes(), f"still there: {waiting.processes()}")
    (folder,) = waiting.reports.iterdir()
    assert not (folder / "report.json").exists()
    with (folder / "cells.jsonl").open("a") as file:
        file.write('{"id": "torn')
    waiting.expect(id="elsewhere", loaders="minipeft==2.1")
    said = resumed(waiting)
    assert said.code == 0, said
    assert list(waiting.reports.iterdir()) == [folder]
    assert waiting.traced("replay").count("one-layer") == 1
    assert sorted(waiting.kept()) == sorted([*SLOW, "one-layer", "two-layers"])


@pytest.mark.slow
def test_expectations_by_version_hold_where_all_cells_were_done_before(waiting: World) -> None:
    """The resumed part never starts the loader of the finished cells, and must know its versions all the same."""
    waiting.expect(scenarios=["*"], id="known", kinds=["values"])
    two = ["check", "--loader", waiting.spec("2.1"), "--loader", waiting.spec("2.0"), "-k", "two-layers or slow-a"]
    only = ["--cell", waiting.id("two-layers", "2.1"), "--cell", waiting.id("slow-a", "2.0")]
    process = waiting.start(*two, *only)
    until(lambda: waiting.kept() == ["two-layers"] and "slow-a" in waiting.traced("replay"))
    os.kill(process.pid, signal.SIGKILL)
    ended(process)
    waiting.gate.touch()
    said = waiting.spawn(*two, *only, "--resume")
    assert said.code == 0, said
    assert "1 known break" in said.line


@pytest.mark.slow
def test_two_runs_at_once_do_not_harm_each_other(waiting: World) -> None:
    first, second = begin(waiting), begin(waiting)
    until(lambda: len(waiting.kept()) == 4)
    refused = waiting.spawn("check", "--loader", waiting.spec("2.0"), "-k", "not later", "--resume")
    assert refused.code == 64, refused  # both are under way: there is nothing to go on with
    waiting.gate.touch()
    assert [ended(process).code for process in (first, second)] == [0, 0]
    folders = list(waiting.reports.iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert run_file.load(folder).counts["exact"] == 4
    until(lambda: not waiting.processes(), f"still there: {waiting.processes()}")


def test_a_check_of_a_change_that_was_killed_is_remembered(named: World) -> None:
    """kill -9 after the first baseline's cell, and Ctrl-C after that: the next check takes up what they computed."""
    declare(named, "current", "2.0")
    assert named.run("env", "lock", "current").code == 0
    named.scenarios(*(scenario(name, fault="wait") for name in SLOW), file="z-slow")
    assert named.run("create", "v1").code == 0
    named.trace.unlink()
    tree = unpacked(named)
    edit(tree / "minipeft.py", *FIX)
    asked = ("check", "--against", str(tree), "--every-scenario", "--jobs", "4")
    process = named.start(*asked)
    until(lambda: len(named.kept()) == 4, "the cells did not come so far")
    os.kill(process.pid, signal.SIGKILL)
    ended(process)
    process = named.start(*asked, "--resume")
    until(lambda: len(named.traced("replay")) >= 12, "the waiting cells did not start again")
    said = interrupt(process)
    assert said.code == 130, said
    cells = re.search(r"8 cells: 4 under the change, 4 under the baseline; (\d) (?:is|are) remembered", said.err)
    assert cells is not None, said
    assert int(cells[1]) >= 1, "a cell is remembered after the next look at the environment's files"
    assert "resuming: 4 of 8 cells are done" in said.err
    assert {comparison.change for comparison in named.report().comparisons} == {"regressed"}
    named.gate.touch()
    said = named.spawn(*asked, "--resume")
    assert said.code == 1, said
    assert {cell.scenario for cell in named.report().cells} == {"one-layer", "two-layers", *SLOW}
    assert len(list(named.reports.iterdir())) == 1
    replays = named.traced("replay")
    assert replays.count("one-layer") <= 3, "once a side, and twice where it deviates"
