"""Runs each cell in a forked child and reports how it ended: a library that ends its process costs one cell.

A child inherits the imports (a fork takes milliseconds, the imports take seconds) and none of the other cells' state.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..files import remove
from ..process import signal_name
from ..shared import PATIENCE, Outcome, Reply, Request
from . import room, tree
from .clock import Clock
from .work import HARNESS_ERROR, Handles, by_exit, flush_all, fresh_log, redirect, trim_log, work

if sys.platform != "win32":
    import resource

DEFAULT_LIMIT_S = 120.0
_TICK_S = 0.25
"""How often a running cell is looked at: its time, its disk, its log. It also covers a lost SIGCHLD."""
_SAYS_WHERE_S = 0.1
"""Time for a cell at its limit to write to its log where it is."""
_MEASURE_S = 2.0
"""How often a cell's files are counted while the disk has room."""
_LOG_GROWN = 4 << 20
_MOST_PROCESSES = 512
_GC_THRESHOLD = 20_000
"""A cell runs for a second and makes models with reference cycles: collecting every 700 objects would cost more than it
frees."""


class _Child:
    """One running cell."""

    def __init__(self, pid: int, request: Request, limit_s: float, log: int, temporary: Path) -> None:
        self.pid = pid
        self.id = request["id"]
        self.made = "golden" if request.get("kind") == "create" else "now"
        self.scratch = Path(request["scratch"])
        self.temporary = temporary
        self.limit_s = limit_s
        self.log = log
        self.clock = Clock(pid)
        self.stopped: tuple[Outcome, str] | None = None
        """Why this process kills it."""
        self.kill_at = 0.0
        self.too_large = False
        self.hindered = ""
        """What it lacked while it ran."""
        self.kills_before = room.kills_for_memory()

    @property
    def left_s(self) -> float:
        """Seconds until something is due, at the earliest."""
        left = self.kill_at - time.monotonic() if self.stopped else self.limit_s - self.clock.had_s
        return max(_SAYS_WHERE_S, left)

    def check(self) -> None:
        """Kill it if it is over a limit."""
        if self.stopped:
            if time.monotonic() >= self.kill_at:
                tree.kill(self.pid)
            return
        self.clock.look()
        had, passed = self.clock.had_s, self.clock.passed_s
        if had >= self.limit_s:
            computed = f"of which it computed for {min(self.clock.computed_s, passed):.2g} s"
            by_clock = f"; {passed:.3g} s by the clock" if passed > 1.5 * self.limit_s else ""
            self.stop("timeout", f"killed at {self.limit_s:g} s, {computed}{by_clock}", after_s=_SAYS_WHERE_S)
            os.kill(self.pid, signal.SIGXCPU)  # it writes to its log where it is
        elif self.clock.processes > _MOST_PROCESSES:
            self.stop("died", f"it had {self.clock.processes} processes")
        elif passed >= PATIENCE * self.limit_s:
            self.stop("starved", f"in {passed:.3g} s it had the machine for {had:.2g} s")

    def size(self) -> int:
        """Bytes that it has on disk."""
        return room.size([self.scratch, self.temporary])

    def stop(self, outcome: Outcome, why: str, after_s: float = 0.0) -> None:
        """Kill it with all processes of its session."""
        self.stopped = self.stopped or (outcome, why)
        self.kill_at = time.monotonic() + after_s
        if not after_s:
            tree.kill(self.pid)

    def close(self) -> None:
        """Free what it leaves; of a cell that was too large, all but the log."""
        os.close(self.log)
        remove(self.temporary)
        if self.too_large:
            for path in self.scratch.iterdir():
                if path.name != "log.txt":
                    remove(path)


