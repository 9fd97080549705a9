"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO, cast

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
    """A stream that may stop taking text, as in `| head` or on a full disk: what is written after that is dropped.

    Attributes:
        failed: why nothing more could be written; None also where the reader went away, which is no failure.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self._stream.write(text)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, which is the same if nobody reads what it prints."""
    # None where the caller has closed it: `>&-`
    out, err = (_Stream(stream) if stream else None for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, err)):
        code = _main(arguments)
        for stream in filter(None, (out, err)):
            stream.flush()
        if out and out.failed:
            lost = HarnessError(f"the output cannot be written: {out.failed}", "free space", "run the command again")
            print(f"peft-regress: {lost}", file=sys.stderr)
            return code or int(ExitCode.CANNOT_TELL)
    return code


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
