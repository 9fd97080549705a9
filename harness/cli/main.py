"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from harness import __version__
from harness.cli import (
    accept,
    bisect,
    blame,
    check,
    create,
    docs,
    env,
    fixtures,
    lint,
    offline,
    reports,
    repro,
    show,
    triage,
)
from harness.cli.check_options import EXIT_CODES
from harness.cli.parser import Parser, resume, run
from harness.core.errors import ExitCode, HarnessError

_COMMANDS = (check, reports, show, blame, bisect, repro, accept, triage, create, fixtures, env, offline, lint, docs)
"""In the order of the help: the first ones are those that users need first."""


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="peft-regress",
        description="Does an adapter that a released PEFT saved still load today, and compute the same thing?",
        epilog="examples:\n"
        "  peft-regress check                                  replay all fixtures under the newest libraries\n"
        "  peft-regress check --against ../peft                what does this change break?\n"
        "  peft-regress pair --creator peft==0.9.0 --loader current\n"
        "  peft-regress show lokr-alpha-differs                one cell of the newest run in full\n" + EXIT_CODES,
    )
    top.add_argument("--version", action="version", version=f"peft-regress {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for each in (
        check,
        reports,
        show,
        blame,
        bisect,
        repro,
        accept,
        triage,
        create,
        fixtures,
        env,
        offline,
        lint,
        docs,
    ):
        each.add_to(commands)
    return top


class _Stream:
    """A stream whose reader may go away, as in `| head`: what is written after that is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Write what is kept back, or drop it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """Send the rest to nowhere, also what Python writes when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def _lasting(stream: TextIO | None) -> Any:
    return _Stream(stream) if stream else None  # None where the caller has closed it: `>&-`


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, which is the same if nobody reads what it prints."""
    out, err = _lasting(sys.stdout), _lasting(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            return _main(arguments)
        finally:
            for stream in filter(None, (out, err)):
                stream.flush()


def _main(arguments: Sequence[str] | None) -> int:
    try:
        parsed = parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else int(ExitCode.USAGE)
    try:
        return run(parsed)
    except HarnessError as error:
        print(f"peft-regress: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print(f"peft-regress: interrupted; what had finished is kept, {resume(parsed)}", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
