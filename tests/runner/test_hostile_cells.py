"""A cell that attacks: it costs itself, never another cell, the worker, the controller or the store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.core import observation
from harness.core.observation import BadObservation, Done
from harness.runner.workers.job import Job
from harness.runner.workers.pool import Pool
from harness.runner.workers.process import WORKER, tail
from harness.worker.files import remove
from tests.runner.test_pool import LINUX, Cells, gone, until

HANDLER = Path(__file__).parents[1] / "support" / "fakes" / "hostile.py"
COMMAND = [sys.executable, str(WORKER), "--serve", "--handler", str(HANDLER)]
WAIT_S = 20.0
PLACES = ["fifo", "socket", "device", "link-to-device", "link-to-fifo", "link-to-file", "loop", "folder", "huge",
          "deep", "surrogate", "number", "bytes", "nothing", "unreadable"]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder that is the whole disk."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def cells(tmp_path: Path, disk: Path) -> Iterator[Cells]:
    """Cells of a pool with two jobs, on a disk of 64 MB."""
    with Pool(Path(sys.executable), jobs=2, log_dir=tmp_path / "log", preload=[str(disk)], command=COMMAND,
              environ={**os.environ, "TMPDIR": str(disk)}) as pool:  # fmt: skip
        yield Cells(pool, disk / "cells")


def still_well(cells: Cells) -> None:
    assert cells.do("nothing").outcome == "done"
    assert len(list((cells.folder.parents[1] / "log").iterdir())) == 1, "the worker itself lived on"


@pytest.mark.parametrize("by", PLACES)
@pytest.mark.parametrize("exits", [None, 0, 70], ids=["returns", "exits with 0", "exits with 70"])
def test_anything_in_the_place_of_a_file_costs_its_cell_only(cells: Cells, by: str, exits: int | None) -> None:
    beside = cells.submit()
    done = cells.do("replace", by=by, **({} if exits is None else {"exits": exits}))
    assert done.outcome in ("done", "died", "error")
    assert done.outcome != "done" or exits is None
    assert "root:" not in done.log_tail, "a link was followed"
    with pytest.raises(BadObservation):
        observation.read(cells.folder / done.id / "now")
    assert beside.result(WAIT_S).outcome == "done"
    still_well(cells)
    remove(cells.folder / done.id)
    assert not (cells.folder / done.id).exists()


@pytest.mark.parametrize("by", ["fifo", "link-to-device", "folder", "huge"])
def test_the_end_of_a_log_is_read_without_waiting(tmp_path: Path, by: str) -> None:
    log = tmp_path / "log"
    if by == "huge":
        log.touch()
        os.truncate(log, 1 << 40)
    elif by == "link-to-device":
        log.symlink_to("/dev/zero")
    else:
        os.mkfifo(log) if by == "fifo" else log.mkdir()
    begin = time.monotonic()
    assert not tail(log).strip("\0")
    assert time.monotonic() - begin < 1


def test_no_number_that_a_cell_wrote_is_killed(cells: Cells) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as victim:
        future = cells.submit("lie_about_its_process", pid=victim.pid)
        until((cells.folder / "lie_about_its_process-1" / "ready").exists)
        cells.pool.close()
        assert victim.poll() is None
        victim.kill()
    assert future.done()


@pytest.mark.skipif(not LINUX, reason="only Linux finds such processes")
def test_a_process_that_left_its_cells_session_ends_with_the_cell(cells: Cells) -> None:
    done = cells.do("detach")
    assert done.outcome == "done"
    until(lambda: gone(int((cells.folder / done.id / "detached").read_text())))
    still_well(cells)


@pytest.mark.skipif(not LINUX, reason="only Linux finds such processes")
@pytest.mark.parametrize("how", ["close", "kill the worker", "kill the controller"])
def test_a_process_that_left_its_cells_session_ends_with_the_worker(tmp_path: Path, how: str) -> None:
    program = (
        "import sys; from pathlib import Path; from harness.runner.workers.job import Job; "
        "from harness.runner.workers.pool import Pool\n"
        "pool = Pool(Path(sys.executable), jobs=1, log_dir=Path(sys.argv[1]) / 'log', command=sys.argv[2:])\n"
        "future = pool.submit(Job('one', {'kind': 'replay', 'do': 'detach', 'hangs': True}, Path(sys.argv[1]), 60.0))\n"
        "print(pool.facts()['pid'], flush=True)\n"
        "sys.stdin.readline()\n"
        "pool.close()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), *COMMAND]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[2]) as controller:
        assert controller.stdin is not None
        assert controller.stdout is not None
        worker = int(controller.stdout.readline())
        until((tmp_path / "detached").exists, 10.0)
        detached = int((tmp_path / "detached").read_text())
        if how == "close":
            controller.stdin.write(b"\n")
            controller.stdin.flush()
        elif how == "kill the worker":
            os.kill(worker, signal.SIGKILL)
        else:
            controller.kill()
        until(lambda: gone(detached) and gone(worker), 10.0)
        controller.kill()


@pytest.mark.skipif(not LINUX, reason="only Linux finds such processes")
def test_a_stopped_worker_ends_with_its_controller(tmp_path: Path) -> None:
    """The keeper lets the worker go on, which then sees the end of its requests."""
    command = [*COMMAND, "--log", str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        keeper.stdin.write(b'{"id": "hello", "kind": "hello"}\n')
        keeper.stdin.flush()
        worker = json.loads(keeper.stdout.readline())["facts"]["pid"]
        os.kill(worker, signal.SIGSTOP)
        keeper.stdin.close()
        until(lambda: gone(worker), 10.0)
        assert keeper.wait(5) == 0


@pytest.mark.skipif(not LINUX, reason="only Linux finds such processes")
def test_a_cell_with_too_many_processes_is_killed(cells: Cells) -> None:
    done = cells.do("multiply")
    assert done.outcome == "died"
    assert "processes" in done.detail
    still_well(cells)


@pytest.mark.parametrize("temporary", [False, True])
def test_a_cell_that_fills_the_disk_is_killed_and_the_others_run_again(cells: Cells, temporary: bool) -> None:
    innocent = cells.submit("write", megabytes=1, seconds=2.0)
    guilty = cells.submit("write", megabytes=62, temporary=temporary)
    assert guilty.result(WAIT_S).outcome == "died"
    assert "it wrote 6" in guilty.result().detail
    assert "MB; the disk" in guilty.result().detail
    left = [path.name for path in (cells.folder / "write-2").iterdir()]
    assert left == ["log.txt"], "its place was freed at once"
    assert innocent.result(WAIT_S).outcome == "done"
    assert "is full" in innocent.result().note
    still_well(cells)


def test_a_disk_that_others_filled_is_no_fault_of_a_cell(cells: Cells, disk: Path) -> None:
    (disk / "of others").write_bytes(b"x" * (62 << 20))
    done = cells.do("nothing")
    assert (done.outcome, done.note[:9]) == ("starved", "run twice")
    assert "is full: 1 MB are free" in done.detail or "is full: 2 MB are free" in done.detail
    (disk / "of others").unlink()
    still_well(cells)


def test_a_cell_that_writes_more_than_any_may_is_killed(tmp_path: Path) -> None:
    with Pool(Path(sys.executable), jobs=2, log_dir=tmp_path / "log", command=COMMAND) as pool:
        done = Cells(pool, tmp_path / "cells").do("write", megabytes=110)
    limits = {"died": "it wrote 1", "error": "File too large"}  # of the folder, and of one file: whichever comes first
    assert limits[done.outcome] in done.detail


def test_errors_of_a_full_disk_are_no_result(cells: Cells) -> None:
    done = cells.do("say_that_the_disk_is_full")
    assert (done.outcome, done.note[:9]) == ("starved", "run twice")


def test_a_cell_that_the_kernel_killed_for_memory_runs_once_more_alone(cells: Cells, disk: Path) -> None:
    done = cells.do("run_out_of_memory", disk=str(disk))
    assert done.outcome == "done"
    assert "the machine ran out of memory" in done.note


def test_a_folder_that_may_not_be_read_is_removed(cells: Cells) -> None:
    done = cells.do("lock_itself_in")
    assert done.outcome == "done"
    remove(cells.folder / done.id)
    assert not (cells.folder / done.id).exists()


def test_without_fork_the_next_cell_inherits_nothing(tmp_path: Path) -> None:
    command = [*COMMAND, "--no-fork"]
    with Pool(Path(sys.executable), jobs=1, log_dir=tmp_path / "log", command=command) as pool:
        cells = Cells(pool, tmp_path / "cells")
        outcomes = [cells.do(do).outcome for do in ("spoil_its_process", "look_around")]
        assert outcomes == ["done", "done"], cells.do("look_around")
        assert len(list((tmp_path / "log").iterdir())) == 1


def test_a_cell_that_closes_all_descriptors(cells: Cells) -> None:
    assert cells.do("close_everything").outcome == "done"
    still_well(cells)


def test_a_second_try_gets_its_inputs_anew(tmp_path: Path) -> None:
    """The first try changes its inputs and takes too long."""
    folder = tmp_path / "cell"

    def fill() -> None:
        (folder / "golden").mkdir(parents=True, exist_ok=True)
        (folder / "golden" / "observation.json").write_text("{}")

    fill()
    seen: list[bool] = []
    with Pool(Path(sys.executable), jobs=1, log_dir=tmp_path / "log", command=COMMAND) as pool:
        request: dict[str, Any] = {"kind": "replay", "do": "write", "megabytes": 0}

        def again() -> None:
            seen.append((folder / "golden").exists())
            fill()

        done: Done = pool.submit(Job("one", request, folder, 0.2, again)).result(WAIT_S)
    assert done.outcome == "timeout"
    assert seen == [False]
    assert (folder / "golden" / "observation.json").exists()
