"""What a cell does to its process, or to the worker, costs that cell and no other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from harness.core.observation import Done
from harness.runner.workers import job as job_module
from harness.runner.workers import pool as pool_module
from harness.runner.workers import start_limit
from harness.runner.workers.job import Job
from harness.runner.workers.pool import Pool, WorkerFailed
from harness.runner.workers.process import WORKER, WorkerProcess
from harness.runner.workers.start_limit import StartLimit
from harness.worker.process import busy

FAKES = Path(__file__).parents[1] / "support" / "fakes"
WAIT_S = 20.0
LINUX = sys.platform.startswith("linux")

Start = Callable[..., Pool]


def server(*options: str) -> list[str]:
    """The real worker with the fake handler."""
    return [sys.executable, str(WORKER), "--serve", "--handler", str(FAKES / "handler.py"), *options]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts pools; closes them after the test."""
    pools: list[Pool] = []

    def start_one(**options: Any) -> Pool:
        defaults: dict[str, Any] = {"jobs": 2, "log_dir": tmp_path / f"log{len(pools)}", "command": server()}
        pools.append(Pool(Path(sys.executable), **{**defaults, **options}))
        return pools[-1]

    yield start_one
    for pool in pools:
        pool.close()


class Cells:
    """Submits cells of the fake handler."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder, self.count = pool, folder, 0

    def submit(self, do: str = "nothing", limit_s: float = 30.0, **more: Any) -> Any:
        self.count += 1
        id = f"{do}-{self.count}"
        request = {"kind": "replay", "do": do, **more}
        return self.pool.submit(Job(id, request, self.folder / id, limit_s))

    def do(self, do: str, limit_s: float = 30.0, **more: Any) -> Done:
        done = self.submit(do, limit_s, **more).result(3 * WAIT_S)
        assert isinstance(done, Done)
        return done


@pytest.fixture
def cells(start: Start, tmp_path: Path) -> Cells:
    """Cells of a pool with two jobs."""
    return Cells(start(), tmp_path / "scratch")


def gone(pid: int) -> bool:
    """True where the process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Waits for something that is about to happen."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_cells_run_at_the_same_time_in_processes_of_their_own(cells: Cells, tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    done = [f.result(WAIT_S) for f in [cells.submit("meet", meeting=str(meeting)) for _ in range(2)]]
    assert [d.outcome for d in done] == ["done", "done"]
    pids = {json.loads((cells.folder / d.id / "now/result.json").read_text())["pid"] for d in done}
    assert len(pids) == 2
    assert cells.pool.facts()["pid"] not in pids


def test_never_more_at_once_than_jobs(start: Start, tmp_path: Path) -> None:
    cells = Cells(start(jobs=1), tmp_path / "scratch")
    file = tmp_path / "go"
    first, second = cells.submit("wait_for", file=str(file)), cells.submit()
    until(lambda: (cells.folder / "wait_for-1" / "log.txt").exists())
    assert not (cells.folder / "nothing-2").exists()
    file.touch()
    assert [f.result(WAIT_S).outcome for f in (first, second)] == ["done", "done"]


FAULTS = [
    # what a cell does, its limit, outcome, in detail, in the log's tail
    ("sigkill", 30.0, "died", "SIGKILL", ""),
    ("sigsegv", 30.0, "died", "SIGSEGV", "in do_sigsegv"),
    ("exit", 30.0, "died", "exit code 0 before its work was done", ""),
    ("raise", 30.0, "error", "ValueError: a mistake of ours", "a mistake of ours"),
]


