"""Runs cells one by one in this process, if a fork is not possible or would cost a fresh CUDA context.

A crash, or a cell past its limit, ends this process: the reader of the replies must notice.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from pathlib import Path
from typing import Any

from ..process import busy
from ..shared import Reply, Request
from . import room
from .children import DEFAULT_LIMIT_S
from .work import Handles, by_exit, flush_all, fresh_log, redirect, trim_log, work


class InProcess:
    """The cells of this process."""

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
        log = fresh_log(scratch)
        if full := room.short(scratch):
            os.close(log)
            self._replies.append({"id": request["id"], "outcome": "starved", "detail": full, "duration_s": 0.0})
            return
        flush_all()
        saved, before = (os.dup(1), os.dup(2)), _settings()
        redirect(scratch / "log.txt")
        limit_s = float(request.get("time_limit_s") or DEFAULT_LIMIT_S) * max(1.0, busy())
        faulthandler.enable(file=2)
        faulthandler.dump_traceback_later(limit_s, exit=True, file=2)
        try:
            code = work(self._handler, request)
            self.is_sound = self._handler.is_sound(str(request.get("device", "cpu")))
        finally:
            faulthandler.cancel_dump_traceback_later()
            flush_all()
            _restore(before)
            for descriptor, copy in enumerate(saved, start=1):
                os.dup2(copy, descriptor)
                os.close(copy)
        trim_log(log)
        os.close(log)
        duration_s = round(time.monotonic() - started, 4)
        full = room.short(scratch)
        ended: Reply = {"outcome": "starved", "detail": full} if full else by_exit(request["id"], scratch, code)
        self._replies.append({"signal": None, "exit": code, **ended, "id": request["id"], "duration_s": duration_s})

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


def _settings() -> dict[str, Any]:
    """What a cell may change in its process and the next one must not inherit."""
    mask = os.umask(0o022)
    os.umask(mask)
    handlers = {number: signal.getsignal(number) for number in signal.Signals}
    return {"folder": Path.cwd(), "mask": mask, "handlers": handlers, "environ": dict(os.environ)}


def _restore(before: dict[str, Any]) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before["handlers"].items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)
    os.umask(before["mask"])
    os.chdir(before["folder"])  # handle() works in its scratch folder
    if dict(os.environ) != before["environ"]:
        os.environ.clear()
        os.environ.update(before["environ"])
