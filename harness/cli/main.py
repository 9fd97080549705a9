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
    check_against,
    cli_against,
    cli_expectations,
    cli_settings,
    create,
    docs,
    env,
    fixtures,
    fixtures_archive,
    fixtures_verify,
    grid,
    lint,
    offline,
    reports,
    repro,
    show,
)
from harness.cli.parser import SPEC, Parser, choice, command, handler, hub, resume, run, saying, where
from harness.core.errors import ExitCode, HarnessError

_EXIT = """
exit codes:
  0    clean: everything compared is as it was, or deviates as matrices/expectations.toml says
  1    something regressed, or an expectation no longer holds
  2    could not tell: nothing was compared, an environment failed, a fixture is bad
  64   a wrong argument or input file
  130  interrupted; --resume goes on
"""


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="peft-regress",
        description="Does an adapter that a released PEFT saved still load today, and compute the same thing?",
        epilog="examples:\n"
        "  peft-regress check                                  the stored fixtures under the newest libraries\n"
        "  peft-regress check --loader ../peft -k lokr         … under a checkout, LoKr only\n"
        "  peft-regress pair --creator peft==0.9.0 --loader current\n"
        "  peft-regress show lokr-alpha-differs                one cell of the newest run in full\n" + _EXIT,
    )
    top.add_argument("--version", action="version", version=f"peft-regress {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    reports.add_to(commands)
    create.add_to(commands)
    _check(commands)
    _pair(commands)
    _matrix(commands)
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


def _running(one: Parser) -> None:
    where(one)
    choice(one)
    hub(one)
    one.add_argument(
        "--cell", action="append", default=[], metavar="ID", help="this cell only (a glob may name several)"
    )
    one.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda"], help="where the loader computes (default: cpu)"
    )
    cli_settings.add_to(one)
    one.add_argument("--reports", metavar="DIR", help="where the run's folder is made (default: reports/)")
    one.add_argument("--jobs", type=int, default=0, help="cells at once in one process (default: cores)")
    one.add_argument("--time-limit", type=float, metavar="S", help="seconds for a cell, in place of its own limit")
    one.add_argument("--resume", action="store_true", help="go on with the newest unfinished run of the same cells")
    one.add_argument("--strict", action="store_true", help="a new warning fails the run too")
    one.add_argument(
        "--baseline",
        metavar="RUN",
        help="compare with an earlier run: regressed, fixed, still, new, gone; "
        "with --against also an environment or PATH@REF",
    )
    one.add_argument("--format", choices=["terminal", "markdown"], default="terminal", help="what is printed")
    one.add_argument("--dry-run", action="store_true", help="say which cells would be checked")
    one.add_argument("-q", "--quiet", action="count", default=0, help="the verdict sentence only")
    saying(one)
    handler(one)
    runner = one.add_argument_group("of pytest, which is the runner")
    runner.add_argument(
        "-n", dest="numprocesses", metavar="N", help="processes (xdist); cells of one loader stay together"
    )
    runner.add_argument("-x", dest="exitfirst", action="store_true", help="stop at the first deviation")
    runner.add_argument("--lf", dest="last_failed", action="store_true", help="only what failed last time")
    runner.add_argument("--co", "--collect-only", dest="collect_only", action="store_true", help="list the cells")
    runner.add_argument("--junitxml", metavar="FILE", help="pytest's own JUnit file, besides the run's")
    runner.add_argument("pytest", nargs="*", metavar="-- ARG", help="anything else for pytest, after --")


_EACH = "compute each cell by itself, those too that the loader cannot tell apart"
_FORWARD = "try a loader too that lacks a scenario's feature by declaration: does it refuse, or load something else?"


def _check(commands: Any) -> None:
    one = command(
        commands, "check", check_against.check, "replay stored fixtures under loaders and say what deviates",
        "  peft-regress check\n"
        "  peft-regress check --creator v061 --loader peft==0.20.0 -k 'lokr or loha'\n"
        "  peft-regress check --against ../peft                     what does this change break? Only that is red\n"
        "  peft-regress check --loader python:/opt/venv/bin/python --format markdown\n" + _EXIT,
    )  # fmt: skip
    one.add_argument(
        "--creator", action="append", default=[], metavar="NAME", help="whose fixtures (default: all that are stored)"
    )
    one.add_argument(
        "--all", action="store_true",
        help="every creator's: those that are stored, and those made on demand; with --against every scenario too",
    )  # fmt: skip
    cli_against.add_to(one)
    one.add_argument("--loader", action="append", default=[], metavar="SPEC", help=f"{SPEC} (default: current)")
    one.add_argument("--forward", action="store_true", help=_FORWARD)
    one.add_argument("--each", action="store_true", help=_EACH)
    _running(one)


def _matrix(commands: Any) -> None:
    one = command(
        commands, "matrix", grid.matrix, "replay the fixtures of several creators under several loaders",
        "  peft-regress matrix --creators all --loaders current\n"
        "  peft-regress matrix --creators v0191,v0200 --loaders 'v01*' -k lora       new under old\n"
        "  peft-regress matrix --creators all --loaders all -n 2                     old under new, new under old\n"
        "  peft-regress matrix --creators v061 --loaders v082,current --loaders peft==0.9.0,transformers==4.38.2\n"
        + _EXIT,
    )  # fmt: skip
    one.add_argument(
        "--creators", action="append", required=True, metavar="A,B,…",
        help="whose fixtures: names with commas, globs ('v01*') among those that have some, or all (repeatable)",
    )  # fmt: skip
    one.add_argument(
        "--loaders", action="append", required=True, metavar="X,Y,…",
        help="what reloads them: as --loader of check, with commas between them, globs of declared environments, or "
        "all; several pins in one value are one environment (repeatable)",
    )  # fmt: skip
    one.add_argument("--each", action="store_true", help=_EACH)
    _running(one)


def _pair(commands: Any) -> None:
    one = command(
        commands, "pair", check.pair, "create in one environment and replay in another, storing nothing but the report",
        "  peft-regress pair --creator peft==0.9.0 --loader current\n"
        "  peft-regress pair --creator v061 --loader ../peft --scenarios my-scenarios.toml -k my-adapter\n"
        "  peft-regress pair --creator peft==0.13.2,transformers==4.36.2 --loader peft==0.14.0\n" + _EXIT,
    )  # fmt: skip
    one.add_argument("--creator", action="append", required=True, metavar="SPEC", help=SPEC)
    one.add_argument("--loader", action="append", required=True, metavar="SPEC", help=SPEC)
    _running(one)


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
