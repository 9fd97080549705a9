"""What no command expected, as an error with its exit code: the system refused something, or we made a mistake."""

from __future__ import annotations

import errno
import platform
import shlex
import sys
import tempfile
import traceback

from harness import __version__
from harness.core.errors import ExitCode, HarnessError, UsageError

_FREE = "free some space, or name a folder on another disk (--reports, PEFT_REGRESS_CACHE, TMPDIR)"
_ALLOW = "change its permissions, or name another folder (--reports, PEFT_REGRESS_CACHE, TMPDIR)"
_REFUSALS = {
    errno.ENOSPC: ("free space on the disk", _FREE),
    errno.EDQUOT: ("free space within the disk quota", _FREE),
    errno.EFBIG: ("a file within the size limit", "raise the limit (`ulimit -f`), or name another file"),
    errno.EROFS: ("a file system that can be written", "name another folder (--reports, PEFT_REGRESS_CACHE, TMPDIR)"),
    errno.EACCES: ("permission to read and write it", _ALLOW),
    errno.EPERM: ("permission to read and write it", _ALLOW),
    errno.EMFILE: ("more open files allowed", "raise the limit (`ulimit -n`), or lower --jobs"),
    errno.ENOMEM: ("more memory", "lower --jobs, or end other processes"),
    errno.EAGAIN: ("more processes allowed", "lower --jobs, or end other processes"),
}


class _Internal(HarnessError):
    exit_code = ExitCode.INTERNAL


def explained(error: Exception) -> HarnessError:
    """An error for the user, of any exception."""
    if isinstance(error, HarnessError):
        return error
    if isinstance(error, MemoryError):
        return HarnessError("out of memory", *_REFUSALS[errno.ENOMEM])
    if isinstance(error, OSError) and error.errno is not None:
        return _refused(error)
    return _internal(error)


def _refused(error: OSError) -> HarnessError:
    """The error for something that the operating system refused: no result, and no regression."""
    name = error.filename if error.filename is not None else ""
    shown = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    found = f"{shown}: {error.strerror}" if shown else str(error.strerror)
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(found, "a name that the file system allows, up to 255 bytes", "choose a shorter name")
    expected, next_step = _REFUSALS.get(
        error.errno or 0, ("a file system that allows this", "correct that, then run the command again")
    )
    return HarnessError(found, expected, next_step)


def _internal(error: Exception) -> HarnessError:
    """The error for a mistake of ours; its traceback is saved in a file."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
    found = f"internal error: {type(error).__name__}: {str(error)[:300]}"
    try:
        saved = _saved(error)
    except OSError as full:
        saved = f"{where} (the traceback could not be saved: {full.strerror})"
    return _Internal(
        found,
        "a result: this is a mistake in peft-regress, and says nothing of the adapters",
        f"report it to the maintainers, with {saved}",
    )


def _saved(error: Exception) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="peft-regress-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(f"peft-regress {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        file.write(f"{shlex.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}")
    return file.name