class Children:
    """All running cells."""

    def __init__(self, handler: Handles, private: Sequence[int]) -> None:
        """Start no cell yet.

        Args:
            private: descriptors that each child closes.
        """
        self._handler = handler
        self._private = private
        self._running: dict[int, _Child] = {}
        self._refused: list[Reply] = []
        self._own: frozenset[int] = frozenset()
        self._orphans: dict[int, frozenset[int]] = {}
        """Process that a cell started and no process waits for → the cells that ran when it was first seen."""
        self._measured = 0.0
        tree.adopt_orphans()

    def warmed_up(self) -> None:
        """Warm up, and freeze all present objects for the garbage collector, so that children share their memory."""
        self._handler.warm_up()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD, 20, 20)
        self._own = frozenset(tree.children(os.getpid())) - set(self._running)

    def start(self, request: Request) -> None:
        """Fork a child that serves the request.

        Raises:
            OSError: no process can be started, or the scratch folder cannot be made.
        """
        limit_s = float(request.get("time_limit_s") or DEFAULT_LIMIT_S)
        scratch = Path(request["scratch"])
        try:
            log = fresh_log(scratch)
            temporary = Path(tempfile.mkdtemp(prefix="cell-"))
            full = room.short(scratch)
        except OSError as error:
            if error.errno not in room.FULL:
                raise
            full = f"{error.filename}: {error.strerror}"
        if full:
            self._refused.append({"id": request["id"], "outcome": "starved", "detail": full, "duration_s": 0.0})
            return
        flush_all()  # or the child would write its parent's buffers again
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._in_child(request, server, temporary)
        self._running[pid] = _Child(pid, request, limit_s, log, temporary)

    def collect(self) -> list[Reply]:
        """Replies of the cells that have ended. Kills cells past a limit, and trims logs."""
        replies, self._refused = self._refused, []
        self._check_room()
        for child in list(self._running.values()):
            reply = self._ended(child)
            if reply is not None:
                del self._running[child.pid]
                child.close()
                replies.append(reply)
            else:
                child.check()
                trim_log(child.log, _LOG_GROWN)
        self._end_orphans()
        return replies

    def timeout(self) -> float | None:
        """Seconds until the next check is due; None while nothing runs."""
        if self._refused:
            return 0.0
        if not self._running:
            return None
        return min(_TICK_S, *(child.left_s for child in self._running.values()))

    def __len__(self) -> int:
        return len(self._running)

    def kill_all(self) -> None:
        """Kill every cell and what it started, and wait for their end."""
        for child in self._running.values():
            tree.kill(child.pid)
        for child in self._running.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
            child.close()
        self._running.clear()
        tree.end_children(self._own)

    def _check_room(self) -> None:
        now = time.monotonic()
        measures = now >= self._measured + _MEASURE_S
        self._measured = now if measures else self._measured
        for child in self._running.values():
            full = room.short(child.scratch)
            size = child.size() if full or measures else 0
            if size > room.LARGEST_CELL or (full and room.guilty(child.scratch, size)):
                child.too_large = True
                child.stop("died", f"it wrote {size >> 20:,} MB" + (f"; {full}" if full else ""))
            elif full:
                child.hindered = full

    def _end_orphans(self) -> None:
        """Kill what the cells that have ended left behind, also what left their session."""
        running = frozenset(self._running)
        mine = running | self._own
        for pid in tree.children(os.getpid()):
            seen = self._orphans.setdefault(pid, running) if pid not in mine else running
            if pid not in mine and not seen & running:
                tree.kill(pid)
                tree.reap(pid, time.monotonic() + _TICK_S)
        for pid in [pid for pid in self._orphans if not tree.state(pid)]:
            del self._orphans[pid]

    def _ended(self, child: _Child) -> Reply | None:
        # Checked before the child is reaped: until then no other process group can get its number.
        if hasattr(os, "waitid") and not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return None
        if hasattr(os, "waitid"):
            tree.kill(child.pid)
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid == 0:
            return None
        trim_log(child.log)
        unit = 1 if sys.platform == "darwin" else 1024
        rss_mb = round(usage.ru_maxrss * unit / 2**20, 1)
        seconds = round(child.clock.passed_s, 4)
        return {"id": child.id, **_outcome(child, status, rss_mb), "duration_s": seconds, "max_rss_mb": rss_mb}

    def _in_child(self, request: Request, server: int, temporary: Path) -> NoReturn:
        code = HARNESS_ERROR
        try:
            detach(server)
            for descriptor in self._private:
                os.close(descriptor)
            redirect(Path(request["scratch"]) / "log.txt")
            os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
            faulthandler.enable(file=2)
            faulthandler.register(signal.SIGXCPU, file=2)
            code = work(self._handler, request)
        except BaseException:  # noqa: BLE001 - after any error, this process must not continue as a second server
            traceback.print_exc()
            flush_all()
        finally:
            os._exit(code)  # not sys.exit: the server's loop and atexit hooks must not run here


def detach(server: int) -> None:
    """Give the child its own session, so that it is killed as one, and end it when the server ends."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    # A core file of a process with torch in it is gigabytes; the stack is in the log.
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, room.LARGEST_CELL)
    room.first_to_be_killed()
    tree.die_with(server)


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _outcome(child: _Child, status: int, rss_mb: float) -> Reply:
    signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = None if signalled else os.WEXITSTATUS(status)
    reply: Reply = {"signal": signalled, "exit": code}
    if child.stopped:
        return {**reply, "outcome": child.stopped[0], "detail": child.stopped[1]}
    if child.hindered or room.says_full(child.scratch / child.made / "observation.json"):
        return {**reply, "outcome": "starved", "detail": child.hindered or "its errors are those of a full disk"}
    if signalled == signal.SIGKILL and room.kills_for_memory() > child.kills_before:
        guilty = room.takes_most_memory(rss_mb)
        detail = f"SIGKILL: the machine ran out of memory; the cell had {rss_mb:,.0f} MB"
        return {**reply, "outcome": "died" if guilty else "starved", "detail": detail}
    if signalled:
        return {**reply, "outcome": "died", "detail": signal_name(signalled)}
    return {**reply, **by_exit(child.id, child.scratch, os.WEXITSTATUS(status))}
