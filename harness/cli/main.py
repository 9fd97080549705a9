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
