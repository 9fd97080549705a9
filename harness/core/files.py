"""Writes files and folders that are complete or not there at all, also when the process is interrupted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from harness.core.errors import UsageError
from harness.worker.files import LARGEST_JSON, read_regular

TERMINATING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU") if hasattr(signal, name)
)
"""The signals besides Ctrl-C that ask a process to end: `kill`, a closed terminal, Ctrl-\\, a CPU limit."""
SIGNALS = (signal.SIGINT, *TERMINATING)
_NAME = 60
"""A temporary name keeps this much of the target's: the file system limits the length of a name."""


def _nothing() -> None:
    """Do nothing."""


def write_atomically(
    path: Path, data: bytes, *, durable: bool = False, mode: int = 0o644, last: Callable[[], object] = _nothing
) -> None:
    """Write a file so that readers see the old content or the new, never a part; creates the folder.

    Args:
        durable: also survive a power failure: the content is on the disk when this returns.
        mode: permissions. Those of a temporary file would lock out other users of the folder.
        last: called before the file is renamed; if it raises, the old content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_NAME]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                _sync(file.fileno(), file.flush)
        Path(temporary).chmod(mode)
        last()
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable and os.name == "posix":  # other systems cannot open a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files of a folder: if one cannot be written, all keep their old content."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".new.", dir=folder))
    try:
        for name, data in contents.items():
            (made / name).write_bytes(data)
        for name in contents:
            (made / name).replace(folder / name)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is complete or not there at all, even after a power failure."""
    write_atomically(path, data, durable=True)


def read_text(path: Path, *, errors: str = "strict") -> str:
    """The text of a regular file, with a newline for each line end.

    Args:
        errors: what to do with bytes that are not UTF-8, as `bytes.decode`.

    Raises:
        OSError: as `read_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_regular(path, LARGEST_JSON).decode("utf-8", errors).replace("\r\n", "\n")


def expanded(path: str | Path) -> Path:
    """The path with a home directory in the place of `~` or `~user`.

    Raises:
        UsageError: this system knows no such directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{path}: no such home directory", "a known user, and HOME set for `~`",
            "write the whole path; for ~/.cache, set PEFT_REGRESS_CACHE",
        ) from None  # fmt: skip


def append_lines(path: Path, lines: Iterable[str], *, durable: bool = True) -> None:
    """Append whole lines to a file; creates file and folder.

    A killed process leaves at most one incomplete line at the end. The next call starts a new line after it, so readers
    lose that line only. Writers in several processes need a lock of their own.

    Args:
        lines: without newlines.
        durable: the lines are on the disk when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        start = b"" if _ends_a_line(file) else b"\n"
        file.write(start + "".join(f"{line}\n" for line in lines).encode())
        if durable:
            _sync(file.fileno(), file.flush)


def _ends_a_line(file: Any) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _sync(handle: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(handle)


def must_take_files(folder: Path) -> None:
    """Refuse a folder in which nothing can be written; it need not exist yet.

    Raises:
        UsageError: it is a file, or inside one, or its permissions forbid it.
    """
    there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    if not there.is_dir():
        raise UsageError(f"{there} is a file", "a folder", "name another folder")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{there} cannot be written", "a folder in which you may write", "name another folder")


def must_be_new(target: Path) -> None:
    """Refuse a folder that holds something, or in which nothing can be written.

    Raises:
        UsageError: it exists and is not an empty folder, or it cannot be made.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(
            f"{target} already exists", "an empty or new folder", "name another folder, or delete this one"
        )
    must_take_files(target)


@contextlib.contextmanager
def new_folder(target: Path, *, last: Callable[[], object] = _nothing) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that replaces it if the block succeeds, and is removed if it fails.

    Args:
        last: called before the folder is renamed; if it raises, the target stays as it is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    made = _temporary_beside(target)
    try:
        yield made
        made.chmod(0o755)  # a temporary folder's 0700 would lock out other users
        last()
        _replace_folder(target, made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _replace_folder(target: Path, made: Path) -> None:
    if not target.exists():
        made.rename(target)
        return
    old = _temporary_beside(target)
    try:
        target.rename(old / target.name)
        try:
            made.rename(target)
        except BaseException:
            (old / target.name).rename(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _temporary_beside(target: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{target.name[:_NAME]}.", dir=target.parent))


class Interrupts:
    """Handles signals: the first raises KeyboardInterrupt, later ones are ignored."""

    def __init__(self) -> None:
        self._ignored = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self._ignored:
            self._ignored = True
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """Ignore all signals from now on, so that cleaning up is not interrupted."""
        self._ignored = True


@contextlib.contextmanager
def one_interrupt(signals: Iterable[signal.Signals] = SIGNALS) -> Iterator[Interrupts]:
    """Raise KeyboardInterrupt for the first of these signals within the block, and ignore later ones.

    A signal that the caller has the process ignore, as `nohup` does with SIGHUP, stays ignored.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers there
        yield interrupts
        return
    handled = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, interrupts) for number in handled}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
