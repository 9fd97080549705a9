"""Reads and removes files that another process may have replaced by anything.

Controller and worker both import it. Standard library only, syntax of Python 3.8: every pinned environment runs it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Dict, List, Tuple

LARGEST = 4 << 30
"""The most bytes that are read of a file; the arrays of a replay have some megabytes."""
LARGEST_JSON = 256 << 20


def read_regular(path: Path, limit: int = LARGEST, *, links: bool = True) -> bytes:
    """The content of a regular file. Opening a pipe or a device does not wait, and nothing is read of it.

    Args:
        limit: the most bytes that the file may have.
        links: follow a symbolic link. Not for what a worker left: it could point to any file of the user.

    Raises:
        OSError: there is no such file, it cannot be read, it is not a regular file, or it is too large.
    """
    with open_regular(path, links=links) as file:
        size = os.fstat(file.fileno()).st_size
        data: bytes = file.read(min(size, limit) + 1)
    if max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"Larger than {limit:,} bytes", str(path))
    return data


def read_end(path: Path, count: int, *, links: bool = False) -> bytes:
    """The last bytes of a regular file.

    Raises:
        OSError: as `read_regular`.
    """
    with open_regular(path, links=links) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - count))
        data: bytes = file.read(count)
        return data


def read_json(path: Path, limit: int = LARGEST_JSON, *, links: bool = False) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: as `read_regular`.
        ValueError: as `parse_json`.
    """
    return parse_json(read_regular(path, limit, links=links))


def parse_json(text: Any) -> Any:
    """What a text in JSON holds.

    Raises:
        ValueError: it is not JSON, not UTF-8, nested too deeply, has a key twice or a number of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError("the key {!r} is there {} times".format(twice, names.count(twice)))
    return found


def tree_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files in a folder.

    Raises:
        OSError: there is no such folder, or something in it is no regular file.
    """
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_symlink() or not path.is_dir():
            digest = hashlib.sha256(read_regular(path, links=False)).hexdigest()
            whole.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that a cell left in it, also without the right to write there."""

    def opened(_function: object, name: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            for folder in (os.path.dirname(name), name):
                if stat.S_ISDIR(os.lstat(folder).st_mode):
                    os.chmod(folder, 0o700)
            shutil.rmtree(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)

    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, onerror=opened)
        elif os.path.lexists(path):
            path.unlink()


def open_regular(path: Path, *, links: bool) -> Any:
    """A regular file, opened for reading.

    Raises:
        OSError: as `read_regular`.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    if not links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
        _must_be_regular(os.lstat(path), path)  # a device is not even opened: that alone may have an effect
    else:
        _must_be_regular(os.stat(path), path)
    descriptor = os.open(path, flags)
    try:
        _must_be_regular(os.fstat(descriptor), path)  # another process may just have replaced it
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _must_be_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
