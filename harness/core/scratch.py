"""Temporary folders. One whose process was killed is removed by the next process that needs one."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.core.lock import file_lock, has_locks
from harness.worker.files import remove

_PREFIX = "peft-regress-"
_OWNER = ".owner"
"""The folder's process holds the lock of this file. The kernel releases it when the process ends, however it ends.
A number of a process would not do: another process, or one in another container, may have the same."""


@contextlib.contextmanager
def scratch_folder(label: str = "") -> Iterator[Path]:
    """A new temporary folder, which is removed after the block with all that is in it.

    Args:
        label: becomes part of its name.
    """
    remove_abandoned()
    made = folder = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}{label}-" if label else f".{_PREFIX}"))
    try:
        with _owned(made):
            # It gets the name that `remove_abandoned` looks for once its lock is held: before, it would look abandoned.
            folder = made.rename(made.with_name(made.name[1:]))
            yield folder
    finally:
        remove(folder)


def remove_abandoned() -> None:
    """Remove the folders of processes that ended without removing them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_ours(folder) and _is_abandoned(folder):
            remove(folder)


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    lock = file_lock(folder / _OWNER, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except (OSError, NotImplementedError):  # a file system without locks: nobody else removes the folder
        (folder / _OWNER).unlink(missing_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder is removed next, and the lock with it
            lock.release()


def _is_ours(folder: Path) -> bool:
    """True if it is a folder of this user that this module made."""
    try:
        status, owner = folder.lstat(), (folder / _OWNER).lstat()
    except OSError:
        return False
    user = os.getuid() if hasattr(os, "getuid") else status.st_uid
    return stat.S_ISDIR(status.st_mode) and stat.S_ISREG(owner.st_mode) and status.st_uid == owner.st_uid == user


def _is_abandoned(folder: Path) -> bool:
    if not has_locks(folder):
        return False  # its process may hold a lock that this one cannot see
    try:
        with file_lock(folder / _OWNER, timeout=0, thread_local=False):
            return True
    except (OSError, NotImplementedError):  # filelock.Timeout is an OSError: its process runs
        return False
