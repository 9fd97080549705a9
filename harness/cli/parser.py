"""What the command lines of all commands are made of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from harness.core.errors import ExitCode

SPEC = "a name, peft==X, several pins with commas, a checkout's path, a git URL with a ref, python:PATH"
"""The forms in which an environment may be given."""


class Parser(argparse.ArgumentParser):
    """argparse with the documented exit code for wrong usage, and examples that keep their lines."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **more})

    def error(self, message: str) -> NoReturn:
        """Print usage and what is wrong; exit 64."""
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}\n  next: see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(int(ExitCode.USAGE))


def command(commands: Any, name: str, call: Callable[[argparse.Namespace], int], help: str, examples: str) -> Parser:
    """A command of the command line."""
    made: Parser = commands.add_parser(name, help=help, description=help + ".", epilog=f"examples:\n{examples}")
    made.set_defaults(call=call)
    return made


def where(one: Parser, *, fixtures: bool = True) -> None:
    """Options that say where matrices and fixtures are."""
    one.add_argument("--matrices", metavar="DIR", help="scenarios, bases and environments outside the repository")
    if fixtures:
        one.add_argument("--fixtures", metavar="DIR", help="where fixtures are (default: the repository's)")


def choice(one: Parser, scenarios: bool = True) -> None:
    """Options that choose scenarios."""
    one.add_argument(
        "-k", dest="keyword", metavar="EXPR", help="scenarios whose name matches, for example 'lokr or loha'"
    )
    one.add_argument(
        "--family", action="append", default=[], metavar="NAME",
        help="scenarios of this family, or of those that a glob fits: 'bnb-*' (repeatable)",
    )  # fmt: skip
    if scenarios:
        one.add_argument(
            "--scenarios", action="append", default=[], metavar="PATH", help="scenario files or folders (default: all)"
        )


def hub(one: Parser) -> None:
    """The option that lets scenarios on models of the hub in."""
    one.add_argument(
        "--hub",
        action="store_true",
        help="scenarios on real models of the hub too, read from its cache; nothing is fetched",
    )


def one_cell(one: Parser, reports: str = "where runs are (default: reports/)") -> None:
    """What a command about one cell needs besides the cell."""
    one.add_argument(
        "--creator", metavar="SPEC", help="the environment that made the fixture, where its name is no SPEC"
    )
    one.add_argument("--scenarios", action="append", default=[], metavar="PATH", help="where the scenario is declared")
    one.add_argument("--reports", metavar="DIR", help=reports)
    one.add_argument("--json", action="store_true", help="for a program")
    where(one)
    handler(one)


def handler(one: Parser) -> None:
    """The option that puts another handler into the worker."""
    one.add_argument("--worker-handler", help=argparse.SUPPRESS)  # for tests of everything around the worker


def saying(one: Parser) -> None:
    """Options that say how much is told, and for whom."""
    one.add_argument("-v", "--verbose", action="count", default=0, help="a line a cell")
    one.add_argument("--json", action="store_true", help="for a program")