@pytest.mark.parametrize(("do", "limit_s", "outcome", "detail", "log"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_costs_its_own_cell_only(
    cells: Cells, tmp_path: Path, do: str, limit_s: float, outcome: str, detail: str, log: str
) -> None:
    go = tmp_path / "go"
    beside = cells.submit("wait_for", file=str(go))
    done = cells.do(do, limit_s)
    assert (done.outcome, done.note) == (outcome, "")
    assert detail in done.detail
    assert log in done.log_tail
    go.touch()
    assert beside.result(WAIT_S).outcome == "done"
    assert cells.do("nothing").outcome == "done"
    assert len(list((tmp_path / "log0").iterdir())) == 1, "the worker itself lived on"


def test_a_cell_that_ignores_sigterm_dies_with_its_children(cells: Cells) -> None:
    beside = cells.submit()
    done = cells.do("stubborn", 1.0)
    assert done.outcome == "timeout"
    for pid in (cells.folder / done.id / "pids").read_text().split():
        until(lambda pid=pid: gone(int(pid)))  # type: ignore[misc]
    assert beside.result(WAIT_S).outcome == "done"


def test_what_a_cell_leaves_running_is_killed(cells: Cells) -> None:
    done = cells.do("leave_child")
    assert done.outcome == "done"
    until(lambda: gone(int((cells.folder / done.id / "pids").read_text())))


def test_a_cell_that_kills_the_worker_alone_is_blamed(start: Start, tmp_path: Path) -> None:
    cells = Cells(start(jobs=1), tmp_path / "scratch")
    futures = [cells.submit(), cells.submit("kill_server"), cells.submit()]
    before, guilty, after = [future.result(WAIT_S) for future in futures]
    assert (before.outcome, after.outcome) == ("done", "done")
    assert (guilty.outcome, guilty.note) == ("died", "")
    assert "SIGKILL" in guilty.detail
    assert "about to kill the server" in guilty.log_tail


def test_of_several_in_flight_the_one_that_kills_it_again_is_blamed(cells: Cells, tmp_path: Path) -> None:
    go = tmp_path / "go"
    innocent = cells.submit("wait_for", file=str(go))
    until(lambda: (cells.folder / "wait_for-1" / "log.txt").exists())
    guilty = cells.submit("kill_server")
    later = cells.submit()
    go_when_restarted(tmp_path, go)
    done = guilty.result(WAIT_S)
    assert done.outcome == "died"
    assert "SIGKILL" in done.detail
    assert "run twice" in done.note
    assert "again" in done.note
    assert innocent.result(WAIT_S).outcome == "done"
    assert "run twice: with 2 cells in flight" in innocent.result().note
    assert later.result(WAIT_S) == Done("nothing-3", "done", "", "doing nothing", later.result().duration_s)


def go_when_restarted(tmp_path: Path, go: Path) -> None:
    """Lets the waiting cell end once there is a second worker."""
    until(lambda: (tmp_path / "log0" / "worker-2.log").exists())
    go.touch()


def test_a_worker_that_dies_once_costs_no_cell(cells: Cells, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waiting = cells.submit("wait_for", file=str(go))
    until(lambda: (cells.folder / "wait_for-1" / "log.txt").exists())
    killing = cells.submit("kill_server_once", mark=str(tmp_path / "mark"))
    go_when_restarted(tmp_path, go)
    for future in (waiting, killing):
        assert future.result(WAIT_S).outcome == "done"
        assert "run twice" in future.result().note


def test_a_worker_killed_from_outside_while_idle_is_replaced(cells: Cells) -> None:
    pid = cells.pool.facts()["pid"]
    assert cells.do("nothing").outcome == "done"
    os.kill(pid, signal.SIGKILL)
    assert cells.do("nothing").outcome == "done"


def test_a_silent_worker_is_killed(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "GRACE_S", 0.3)
    monkeypatch.setattr(pool_module, "_TICK_S", 0.1)
    command = [sys.executable, str(FAKES / "garbage_server.py"), "silent"]
    cells = Cells(start(jobs=1, command=command), tmp_path / "scratch")
    done = cells.do("misbehave", 0.05)
    assert done.outcome == "timeout"
    assert "silent" in done.detail
    assert cells.do("nothing").outcome == "done"


@pytest.mark.skipif(not LINUX, reason="only Linux has a keeper")
def test_a_worker_that_a_cell_stops_goes_on(cells: Cells) -> None:
    assert cells.do("stop_server").outcome == "done"
    assert cells.do("nothing").outcome == "done"


HANGS = [
    # what a cell does, its limit, in the detail, in the log's tail
    ("loop", 1.0, "killed at 1 s", "in do_loop"),
    ("deadlock", 1.0, "killed at 1 s, of which it computed for 0", "in do_deadlock"),
    ("pause", 0.5, "killed at 0.5 s, of which it computed for 0", "in do_pause"),
    ("stop_itself", 1.0, "killed at 1 s", ""),
]


@pytest.mark.parametrize(("do", "limit_s", "detail", "log"), HANGS, ids=[hang[0] for hang in HANGS])
def test_a_cell_that_hangs_runs_once_more_alone(
    cells: Cells, tmp_path: Path, do: str, limit_s: float, detail: str, log: str
) -> None:
    beside = cells.submit("compute", seconds=0.2)
    begin = time.monotonic()
    done = cells.do(do, limit_s)
    if done.outcome == "starved" and busy() > 5:
        pytest.skip("this machine is too busy for a loop to use up its second")
    assert done.outcome == "timeout"
    assert detail in done.detail
    assert log in done.log_tail
    assert done.note.startswith("run twice: the first time, killed at ")
    assert time.monotonic() - begin > 2 * limit_s
    assert beside.result(WAIT_S).outcome == "done"
    assert cells.do("nothing").outcome == "done"
    assert len(list((tmp_path / "log0").iterdir())) == 1, "the worker itself lived on"


def test_a_cell_that_is_slow_only_beside_others_is_no_timeout(cells: Cells, tmp_path: Path) -> None:
    done = cells.do("loop_once", 0.5, mark=str(tmp_path / "mark"))
    assert (done.outcome, done.note[:9]) == ("done", "run twice")


def test_after_three_that_hung_twice_the_next_is_believed(cells: Cells) -> None:
    notes = [cells.do("deadlock", 0.2).note != "" for _ in range(4)]
    assert notes == [True, True, True, False]
    assert cells.do("nothing").outcome == "done"


@contextlib.contextmanager
def busy_machine(each: int) -> Iterator[None]:
    """That many processes for each core, which compute all the time, each on its core."""
    pinned = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})"
    command = [sys.executable, "-c", f"{pinned}\nwhile True: pass"]
    cores = sorted(os.sched_getaffinity(0)) * each
    processes = [subprocess.Popen([*command, str(core)]) for core in cores]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.skipif(not LINUX, reason="only Linux says who waits for a processor")
def test_on_a_busy_machine_a_limit_is_in_the_time_that_the_cell_had(cells: Cells) -> None:
    with busy_machine(5):
        done = cells.do("compute", 0.7, seconds=0.4)
    assert (done.outcome, done.note) == ("done", "")
    if done.duration_s <= 0.7:
        pytest.skip("the other processes did not slow it down: by the clock too, it took less than its limit")


@pytest.mark.skipif(not LINUX, reason="only Linux says who waits for a processor")
def test_a_cell_that_gets_no_processor_is_starved(cells: Cells) -> None:
    with busy_machine(2):
        for _ in range(3):  # it is the system that shares out the processors, so one try may get enough
            done = cells.do("compute_last", 0.3, seconds=2.0)
            if done.outcome == "starved":
                break
    assert (done.outcome, done.note[:9]) == ("starved", "run twice")
    assert "s it had the machine for 0." in done.detail


def test_100_mb_printed_do_no_harm(cells: Cells) -> None:
    beside = cells.submit()
    done = cells.do("print")
    assert done.outcome == "done"
    log = cells.folder / done.id / "log.txt"
    assert log.stat().st_size < 1 << 20
    text = log.read_text()
    assert "the first line" in text
    assert "bytes left out" in text
    assert "the last line" in done.log_tail
    assert beside.result(WAIT_S).outcome == "done"
    assert cells.do("nothing").outcome == "done"


def test_what_c_prints_goes_to_the_log(cells: Cells) -> None:
    done = cells.do("print_in_c")
    assert done.outcome == "done"
    assert {"from C", "from C, unbuffered", "from a shell", "doing print_in_c"} <= set(done.log_tail.splitlines())


GARBAGE = [
    ("text", r"'Loading checkpoint shards\x1b[2K\n'"),
    ("unknown-id", "somebody else"),
    ("no-outcome", "no reply"),
    ("close", "closed its stdout"),
    ("deep", "no reply: '[[["),
    *((what, "no reply") for what in ("a list", "NaN", "words", "a number", "digits")),
]


@pytest.mark.parametrize(("what", "detail"), GARBAGE)
def test_a_worker_that_writes_garbage_is_replaced(start: Start, tmp_path: Path, what: str, detail: str) -> None:
    command = [sys.executable, str(FAKES / "garbage_server.py"), what]
    cells = Cells(start(jobs=2, command=command), tmp_path / "scratch")
    good, bad, later = cells.submit(), cells.submit("misbehave"), cells.submit()
    assert bad.result(WAIT_S).outcome == "died"
    assert detail in bad.result().detail
    assert [future.result(WAIT_S).outcome for future in (good, later)] == ["done", "done"]


STARTS = [
    ({"command": [sys.executable, str(FAKES / "garbage_server.py"), "die"]}, "2 times", "can't start"),
    ({"command": [sys.executable, str(FAKES / "garbage_server.py"), "hello"]}, "Loading checkpoint", ""),
    ({"command": ["/nowhere/python"]}, "/nowhere/python does not start", ""),
    ({"preload": ["exit"]}, "exit code 3", "printed at import"),
    ({"preload": ["raise"]}, "does not import", "no module named frobnicate"),
    ({"preload": ["hang"], "start_limit": StartLimit(0.3)}, "--startup-timeout", ""),
]


@pytest.mark.parametrize(
    ("options", "found", "log"), STARTS, ids=["dies", "garbage", "none", "exits", "raises", "hangs"]
)
def test_a_worker_that_does_not_start_fails_everything(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], found: str, log: str
) -> None:
    monkeypatch.setattr(pool_module, "_TICK_S", 0.1)
    pool = start(**options)
    cells = Cells(pool, tmp_path / "scratch")
    futures = [cells.submit(), cells.submit()]
    with pytest.raises(WorkerFailed) as failed:
        pool.facts()
    assert found in str(failed.value)
    assert log in failed.value.tail
    for future in [*futures, cells.submit()]:
        with pytest.raises(WorkerFailed):
            future.result(WAIT_S)
    other = Cells(start(), tmp_path / "other")
    assert other.do("nothing").outcome == "done"


