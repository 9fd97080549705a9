"""Processes and their descendants: who they are, how they end, and how long they computed. Only Linux says so."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from typing import Any, Container

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 5.0
"""A killed process that has not ended by then waits for a disk or a device. Nobody can end it."""
LINUX = sys.platform.startswith("linux")
_LISTED = os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
"""False for a kernel that does not list children (CONFIG_PROC_CHILDREN); then all processes are looked at."""


def _load_libc() -> Any:
    # Loaded before any fork: a child should not have to.
    return ctypes.CDLL(None) if os.name == "posix" else None


LIBC = _load_libc()


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, also of those that left their session."""
    if LINUX:
        LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int) -> None:
    """Have the kernel kill this process, even if it is stopped, when its parent dies; at once if it is dead already."""
    if LINUX:
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(70)


def children(pid: int) -> list[int]:
    """The children of a process, zombies too; empty where the system does not say."""
    if not _LISTED:
        return [int(name) for name in _processes() if state(int(name))[1:2] == [str(pid)]]
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    return found


def _processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()] if LINUX else []


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    found = children(pid)
    for one in found:  # it grows meanwhile
        found += [other for other in children(one) if other not in found]
    return found


def end_children(spare: Container[int] = ()) -> None:
    """Kill and reap the children of this process, and the orphans that come to it meanwhile, until there are none.

    Only children are killed. Their numbers cannot belong to another process until this one has reaped them.

    Args:
        spare: children that go on.
    """
    give_up = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up:
        found = [pid for pid in children(os.getpid()) if pid not in spare]
        if not found:
            return
        for pid in found:
            kill(pid)
        for pid in found:
            reap(pid, give_up)


def kill(pid: int) -> None:
    """Kill a child of this process that was not reaped, and the group that it leads."""
    for send in (os.killpg, os.kill):  # the second is for a child that leads no group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, signal.SIGKILL)


def reap(pid: int, give_up: float) -> None:
    """Wait for the end of a killed child, at the latest until `give_up`."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < give_up:
            time.sleep(0.001)


def state(pid: int, task: str = "") -> list[str]:
    """What the kernel says of a process or a thread, from the third field on: state, parent …; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/task/{task}/stat" if task else f"/proc/{pid}/stat", "rb") as file:
            return file.read().decode("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def processor_s(pids: list[int]) -> float:
    """Seconds that these processes, and their children that have ended, have computed."""
    ticks = 0
    for pid in pids:
        ticks += sum(int(field) for field in state(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
