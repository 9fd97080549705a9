"""How long a cell has had the machine, by a clock that jumps and for processes that wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from harness.worker.serve import clock, tree
from harness.worker.serve.clock import Clock


class Monotonic:
    """A clock that the test can move."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self._real = time.monotonic

    def __call__(self) -> float:
        return self._real() + self.ahead_s


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    moved = Monotonic()
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=moved))
    return moved


@pytest.fixture
def sleeping() -> Iterator[int]:
    """A process that waits for nothing that the machine lacks."""
    with subprocess.Popen(["sleep", "600"]) as process:
        time.sleep(0.1)
        yield process.pid
        process.kill()


def test_a_process_that_sleeps_uses_up_its_time(sleeping: int) -> None:
    found = Clock(sleeping)
    for _ in range(3):
        time.sleep(0.15)
        found.look()
    assert 0.3 < found.had_s <= found.passed_s
    assert found.computed_s < 0.1


def test_the_time_in_which_the_machine_was_stopped_does_not_count(sleeping: int, monotonic: Monotonic) -> None:
    """A virtual machine that was stopped, a laptop that slept: the clock jumps, and nothing ran meanwhile."""
    found = Clock(sleeping)
    monotonic.ahead_s = 3600
    found.look()
    assert found.passed_s >= 3600
    assert found.had_s <= 2


def test_a_clock_that_was_set_back_takes_nothing_away(sleeping: int, monotonic: Monotonic) -> None:
    found = Clock(sleeping)
    time.sleep(0.15)
    found.look()
    before = found.had_s
    monotonic.ahead_s = -3600
    found.look()
    assert found.had_s == before


@pytest.mark.parametrize("linux", [True, False])
def test_without_the_kernels_figures_the_load_divides_the_time(
    sleeping: int, monotonic: Monotonic, monkeypatch: pytest.MonkeyPatch, linux: bool
) -> None:
    monkeypatch.setattr(tree, "LINUX", linux)
    monkeypatch.setattr(clock, "busy", lambda: 4.0)
    monkeypatch.setattr(Clock, "_waited_s", lambda *_: None)
    found = Clock(sleeping)
    monotonic.ahead_s = 1.0
    found.look()
    assert 0.2 < found.had_s < 0.4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says so")
def test_it_counts_processes_and_what_they_compute() -> None:
    computes = "end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    program = f"import os, time\nos.fork()\n{computes}\ntime.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", program])
    found = Clock(process.pid)
    end = time.monotonic() + 20
    while found.computed_s < 0.3 and time.monotonic() < end:
        time.sleep(0.15)
        found.look()
    for pid in [*tree.descendants(process.pid), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert found.computed_s >= 0.3, "both"
    assert found.processes == 2