def test_two_pools_do_not_meet(start: Start, tmp_path: Path) -> None:
    both = [Cells(start(), tmp_path / f"scratch{n}") for n in range(2)]
    guilty = both[0].submit("kill_server")
    futures = [both[1].submit(given=n) for n in range(10)]
    assert {future.result(WAIT_S).note for future in futures} == {""}
    assert guilty.result(WAIT_S).outcome == "died"


def test_200_cells(start: Start, tmp_path: Path) -> None:
    cells = Cells(start(jobs=4), tmp_path / "scratch")
    futures = [cells.submit(given=n) for n in range(200)]
    assert {future.result(WAIT_S).outcome for future in futures} == {"done"}


def test_cancel_pending_leaves_alone_what_runs(start: Start, tmp_path: Path) -> None:
    cells = Cells(start(jobs=1), tmp_path / "scratch")
    go = tmp_path / "go"
    running, waiting = cells.submit("wait_for", file=str(go)), cells.submit()
    until(lambda: (cells.folder / "wait_for-1" / "log.txt").exists())
    cells.pool.cancel_pending()
    go.touch()
    assert waiting.cancelled()
    assert running.result(WAIT_S).outcome == "done"


def test_close_leaves_no_process_behind(cells: Cells) -> None:
    future = cells.submit("stubborn")
    waiting = [cells.submit("stubborn") for _ in range(3)]
    pids = cells.folder / "stubborn-1" / "pids"
    until(pids.exists)
    processes = [cells.pool.facts()["pid"], *map(int, pids.read_text().split())]
    begin = time.monotonic()
    cells.pool.close()
    assert time.monotonic() - begin < 2
    for pid in processes:
        until(lambda pid=pid: gone(pid))  # type: ignore[misc]
    for each in [future, *waiting]:
        with pytest.raises(CancelledError):
            each.result(0)
    with pytest.raises(RuntimeError, match="closed"):
        cells.submit()


