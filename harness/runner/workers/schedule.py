"""When a session's pools start and end: each shortly before its first cell, and after its last.

A loaded environment takes half a gigabyte, its import several seconds. Two loaders are alive at a time: the one whose
cells run, and the next one, which imports while the last cells of the first keep the other cores busy.
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
"""The next pool starts when this many cells are left for each job: they take about as long as its import."""


@dataclass(frozen=True)
class Key:
    """What a pool serves: an environment on a device, in a role."""

    spec: str
    device: str
    role: Role = "loader"
    traced: bool = False
    """Record what cells execute. Such a process does no work ahead, since that would count for each of its cells."""


@dataclass
class Pools:
    """Makes pools when they are used, and closes each after its last expected use.

    Args:
        make: makes a pool; does not wait for it.
        jobs: cells at once.
    """

    make: Callable[[Key], WorkerPool]
    jobs: int = 1
    _open: dict[Key, WorkerPool] = field(default_factory=dict)
    _expected: dict[Key, int] = field(default_factory=dict)
    """Uses still to come, in the order of their announcement."""
    _in_use: Counter[Key] = field(default_factory=Counter)
    _making: set[Key] = field(default_factory=set)
    _closed: bool = False
    _change: threading.Condition = field(default_factory=threading.Condition)

    def expect(self, key: Key) -> None:
        """Announce one more use. Call `done` when it is over, also if it never happened."""
        with self._change:
            self._expected[key] = self._expected.get(key, 0) + 1

    def done(self, key: Key) -> None:
        """Record that an expected use is over. The pool closes after the last one; shortly before, the next starts."""
        with self._change:
            was_open = key in self._open
            left = self._expected[key] = self._expected.get(key, 1) - 1
            if left <= 0:
                del self._expected[key]
            self._change.notify_all()
        self._close_unneeded(key)
        # a pool that never opened (its fixtures are stored already) says nothing about the next
        if was_open and (0 < left <= AHEAD * self.jobs or not self.each()):
            self._begin_after(key)

    @contextlib.contextmanager
    def use(self, key: Key) -> Iterator[WorkerPool]:
        """The pool, kept open within the block.

        Raises:
            Closed: the session ends.
            HarnessError: the environment can't be built.
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
        """The open pools."""
        with self._change:
            return list(self._open.values())

    def close(self) -> None:
        """Close all pools, and make no more."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for pool in self.each():
            pool.close()

    def _may_open(self, key: Key) -> bool:
        """True where there is room. If no open pool is in use, none would ever make room."""
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
            pool = self.make(key)  # may build an environment
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
        """Start the next pool of the same role if there is room. Its first cell reports a failure."""
        with self._change:
            waiting = [k for k in self._expected if k.role == key.role and k not in self._open and k != key]
            alive = [k for k in (*self._open, *self._making) if k.role == key.role]
            if self._closed or not waiting or len(alive) >= ALIVE or waiting[0] in self._making:
                return
            self._making.add(waiting[0])
        with contextlib.suppress(HarnessError, Closed):
            self._made(waiting[0])


class Closed(Exception):
    """The session ends: there are no pools any more."""
