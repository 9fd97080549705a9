"""Runs each cell in a forked child and reports how it ended: a library that ends its process costs one cell.

A child inherits the imports (a fork takes milliseconds, the imports take seconds) and none of the other cells' state.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from ..process import signal_name
from ..shared import Reply, Request

if sys.platform != "win32":
    import resource

DEFAULT_LIMIT_S = 120.0
HARNESS_ERROR = 70
"""Exit code of a child whose handle() raised (EX_SOFTWARE of BSD's sysexits.h)."""

_TICK_S = 0.25
"""How often a running cell's log is checked for size. It also covers a lost SIGCHLD."""
_LOG_GROWN = 4 << 20
_LOG_HEAD = 32 << 10
_LOG_TAIL = 128 << 10
_PR_SET_PDEATHSIG = 1
_GC_THRESHOLD = 20_000
"""A cell runs for a second and makes models with reference cycles: collecting every 700 objects would cost more than it
frees."""


class Handles(Protocol):
    """Serves one request."""

    def handle(self, request: Request) -> None:
        """Serve it; results go into request["scratch"]."""

    def warm_up(self) -> None:
        """Do once what every request would do again; never raises."""

    def is_sound(self, device: str) -> bool:
        """False if this process should serve no further request on the device."""


class _Child:
    """One running cell."""

    def __init__(self, pid: int, request: Request, limit_s: float) -> None:
        self.pid = pid
        self.id = request["id"]
        self.scratch = Path(request["scratch"])
        self.started = time.monotonic()
        self.limit_s = limit_s
        self.timed_out = False

    @property
    def deadline(self) -> float:
        return self.started + self.limit_s

    def kill(self) -> None:
        """Kill it with all processes of its session; the plain kill is for a child without a session yet."""
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)


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

    def warmed_up(self) -> None:
        """Warm up, and freeze all present objects for the garbage collector, so that children share their memory."""
        self._handler.warm_up()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD, 20, 20)

    def start(self, request: Request) -> None:
        """Fork a child that serves the request.

        Raises:
            OSError: no process can be started, or the scratch folder cannot be made.
        """
        limit_s = float(request.get("time_limit_s") or DEFAULT_LIMIT_S)
        _fresh(Path(request["scratch"]))
        flush_all()  # or the child would write its parent's buffers again
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._in_child(request, limit_s, server)
        self._running[pid] = _Child(pid, request, limit_s)

    def collect(self) -> list[Reply]:
        """Replies of the cells that have ended. Kills cells past their limit, and trims logs."""
        now = time.monotonic()
        replies = []
        for child in list(self._running.values()):
            reply = self._ended(child)
            if reply is not None:
                del self._running[child.pid]
                replies.append(reply)
            elif now >= child.deadline:
                child.timed_out = True
                child.kill()
            else:
                trim_log(child.scratch / "log.txt", _LOG_GROWN)
        return replies

    def timeout(self) -> float | None:
        """Seconds until the next check is due; None while nothing runs."""
        if not self._running:
            return None
        next_deadline = min(child.deadline for child in self._running.values())
        return max(0.0, min(_TICK_S, next_deadline - time.monotonic()))

    def __len__(self) -> int:
        return len(self._running)

    def kill_all(self) -> None:
        """Kill every cell and wait for its end."""
        for child in self._running.values():
            child.kill()
        for child in self._running.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
        self._running.clear()

    def _ended(self, child: _Child) -> Reply | None:
        # Checked before the child is reaped: until then no other process group can get its number.
        if hasattr(os, "waitid") and not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return None
        if hasattr(os, "waitid"):
            child.kill()
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid == 0:
            return None
        trim_log(child.scratch / "log.txt", _LOG_HEAD + _LOG_TAIL)
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "id": child.id,
            **_outcome(child, status),
            "duration_s": round(time.monotonic() - child.started, 4),
            "max_rss_mb": round(usage.ru_maxrss * unit / 2**20, 1),
        }

    def _in_child(self, request: Request, limit_s: float, server: int) -> NoReturn:
        code = HARNESS_ERROR
        scratch = Path(request["scratch"])
        try:
            detach(server)
            for descriptor in self._private:
                os.close(descriptor)
            redirect(scratch / "log.txt")
            (scratch / "pid").write_text(str(os.getpid()))
            _tell_where_it_hung(limit_s)
            code = work(self._handler, request)
        except BaseException:  # noqa: BLE001 - after any error, this process must not continue as a second server
            traceback.print_exc()
            flush_all()
        finally:
            os._exit(code)  # not sys.exit: the server's loop and atexit hooks must not run here