def test_the_end_of_a_worker_that_was_closed_is_no_result(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    future = cells.submit("stubborn")
    until((cells.folder / "stubborn-1" / "pids").exists)
    kill = WorkerProcess.kill

    def slowly(worker: Any) -> None:
        kill(worker)
        time.sleep(0.2)  # the pool's thread sees the end of the worker before it is woken

    monkeypatch.setattr(WorkerProcess, "kill", slowly)
    cells.pool.close()
    with pytest.raises(CancelledError):
        future.result(0)


def test_an_id_is_taken_until_its_job_ended(cells: Cells, tmp_path: Path) -> None:
    job = Job("same", {"kind": "replay"}, tmp_path / "same", 30.0)
    first = cells.pool.submit(job)
    with pytest.raises(ValueError, match="same"):
        cells.pool.submit(job)
    assert first.result(WAIT_S).outcome == "done"


CONTROLLER = """
import sys
from pathlib import Path

from harness.runner.workers.job import Job
from harness.runner.workers.pool import Pool

folder, command, closes = Path(sys.argv[1]), sys.argv[3:], sys.argv[2] == "closes"
pool = Pool(Path(sys.executable), jobs=2, log_dir=folder / "log", command=command)
futures = [pool.submit(Job(str(n), {"kind": "replay", "do": "stubborn"}, folder / str(n), 60.0)) for n in range(4)]
(folder / "server").write_text(str(pool.facts()["pid"]))
try:
    futures[0].result()
finally:
    if closes:
        pool.close()
"""


@pytest.mark.parametrize(
    ("number", "closes"),
    [(signal.SIGINT, "closes"), (signal.SIGINT, "forgets"), (signal.SIGTERM, "forgets"), (signal.SIGKILL, "forgets")],
)
def test_nothing_outlives_the_controller(tmp_path: Path, number: signal.Signals, closes: str) -> None:
    command = [sys.executable, "-c", CONTROLLER, str(tmp_path), closes, *server()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]) as controller:
        files = [tmp_path / "0" / "pids", tmp_path / "1" / "pids", tmp_path / "server"]
        until(lambda: all(file.exists() for file in files), 10.0)
        begin = time.monotonic()
        controller.send_signal(number)
        controller.wait(WAIT_S)
        pids = [int(pid) for file in files for pid in file.read_text().split()]
        until(lambda: all(gone(pid) for pid in pids), 2.0)
        assert time.monotonic() - begin < 2


