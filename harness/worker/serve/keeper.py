"""The worker's parent process: it sees to it that nothing of a worker goes on after the worker or the controller.

A cell can kill or stop the worker, which is its parent. It knows nothing of the keeper. The keeper imports no
libraries, so it always answers: to SIGTERM from the controller, to the end of the controller, to the end of the worker.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any, NoReturn

from . import tree

_GRACE_S = 2.0
"""Time for a worker to end by itself when the controller is gone."""


class _Terminated(Exception):
    """SIGTERM came."""


def guard(requests: int = 0) -> None:
    """Go on as a child of this process, which becomes the keeper and never returns from this call.

    Args:
        requests: the descriptor whose other end only the controller holds.
    """
    if not tree.LINUX:
        return
    keeper = os.getpid()
    if os.getpgrp() != keeper:
        os.setpgid(0, 0)  # a script started it; whoever ends the script's group must not end the keeper
    pid = os.fork()
    if pid == 0:
        tree.die_with(keeper)
        return
    _keep(pid, requests)


def _keep(worker: int, requests: int) -> NoReturn:
    status = 0
    try:
        tree.adopt_orphans()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)  # the controller must see the end of the worker's replies
        wake = _wake_up_pipe()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _terminate)
        status = _wait(worker, requests, wake)
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    finally:
        tree.end_children()
        _end_as(status)


def _wait(worker: int, requests: int, wake: int) -> int:
    """Wait for the end of the worker; returns its status."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(requests, 0)  # tells its end only
    give_up = float("inf")
    while True:
        timeout = None if give_up == float("inf") else max(0.0, give_up - time.monotonic()) * 1000
        ready = dict(poll.poll(timeout))
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        if requests in ready:
            poll.unregister(requests)
            give_up = time.monotonic() + _GRACE_S
        if time.monotonic() >= give_up:
            return 0
        for pid in {worker, *tree.children(os.getpid())}:
            ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if ended == worker and os.WIFSTOPPED(status):
                os.kill(worker, signal.SIGCONT)
            elif ended == worker:
                return status


def _wake_up_pipe() -> int:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    os.write(writer, b"\0")  # the worker may have ended before this
    return reader


def _terminate(_number: int, _frame: Any) -> NoReturn:
    raise _Terminated


def _end_as(status: int) -> NoReturn:
    """End with the exit code, or by the signal, that a child ended with."""
    if os.WIFSIGNALED(status):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))
