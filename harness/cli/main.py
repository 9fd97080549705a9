"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from harness import __version__
from harness.cli import (
    bisect,
    blame,
    check,
    cli_expectations,
    create,
    docs,
    env,
    fixtures,
    fixtures_archive,
    fixtures_verify,
    lint,
    offline,
    reports,
    repro,
    show,
)
from harness.cli.check_options import EXIT_CODES
from harness.cli.parser import Parser, choice, command, resume, run, where
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
    cli_expectations.add_to(commands)
    _fixtures(commands)
    env.add_to(commands)
    offline.add_to(commands)
    lint.add_to(commands)
    docs.add_to(commands)
    return top


def _fixtures(commands: Any) -> None:
    group = commands.add_parser(
        "fixtures", help="look after the stored fixtures", description="Look after the stored fixtures."
    )
    inner = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    fixtures_verify.add_to(inner)
    fixtures_archive.add_to(inner)
    one = command(
        inner, "diff", fixtures.diff, "hold what two creators wrote for the same scenarios against each other",
        "  peft-regress fixtures diff v071 v082\n"
        "  peft-regress fixtures diff v0140 v0212 -k lora -v\n\n"
        "exit codes: 0 nothing differs (but version strings), 1 something does, 2 nothing could be compared",
    )  # fmt: skip
    one.add_argument("a", metavar="A", help="a creator that has fixtures")
    one.add_argument("b", metavar="B", help="another")
    other = command(
        inner, "history", fixtures.history, "how often each scenario's adapter changed its form over the releases",
        "  peft-regress fixtures history\n  peft-regress fixtures history -v lora-bias-all",
    )  # fmt: skip
    other.add_argument("scenario", nargs="*", metavar="SCENARIO", help="names or globs (default: all)")
    for each in (one, other):
        where(each)
        choice(each, scenarios=False)
        each.add_argument("-v", "--verbose", action="count", default=0, help="each change with all that it touches")
        each.add_argument("--json", action="store_true", help="for a program")


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
