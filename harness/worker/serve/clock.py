"""How long a cell has had the machine. Time limits are in this time, so that a busy machine ends no cell too early.

It is the time on the clock, without the time in which a thread of the cell wanted to compute and got no processor, or
waited for the disk, and without the time in which the machine itself was stopped. An endless loop and a deadlock both
use it up; a cell beside ten others uses it up ten times as slowly.
"""

from __future__ import annotations

import contextlib
import os
import time

from ..process import busy
from . import tree

_LONGEST_GAP_S = 2.0
"""The worker looks several times a second. A longer gap, in which it did not run either, counts as this much."""
_SHORTEST_S = 0.1
_NANO = 1e-9


class Clock:
    """The time of one cell and its descendants."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.had_s = 0.0
        self.processes = 1
        self.computed_s = 0.0
        """Processor time of all its threads, at the last look."""
        self._started = self._looked = time.monotonic()
        self._times: dict[str, tuple[int, int]] = {}
        """Thread → nanoseconds that it ran, and that it waited for a processor."""

    @property
    def passed_s(self) -> float:
        """Seconds on the clock."""
        return time.monotonic() - self._started

    def look(self) -> None:
        """Bring the times up to date. The kernel's figures are some milliseconds old, so not too often."""
        now = time.monotonic()
        if now < self._looked + _SHORTEST_S:
            return
        passed = min(now - self._looked, _LONGEST_GAP_S)
        self._looked = now
        pids = [self.pid, *tree.descendants(self.pid)]
        self.processes = len(pids)
        if tree.LINUX and (waited := self._waited_s(pids, passed)) is not None:
            self.had_s += max(0.0, passed - waited)
            self.computed_s = max(self.computed_s, tree.processor_s(pids))
        else:
            self.had_s += passed / max(1.0, busy())

    def _waited_s(self, pids: list[int], passed: float) -> float | None:
        """The longest that a thread waited for a processor or a disk; None where the kernel does not say."""
        waits: list[float] = []
        for pid in pids:
            with contextlib.suppress(OSError):  # it has just ended
                for task in os.listdir(f"/proc/{pid}/task"):
                    waits.append(self._waited_by(pid, task, passed))
        return min(passed, max(waits)) if waits else None

    def _waited_by(self, pid: int, task: str, passed: float) -> float:
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            ran, waited, _ = map(int, file.read().split())
        ran_before, waited_before = self._times.get(task, (0, 0))
        self._times[task] = ran, waited
        state = tree.state(pid, task)[:1]
        if state == ["D"]:
            return passed
        # The kernel adds a wait when it is over, so one that goes on is what a runnable thread did not run.
        still = passed - (ran - ran_before) * _NANO if state == ["R"] else 0.0
        return max((waited - waited_before) * _NANO, still)
