"""Locks between processes, also on file systems that have none (some network and FUSE mounts)."""

from __future__ import annotations

import errno
import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

import filelock

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None  # else filelock needs no file system
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def file_lock(path: Path | str, timeout: float = -1, **options: Any) -> filelock.BaseFileLock:
    """The lock of a file. The kernel releases it when its process ends, however it ends.

    On a file system without locks, a file beside it that names its process is the lock. filelock removes the file of a
    process that has ended.

    Args:
        timeout: seconds to wait for another process; negative to wait until it is free.
        options: as of `filelock.FileLock`.

    Raises:
        filelock.Timeout: when entered, if another process holds it.
        OSError: when entered, if the file cannot be written.
    """
    path = Path(path)
    if has_locks(path.parent):
        return filelock.FileLock(path, timeout=timeout, **options)
    # another name: `path` itself stays where it is, also when nobody holds the lock
    return filelock.SoftFileLock(path.with_name(f"{path.name}.held"), timeout=timeout, **options)


def has_locks(folder: Path) -> bool:
    """False if the file system of a folder refuses locks."""
    if fcntl is None:
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    return True
