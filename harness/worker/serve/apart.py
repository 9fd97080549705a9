"""Runs a part of a cell's work in its own process, so that it leaves no trace in the cell's process.

Making an adapter triggers warnings that libraries give once a process, and fills their caches. The golden that is
observed afterwards must equal that of a replay, which makes nothing.
"""

from __future__ import annotations

import os
import signal
import traceback
from typing import Callable, NoReturn

from .tree import die_with
from .work import HARNESS_ERROR, flush_all


def run(work: Callable[[], None]) -> None:
    """Run the work in a forked child, and end as it ended: by the same signal, or with the same exit code."""
    if not hasattr(os, "fork"):
        work()  # Windows has no fork
        return
    flush_all()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _in_child(work, parent)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(parent, number)
    if code := os.WEXITSTATUS(status):
        os._exit(code)


def _in_child(work: Callable[[], None], parent: int) -> NoReturn:
    code = HARNESS_ERROR
    try:
        die_with(parent)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - it goes to the log
        traceback.print_exc()
    finally:
        flush_all()
        os._exit(code)
