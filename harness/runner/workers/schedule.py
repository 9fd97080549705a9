"""The pools of a session: each begins when its first cell comes near and ends with its last.

A loaded environment takes half a gigabyte and its import several seconds. Of twenty loaders two live at a time: the one
whose cells run, and the next, which imports while the last cells of the one before keep the other cores busy.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from harness.core.errors import HarnessError
from harness.runner.workers.gpus import WorkerPool

Role = Literal["loader", "creator"]
ALIVE = 2
"""Pools of one role at a time."""
AHEAD = 16
"""Cells left, for each one that runs at once, when the next pool begins: they last about as long as its import."""


@dataclass(frozen=True)
class Key:
    """What a pool is for: an environment, on a device, in a role."""

    spec: str
    device: str
    role: Role = "loader"


@dataclass
class Pools:
    """Makes pools when they are used, and closes each when what was expected of it is done.

    Args:
        make: makes a pool and does not wait for it.
        jobs: cells at once.
    """

    make: Callable[[Key], WorkerPool]
    jobs: int = 1
    _open: dict[Key, WorkerPool] = field(default_factory=dict)
    _expected: dict[Key, int] = field(default_factory=dict)
    """How many uses are still to come, in the order in which they were announced."""
    _in_use: Counter[Key] = field(default_factory=Counter)
    _making: set[Key] = field(default_factory=set)
    _closed: bool = False
    _change: threading.Condition = field(default_factory=threading.Condition)

    def expect(self, key: Key) -> None:
        """One more use is to come; `done` is to be told when it is over, whether it came to that or not."""
        with self._change:
            self._expected[key] = self._expected.get(key, 0) + 1

    def done(self, key: Key) -> None:
        """An expected use is over: after the last one its pool is closed; shortly before, the next begins."""
        with self._change:
            was_open = key in self._open
            left = self._expected[key] = self._expected.get(key, 1) - 1
            if left <= 0:
                del self._expected[key]
            self._change.notify_all()
        self._close_unneeded(key)
        # one that was not even opened (its fixtures are there already) tells nothing of the need for the next
        if was_open and (0 < left <= AHEAD * self.jobs or not self.each()):
            self._begin_after(key)

    @contextlib.contextmanager
    def use(self, key: Key) -> Iterator[WorkerPool]:
        """The pool, which stays open meanwhile.

        Raises:
            Closed: the session ends.
            HarnessError: the environment can't be had.
        """
        with self._change:
            self._change.wait_for(lambda: self._closed or self._may_open(key))
            if self._closed:
                raise Closed
            self._in_use[key] += 1
        try:
            yield self._opened(key)
        finally:
            with self._change:
                self._in_use[key] -= 1
                self._change.notify_all()
            self._close_unneeded(key)

    def each(self) -> list[WorkerPool]:
        """Those that are open."""
        with self._change:
            return list(self._open.values())

    def close(self) -> None:
        """Close all, and make none any more."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for pool in self.each():
            pool.close()

    def _may_open(self, key: Key) -> bool:
        """True where there is room. Where none of those that are open is at work, nothing would ever make room."""
        if key in self._open or key in self._making or self._in_use[key]:
            return True
        others = [other for other in (*self._open, *self._making) if other.role == key.role]
        return len(others) < ALIVE or not any(self._in_use[other] for other in others)

    def _opened(self, key: Key) -> WorkerPool:
        with self._change:
            self._change.wait_for(lambda: key not in self._making)
            if key in self._open:
                return self._open[key]
            if self._closed:
                raise Closed
            self._making.add(key)
        return self._made(key)

    def _made(self, key: Key) -> WorkerPool:
        try:
            pool = self.make(key)  # may build an environment, which takes its time
            with self._change:
                if not self._closed:
                    self._open[key] = pool
                    pool.start()
                    return pool
        finally:
            with self._change:
                self._making.discard(key)
                self._change.notify_all()
        raise Closed

    def _close_unneeded(self, key: Key) -> None:
        with self._change:
            needed = key in self._expected or self._in_use[key]
            pool = None if needed else self._open.pop(key, None)
            self._change.notify_all()
        if pool is not None:
            pool.close()

    def _begin_after(self, key: Key) -> None:
        """Begin the next pool of the same role, if there is room for it. What fails is told by its first cell."""
        with self._change:
            waiting = [k for k in self._expected if k.role == key.role and k not in self._open and k != key]
            alive = [k for k in (*self._open, *self._making) if k.role == key.role]
            if self._closed or not waiting or len(alive) >= ALIVE or waiting[0] in self._making:
                return
            self._making.add(waiting[0])
        with contextlib.suppress(HarnessError, Closed):
            self._made(waiting[0])


class Closed(Exception):
    """The session ends: there is no pool any more."""
