"""One request in the process that serves it: its log, and the files that say how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Protocol

from ..files import read_json, remove
from ..shared import Reply, Request
from . import executed
from .tree import LIBC

HARNESS_ERROR = 70
"""Exit code of a child whose handle() raised (EX_SOFTWARE of BSD's sysexits.h)."""

_LOG_HEAD = 32 << 10
_LOG_TAIL = 128 << 10
_LARGEST_ERROR = 4 << 20
_SHOWN = 4000


class Handles(Protocol):
    """Serves one request."""

    def handle(self, request: Request) -> None:
        """Serve it; results go into request["scratch"]."""

    def warm_up(self) -> None:
        """Do once what every request would do again; never raises."""

    def is_sound(self, device: str) -> bool:
        """False if this process should serve no further request on the device."""


def work(handler: Handles, request: Request) -> int:
    """Serve one request and write done.json or error.json; returns the exit code."""
    scratch = Path(request["scratch"])
    recorder = executed.of_cell() if request.get("executed") else None
    try:
        handler.handle(request)
        if recorder is not None:
            executed.write(recorder, scratch)
    except KeyboardInterrupt:
        raise  # it is for the user who runs this process: the cell is not at fault and will run again
    except BaseException as error:  # noqa: BLE001 - SystemExit too; reported as a bug in the worker
        report = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        _write_json(scratch / "error.json", report)
        traceback.print_exc()
        flush_all()
        return HARNESS_ERROR
    flush_all()
    _write_json(scratch / "done.json", {"id": request["id"]})
    return 0


def by_exit(request_id: str | None, scratch: Path, code: int) -> Reply:
    """How a request ended whose process ended with an exit code. A cell may have put anything in the files' place."""
    if code == 0 and _said(scratch / "done.json") == {"id": request_id}:
        return {"outcome": "done", "detail": ""}
    if error := _said(scratch / "error.json"):
        return {"outcome": "error", "detail": str(error.get("traceback"))[-_SHOWN:]}
    if code == HARNESS_ERROR:
        return {"outcome": "error", "detail": "it could not write what went wrong; see its log"}
    return {"outcome": "died", "detail": f"exit code {code} before its work was done"}


def _said(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, _LARGEST_ERROR)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def fresh_log(scratch: Path) -> int:
    """Make the folder without the outcome of an earlier run, and an empty log; returns the log's descriptor."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ("done.json", "error.json", "log.txt"):
        remove(scratch / name)
    return os.open(scratch / "log.txt", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)


def redirect(log: Path) -> None:
    """Redirect descriptors 1 and 2 to a file.

    The file is in append mode, so that it can be trimmed while processes write to it.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def flush_all() -> None:
    """Flush the buffers of Python's and C's standard streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # a library may have closed or replaced them
            stream.flush()
    if LIBC is not None:
        LIBC.fflush(None)


def trim_log(log: int, limit: int = 0) -> None:
    """Remove the middle of a log that is over the limit.

    A limit on file sizes would affect real outputs too, and a pipe through the server would lose the last lines if it
    dies.

    Args:
        log: its descriptor. A cell can put something else in the place of its name.
    """
    with contextlib.suppress(OSError):
        size = os.lseek(log, 0, os.SEEK_END)
        if size <= max(limit, _LOG_HEAD + _LOG_TAIL):
            return
        os.lseek(log, 0, os.SEEK_SET)
        head = os.read(log, _LOG_HEAD)
        os.lseek(log, -_LOG_TAIL, os.SEEK_END)
        tail = os.read(log, _LOG_TAIL)
        left_out = size - len(head) - len(tail)
        os.lseek(log, 0, os.SEEK_SET)
        os.write(log, head + f"\n[… at least {left_out} bytes left out …]\n".encode() + tail)
        os.ftruncate(log, os.lseek(log, 0, os.SEEK_CUR))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is either complete or absent."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)
