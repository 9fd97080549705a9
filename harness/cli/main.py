"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

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


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="peft-regress",
        description="Does an adapter that a released PEFT saved still load today, and compute the same thing?",
        epilog="examples:\n"
        "  peft-regress check                                  the stored fixtures under the newest libraries\n"
        "  peft-regress check --loader ../peft -k lokr         … under a checkout, LoKr only\n"
        "  peft-regress pair --creator peft==0.9.0 --loader current\n"
        "  peft-regress show lokr-alpha-differs                one cell of the newest run in full\n" + EXIT_CODES,
    )
    top.add_argument("--version", action="version", version=f"peft-regress {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    reports.add_to(commands)
    create.add_to(commands)
    check.add_to(commands)
    show.add_to(commands)
    repro.add_to(commands)
    blame.add_to(commands)
    bisect.add_to(commands)
    accept.add_to(commands)
    triage.add_to(commands)
    fixtures.add_to(commands)
    env.add_to(commands)
    offline.add_to(commands)
    lint.add_to(commands)
    docs.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
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
    except BrokenPipeError:  # the reader of our output went away: `| head`
        sys.stderr.close()
        return int(ExitCode.CLEAN)