def test_without_fork_a_crash_costs_one_cell_too(start: Start, tmp_path: Path) -> None:
    cells = Cells(start(jobs=1, command=server("--no-fork")), tmp_path / "scratch")
    futures = [
        cells.submit(do, 0.5 if do == "loop" else 30.0) for do in ("nothing", "sigsegv", "raise", "loop", "exit")
    ]
    futures.append(cells.submit())
    outcomes = [future.result(WAIT_S).outcome for future in futures]
    assert outcomes == ["done", "died", "error", "timeout", "died", "done"]
    assert "SIGSEGV" in futures[1].result().detail
    assert "in do_loop" in futures[3].result().log_tail


def test_a_dead_worker_is_noticed_though_its_stdout_is_held_open(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_TICK_S", 0.1)
    cells = Cells(start(jobs=1, command=server("--no-fork")), tmp_path / "scratch")
    done = cells.do("exit_and_hold")
    assert (done.outcome, done.detail) == ("died", "the worker process ended: exit code 3")
    assert cells.do("nothing").outcome == "done"


def test_the_worker_sees_nothing_of_ours(start: Start) -> None:
    environ = {**os.environ, "PYTHONPATH": "/nowhere", "OMP_NUM_THREADS": "7"}
    facts = start(environ=environ).facts()
    assert facts["pythonpath"] is None
    assert not [entry for entry in facts["path"] if entry.startswith(str(WORKER.parent))]
    assert facts["numerics"]["environ"]["OMP_NUM_THREADS"] == "1"
    assert facts["numerics"]["hash_seed"] == "0"
    assert start(environ=environ, untouched=True).facts()["pythonpath"] == "/nowhere"


@pytest.mark.parametrize(
    ("asked", "busy", "limit"), [(None, 0.0, 300), (None, 0.5, 300), (None, 4.0, 1200), (20.0, 4.0, 20)]
)
def test_the_limit_of_a_start_grows_with_the_load(
    monkeypatch: pytest.MonkeyPatch, asked: float | None, busy: float, limit: float
) -> None:
    monkeypatch.setattr(start_limit, "busy", lambda: busy)
    assert StartLimit(asked).seconds() == limit


def test_a_start_that_takes_too_long_says_how_to_wait_longer_and_not_to_rebuild(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start_limit, "busy", lambda: 7.2)
    found, expected, next_step = StartLimit().missed(300)
    assert found.endswith(
        "said nothing for 300 s after its start; the machine is busy, with 7.2 processes for each core"
    )
    assert "in that time" in expected
    assert next_step == "wait until the machine is less busy, or --startup-timeout 600"
    assert "rebuild" not in str(WorkerFailed(found, "", expected, next_step))
