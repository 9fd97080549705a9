"""Marks a built environment as in use, so that nobody deletes it under a running process.

Its lock is a file beside it. Who builds or deletes the environment holds the lock alone; who uses it shares the lock.
Where a file system has no locks, a file beside it names the process instead.

Controller and worker both import it. Standard library only, syntax of Python 3.8: every pinned environment runs it.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
from typing import Dict, List

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STAMP = "peft-regress.json"
"""The file that marks a directory as a complete environment of this program."""
BELOW = "below"
"""In the stamp: the environment whose packages this one links to; empty if it has none."""
LOCK, MARKER, BUSY, NOTHING = "lock", "marker", "busy", ""

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_held: Dict[str, int] = {}


def lock_path(directory: str) -> str:
    """The lock file of an environment. It is never deleted: another process may be waiting for it."""
    folder, name = os.path.split(os.path.realpath(directory))
    return os.path.join(folder, "." + name + ".lock")


def hold(directory: str) -> str:
    """Keep an environment from being deleted until this process and its forks have ended.

    Returns:
        LOCK; MARKER if the file system has no locks; BUSY if another process builds or deletes the environment; NOTHING
        if neither can be written.
    """
    path = lock_path(directory)
    if path in _held:
        return LOCK
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return _mark(path)
    try:
        _share(file)
    except OSError as error:
        os.close(file)
        return BUSY if error.errno in _TAKEN else _mark(path)
    _held[path] = file
    return LOCK


def hold_own(prefix: str) -> None:
    """Hold the environment of this interpreter, and the one that it links to; do nothing in a user's environment."""
    try:
        with open(os.path.join(prefix, STAMP), encoding="utf-8") as file:
            below = json.load(file).get(BELOW)
    except (OSError, ValueError, AttributeError):
        return
    for directory in (prefix, below):
        if directory:
            hold(directory)


def release(directory: str) -> None:
    """End what `hold` began in this process. Other processes keep their own."""
    path = lock_path(directory)
    if path in _held:
        os.close(_held.pop(path))
    with contextlib.suppress(OSError):
        os.unlink(_marker(path, os.getpid()))


def marked_by(directory: str) -> List[int]:
    """The running processes that use an environment on a file system without locks. Deletes markers of others."""
    path = lock_path(directory)
    found = []
    for marker in glob.glob(glob.escape(path) + ".used-by-*"):
        pid = marker.rpartition(".used-by-")[2].partition("-")[0]
        if pid.isdigit() and _start_of(int(pid)) and marker == _marker(path, int(pid)):
            found.append(int(pid))
        else:
            with contextlib.suppress(OSError):
                os.unlink(marker)
    return found


def _share(file: int) -> None:
    if fcntl is None:
        raise OSError(errno.ENOLCK, "no locks")
    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _mark(path: str) -> str:
    try:
        os.close(os.open(_marker(path, os.getpid()), os.O_WRONLY | os.O_CREAT, 0o666))
    except OSError:
        return NOTHING
    return MARKER


def _marker(path: str, pid: int) -> str:
    return f"{path}.used-by-{pid}-{_start_of(pid)}"


def _start_of(pid: int) -> str:
    """When a process started, which tells it from a later one with its number; empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except FileNotFoundError:
        return "unknown" if not os.path.exists("/proc/self/stat") and _runs(pid) else ""
    except (OSError, IndexError):
        return ""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
