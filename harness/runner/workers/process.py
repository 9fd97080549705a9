"""One worker process: starts it, writes requests, reads lines, kills it with all its children."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import data
from harness.worker.files import parse_json, read_end
from harness.worker.process import process_variables, signal_name
from harness.worker.shared import CELLS

WORKER = data.CODE / "worker"
"""The folder that an interpreter runs as a script."""

_INTERPRETER_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS")
_LONGEST_LINE = 64 << 20
_LAST_LINES_S = 0.5
_POLL_S = 0.005
_END_S = 3.0
"""Time for a worker to end, with all that it started, when it is asked to."""
_TAIL_BYTES = 16 << 10
_TAIL_LINES = 40


@dataclass(frozen=True)
class Line:
    """A line that a worker wrote to its stdout."""

    worker: WorkerProcess
    content: bytes

    def reply(self) -> dict[str, Any] | None:
        """The line as a reply; None where it is none."""
        try:
            content = parse_json(self.content)
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    def shown(self) -> str:
        """Its beginning, for a message."""
        return ascii(self.content[:200].decode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class Eof:
    """The end of a worker's stdout."""

    worker: WorkerProcess


Event = Line | Eof | None
"""What a pool waits for; None wakes it up."""


class WorkerProcess:
    """A started worker. Threads of their own read and write, so that a hanging worker does not block its pool."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], log: Path, events: queue.SimpleQueue[Event]
    ) -> None:
        """Starts it.

        Raises:
            OSError: there is no such interpreter, or it can't be run.
        """
        self.log = log
        self._lock = threading.Lock()
        self._killed = False
        self._gone_since = 0.0
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stderr:  # the interpreter's own messages, until the worker redirects them
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(environ),
                start_new_session=True,  # only the controller gets Ctrl-C, and the group can be killed
            )
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        name = f"worker {self._process.pid}"
        threading.Thread(target=self._read, args=(events,), name=f"{name} reader", daemon=True).start()
        threading.Thread(target=self._write, name=f"{name} writer", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's number; its process group's too."""
        return self._process.pid

    def send(self, request: Mapping[str, Any]) -> None:
        """Queues a request; never blocks."""
        self._outbox.put(json.dumps(request).encode() + b"\n")

    def is_gone(self) -> bool:
        """True where the process ended long enough ago that its last lines have been read."""
        if self._code() is None:
            return False
        self._gone_since = self._gone_since or time.monotonic()
        return time.monotonic() > self._gone_since + _LAST_LINES_S

    def ending(self) -> str:
        """How the process ended; waits up to a second."""
        code = self._wait(1.0)
        if code is None:
            return "it closed its stdout and went on"
        return f"exit code {code}" if code >= 0 else signal_name(-code)

    def kill(self) -> None:
        """Ends the worker, its cells and all that they started; returns when it is gone. Repeated calls do nothing.

        The worker's keeper does it (`harness/worker/serve/keeper.py`), or the worker itself at the end of its requests.
        If neither does, the process and its group are killed.
        """
        with self._lock:
            if self._killed:
                return
            self._killed = True
            self._outbox.put(None)
            with contextlib.suppress(OSError):
                self._process.terminate()
            self._wait(_END_S)
            if hasattr(os, "killpg"):  # the number is this process's own until it is reaped
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()

    def _wait(self, limit_s: float) -> int | None:
        end = time.monotonic() + limit_s
        while (code := self._code()) is None and time.monotonic() < end:
            time.sleep(_POLL_S)
        return code

    def _code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs. The process is not reaped by this."""
        if self._process.returncode is not None or not hasattr(os, "waitid"):
            return self._process.poll()
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return self._process.poll()
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _read(self, events: queue.SimpleQueue[Event]) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout, contextlib.suppress(OSError, ValueError):
            while line := stdout.readline(_LONGEST_LINE):
                events.put(Line(self, line))
        events.put(Eof(self))

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as stdin:
            while (line := self._outbox.get()) is not None:
                stdin.write(line)
                stdin.flush()


class Processes:
    """A pool's one running worker process; after `close` none is started."""

    def __init__(self) -> None:
        self.closed = False
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None

    def start(self, factory: Callable[[], WorkerProcess]) -> WorkerProcess | None:
        """Starts one; None where this is closed."""
        with self._lock:
            self._worker = None if self.closed else factory()
            return self._worker

    def close(self) -> None:
        """Kills it."""
        with self._lock:
            self.closed = True
            if self._worker is not None:
                self._worker.kill()


def environment(environ: Mapping[str, str], untouched: bool = False) -> dict[str, str]:
    """The variables that a worker is started with.

    Args:
        environ: what they are made from.
        untouched: keeps what steers the interpreter (PYTHONPATH …): a developer's own may need it, a pinned one is
            to see nothing but its own packages.
    """
    variables = dict(environ)
    if not untouched:
        for name in _INTERPRETER_VARIABLES:
            variables.pop(name, None)
        variables["PYTHONNOUSERSITE"] = "1"
    return variables | process_variables(variables)


def worker_digest() -> str:
    """SHA-256 of the worker's code: another worker may observe otherwise."""
    whole = hashlib.sha256()
    for path in sorted(WORKER.rglob("*.py")):
        whole.update(path.relative_to(WORKER).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def worker_command(python: Path, handler: Path | None = None, cells: str = CELLS[0]) -> list[str]:
    """The command line of a worker that serves requests.

    Args:
        cells: whose cell module serves.
        handler: a Python file in the place of the worker's own cell module; for tests of everything around it.
    """
    own = ["--handler", str(handler)] if handler else ["--cells", cells] if cells != CELLS[0] else []
    return [str(python), str(WORKER), "--serve", *own]


def tail(log: Path) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        text = read_end(log, _TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