class InProcess:
    """Runs cells one by one in this process, if a fork is not possible or would cost a fresh CUDA context.

    A crash, or a cell past its limit, then ends this process: the reader of the replies must notice.
    """

    def __init__(self, handler: Handles) -> None:
        self._handler = handler
        self._replies: list[Reply] = []
        self.is_sound = True
        """False once a cell left the device in a state that would affect the next one."""

    def warmed_up(self) -> None:
        """Do nothing: no other process shares the memory."""

    def start(self, request: Request) -> None:
        """Serve the request now."""
        started = time.monotonic()
        scratch = Path(request["scratch"])
        _fresh(scratch)
        flush_all()
        saved, folder = (os.dup(1), os.dup(2)), Path.cwd()
        redirect(scratch / "log.txt")
        (scratch / "pid").write_text(str(os.getpid()))
        _tell_where_it_hung(float(request.get("time_limit_s") or DEFAULT_LIMIT_S), end=True)
        try:
            code = work(self._handler, request)
            self.is_sound = self._handler.is_sound(str(request.get("device", "cpu")))
        finally:
            faulthandler.cancel_dump_traceback_later()
            flush_all()
            os.chdir(folder)  # handle() works in its scratch folder
            for descriptor, copy in enumerate(saved, start=1):
                os.dup2(copy, descriptor)
                os.close(copy)
        trim_log(scratch / "log.txt", _LOG_HEAD + _LOG_TAIL)
        duration_s = round(time.monotonic() - started, 4)
        self._replies.append({"id": request["id"], **_by_exit(scratch, code), "duration_s": duration_s})

    def collect(self) -> list[Reply]:
        """Replies of the cells that have ended."""
        replies, self._replies = self._replies, []
        return replies

    def timeout(self) -> float | None:
        """None: no child runs."""
        return None

    def __len__(self) -> int:
        return 0

    def kill_all(self) -> None:
        """Do nothing: no child runs."""


def work(handler: Handles, request: Request) -> int:
    """Serve one request and write done.json or error.json; returns the exit code."""
    scratch = Path(request["scratch"])
    try:
        handler.handle(request)
    except KeyboardInterrupt:
        raise  # it is for the user who runs this process: the cell is not at fault and will run again
    except BaseException as error:  # noqa: BLE001 - SystemExit too; reported as a bug in the worker
        report = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        _write_json(scratch / "error.json", report)
        traceback.print_exc()
        flush_all()
        return HARNESS_ERROR
    flush_all()
    _write_json(scratch / "done.json", {"id": request["id"]})
    return 0


def redirect(log: Path) -> None:
    """Redirect descriptors 1 and 2 to a file.

    The file is in append mode, so that it can be trimmed while processes write to it.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def flush_all() -> None:
    """Flush the buffers of Python's and C's standard streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # a library may have closed or replaced them
            stream.flush()
    if _LIBC is not None:
        _LIBC.fflush(None)


def trim_log(log: Path, limit: int) -> None:
    """Remove the middle of a log that is over the limit.

    A limit on file sizes would affect real outputs too, and a pipe through the server would lose the last lines if it
    dies.
    """
    with contextlib.suppress(OSError), log.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= max(limit, _LOG_HEAD + _LOG_TAIL):
            return
        file.seek(0)
        head = file.read(_LOG_HEAD)
        file.seek(-_LOG_TAIL, os.SEEK_END)
        tail = file.read(_LOG_TAIL)
        left_out = size - len(head) - len(tail)
        file.seek(0)
        file.write(head + f"\n[… at least {left_out} bytes left out …]\n".encode() + tail)
        file.truncate()


def _load_libc() -> Any:
    # Loaded before any fork: a child should not have to.
    return ctypes.CDLL(None) if os.name == "posix" else None


_LIBC = _load_libc()


def detach(server: int) -> None:
    """Give the child its own session, so that it is killed as one, and end it when the server ends."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    # A core file of a process with torch in it is gigabytes; the stack is in the log.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    tie_to(server)


def tie_to(parent: int) -> None:
    """Have the kernel kill this process when its parent dies."""
    if sys.platform.startswith("linux"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before this call
        os._exit(HARNESS_ERROR)


def _tell_where_it_hung(limit_s: float, end: bool = False) -> None:
    """Write the stack to the log on a fatal signal, and shortly before the time limit."""
    faulthandler.enable(file=2)
    faulthandler.dump_traceback_later(limit_s if end else limit_s * 0.95, exit=end, file=2)


def _fresh(scratch: Path) -> None:
    """Make the folder, without the outcome of an earlier run of the same cell."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ("done.json", "error.json", "log.txt", "pid"):
        with contextlib.suppress(FileNotFoundError):
            (scratch / name).unlink()


def _outcome(child: _Child, status: int) -> Reply:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if child.timed_out:
            return {"outcome": "timeout", "signal": number, "exit": None, "detail": f"killed at {child.limit_s:g} s"}
        return {"outcome": "died", "signal": number, "exit": None, "detail": signal_name(number)}
    return _by_exit(child.scratch, os.WEXITSTATUS(status))


def _by_exit(scratch: Path, code: int) -> Reply:
    reply: Reply = {"signal": None, "exit": code}
    if code == 0 and (scratch / "done.json").exists():
        return {**reply, "outcome": "done", "detail": ""}
    with contextlib.suppress(OSError, ValueError):
        error = json.loads((scratch / "error.json").read_text(encoding="utf-8"))
        return {**reply, "outcome": "error", "detail": error["traceback"][-4000:]}
    return {**reply, "outcome": "died", "detail": f"exit code {code} before its work was done"}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is either complete or absent."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)
