"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(
    path: Path, data: bytes, *, durable: bool = False, mode: int = 0o644, last: Callable[[], None] = lambda: None
) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; makes the folder.

    Args:
        durable: so even after a power failure: it is on the disk when this returns.
        mode: its rights; a temporary file's own would lock out whoever shares the folder.
        last: called before the file takes its place; what it raises leaves the old content there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        last()
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable and os.name == "posix":  # elsewhere a folder can't be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, even after a power failure."""
    write_atomically(path, data, durable=True)
