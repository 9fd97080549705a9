"""Serves requests from stdin: the event loop, and the streams that keep libraries' output out of the protocol.

The package's docstring describes the protocol, `shared.py` its shapes. `children.py` runs the cells.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import select
import signal
import time
import traceback
from pathlib import Path
from typing import Any, cast

from ..shared import CELLS, KINDS, Hello, Reply, Request
from . import executed, keeper, numerics
from .children import Children
from .in_process import InProcess
from .work import flush_all, redirect

_IDLE_S = 3600.0


def main(handler_file: Path | None, log: Path, forks: bool, cells: str = CELLS[0]) -> int:
    """Serve until `stop` or the end of stdin; returns the exit code."""
    keeper.guard()
    requests, replies = take_over_standard_streams(log)
    server = Server(requests, replies, Handler(handler_file, cells), forks)
    # Ctrl-C in a terminal reaches all of its processes; the parent decides whether this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.run()
    flush_all()
    os._exit(0)  # unloading a maths library may hang or crash, and there is nothing left to lose


def take_over_standard_streams(log: Path) -> tuple[int, int]:
    """Move stdin and stdout to private descriptors and return them; 0 becomes /dev/null, 1 and 2 the log.

    This changes descriptors, not `sys.stdout`: output from C, or from a process that a library starts, must not reach
    the protocol either.
    """
    requests, replies = os.dup(0), os.dup(1)  # not inheritable
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    redirect(log)
    return requests, replies


class Handler:
    """The module that serves a request: `observe/cell.py`, `consume/cell.py`, or a test's file. Imported if needed."""

    def __init__(self, file: Path | None = None, cells: str = CELLS[0]) -> None:
        self.file = file
        self._cells = cells
        self._module: Any = None

    def module(self) -> Any:
        """The imported module."""
        if self._module is None:
            own = f"..{self._cells}.cell"
            self._module = self._from_file(self.file) if self.file else importlib.import_module(own, __package__)
        return self._module

    def handle(self, request: Request) -> None:
        """Serve one request."""
        self.module().handle(request)

    def warm_up(self) -> None:
        """Do once what every request would do again, if the module has `warm_up`; never raises.

        Not in a process that records what cells execute: what was done before would count for each of them.
        """
        if executed.records():
            return
        try:
            getattr(self.module(), "warm_up", lambda: None)()
        except BaseException:  # noqa: BLE001 - it only saves time; an error will show in the cells
            traceback.print_exc()

    def is_sound(self, device: str) -> bool:
        """False if the module says that this process should serve no further request on the device."""
        return bool(getattr(self.module(), "is_sound", lambda _: True)(device))

    def hello(self, request: Hello) -> Reply:
        """Import what all cells share; returns the reply, `error` with the traceback if that fails."""
        start = time.monotonic()
        reply: Reply = {"id": request.get("id"), "outcome": "done"}
        try:
            reply["facts"] = {"numerics": numerics.facts(), **self.module().preload(request)}
        except BaseException:  # noqa: BLE001 - a library's import may raise anything, SystemExit too; it is reported
            reply.update({"outcome": "error", "detail": traceback.format_exc()[-4000:]})
        reply["duration_s"] = round(time.monotonic() - start, 3)
        return reply

    @staticmethod
    def _from_file(file: Path) -> Any:
        spec = importlib.util.spec_from_file_location("peft_regress_handler", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


class Server:
    """Reads requests, starts children, writes replies. It has one thread, so that a fork breaks nothing."""

    def __init__(self, requests: int, replies: int, handler: Handler, forks: bool) -> None:
        self._requests = requests
        self._replies = replies
        self._handler = handler
        self._unread = b""
        self._stopped = False
        self._wake = -1
        self._children: Children | InProcess
        if forks:
            self._wake, wake_writer = _wakeup_pipe()
            self._children = Children(handler, [requests, replies, self._wake, wake_writer])
        else:
            self._children = InProcess(handler)

    def run(self) -> None:
        """Serve until `stop`, the end of the requests, or a closed reply pipe."""
        try:
            with contextlib.suppress(BrokenPipeError):  # the controller is gone
                while not self._stopped:
                    self._wait()
                    self._report()
                    self._stopped = self._stopped or not self._is_sound()
        finally:
            self._children.kill_all()

    def _wait(self) -> None:
        if self._wake < 0:  # no children to wait for; and Windows can't select on a pipe
            self._read()
            return
        timeout = self._children.timeout()
        ready, _, _ = select.select([self._requests, self._wake], [], [], _IDLE_S if timeout is None else timeout)
        if self._wake in ready:
            _drain(self._wake)
        if self._requests in ready:
            self._read()

    def _read(self) -> None:
        chunk = os.read(self._requests, 1 << 20)
        if not chunk:
            self._stopped = True
            return
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            if line.strip() and not self._stopped:
                self._take(line)
                self._report()
                self._stopped = self._stopped or not self._is_sound()

    def _is_sound(self) -> bool:
        """False if this process must end; the controller then starts a fresh one for the remaining requests."""
        return not isinstance(self._children, InProcess) or self._children.is_sound

    def _take(self, line: bytes) -> None:
        request: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            request = json.loads(line)
        if not isinstance(request, dict):
            self._reply({"id": None, "outcome": "error", "detail": f"not a JSON object: {line[:200]!r}"})
            return
        kind = request.get("kind")
        if kind == "stop":
            self._stopped = True
        elif kind == "hello":
            self._greet(cast(Hello, request))
        elif kind in KINDS and request.get("id") is not None and request.get("scratch"):
            self._start(cast(Request, {**request, "scratch": str(Path(request["scratch"]).absolute())}))
        else:
            detail = f"kind {kind!r}: expected hello, stop, or {', '.join(KINDS)} with `id` and `scratch`"
            self._reply({"id": request.get("id"), "outcome": "error", "detail": detail})

    def _greet(self, request: Hello) -> None:
        records = request.get("executed") and not isinstance(self._children, InProcess)
        recorder = executed.before_cells() if records else None
        self._reply(self._handler.hello(request))
        self._children.warmed_up()
        if recorder is not None:
            recorder.stop()

    def _start(self, request: Request) -> None:
        try:
            self._handler.module()  # imported once, here, and not in each child
            self._reply({"id": request["id"], "started": True})
            self._children.start(request)
        except BaseException:  # noqa: BLE001 - importing the handler failed, or the fork did
            self._reply({"id": request["id"], "outcome": "error", "detail": traceback.format_exc()[-4000:]})

    def _report(self) -> None:
        for reply in self._children.collect():
            self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        line = json.dumps(reply, default=str).encode() + b"\n"
        while line:
            line = line[os.write(self._replies, line) :]


def _wakeup_pipe() -> tuple[int, int]:
    """A pipe that becomes readable when a child ends, so that one `select` waits for both requests and children."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader, writer


def _drain(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass
