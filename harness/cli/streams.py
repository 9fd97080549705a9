"""stdout and stderr of a command: they never fail, and no text in them controls a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from harness.core.text import harmless


class Trusted:
    """A stream that may stop taking text, as in `| head` or on a full disk: what is written after that is dropped.

    Attributes:
        failed: why nothing more could be written; None also where the reader went away, which is no failure.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed: OSError | None = None
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Write what is kept back, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Send the rest to nowhere, also what Python writes when it ends."""
        self.failed = None if isinstance(error, BrokenPipeError) else error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


class Stream(Trusted):
    """A stream for text of any origin: what would control a terminal is written as an escape.

    Attributes:
        trusted: the same stream for what rich draws.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.trusted = Trusted(stream)

    def write(self, text: str) -> int:
        """Write, or drop."""
        super().write(harmless(text))
        return len(text)

    def lost(self) -> OSError | None:
        """Why a part of the output could not be written; None if nobody wants it, or if all was written."""
        self.flush()
        return self.failed or self.trusted.failed


class SafeConsole(Console):
    """A console that draws with colours, and escapes what its texts hold of controls and links."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Segments of something to print."""
        for text, style, control in super().render(renderable, options):
            if control:
                yield Segment(text, style, control)
            else:
                yield Segment(harmless(text), style.update_link(None) if style and style.link else style)


def console(stderr: bool = False) -> Console:
    """A console that knows whether it is a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return SafeConsole(file=getattr(stream, "trusted", stream), highlight=False, soft_wrap=False)


@contextlib.contextmanager
def guarded() -> Iterator[Stream]:
    """Replace stdout and stderr for the block, and let stdin be readable whatever it is; yields stdout."""
    _open_closed()
    with contextlib.ExitStack() as stack:
        if sys.stdin is None:  # the caller closed it
            stack.callback(setattr, sys, "stdin", None)
            sys.stdin = stack.enter_context(Path(os.devnull).open(encoding="utf-8"))
        with contextlib.suppress(AttributeError):
            sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        out, err = Stream(sys.stdout or nowhere), Stream(sys.stderr or nowhere)
        stack.enter_context(contextlib.redirect_stdout(cast(TextIO, out)))
        stack.enter_context(contextlib.redirect_stderr(cast(TextIO, err)))
        try:
            yield out
        finally:
            out.flush()
            err.flush()


def _open_closed() -> None:
    """Open the standard streams that the caller closed (`>&-`): the next file would get the number of one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
