"""Declaring commands: an argparse parser, and the frozen dataclass that its arguments become.

A command has an options dataclass, a function `run(options) -> exit code`, and a parser made by `command(…)`. `main`
parses once, and `options_of` fills the dataclass by field name: the field `time_limit` gets the argument whose `dest`
is `time_limit`. A field whose type is a dataclass is filled from the same arguments, so options are composed:
`places: Places` for what `where(…)` declares, `selection: Selection` for `choice(…)` and `hub(…)`, `output: Output`
for `saying(…)`. The field's type decides the value: `Path` (absolute, `~` expanded), `tuple[…]` for a repeatable
argument, anything else as argparse gives it. A field whose argument is not given (None) keeps its default. Options are
never changed: use `dataclasses.replace`. Only this module and `main` know argparse's Namespace.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from harness.core.errors import ExitCode, UsageError
from harness.core.files import expanded
from harness.core.text import similar

Options = TypeVar("Options")

EXIT_CODES = """
exit codes:
  0    clean: no deviation that is not a known break
  1    something regressed, or a known break no longer holds (matrices/breaks/)
  2    could not tell: nothing was compared, an environment failed, or a fixture is damaged
  64   a wrong argument or input file
  70   a mistake in peft-regress itself; the message names the file with the traceback
  130  interrupted; --resume continues
"""

SPEC = "a name, peft==X, pins with commas, a checkout's path, a Git URL with a ref, python:PATH, or consumer:NAME"
"""The forms in which an environment may be given."""


class Parser(argparse.ArgumentParser):
    """argparse with the documented exit code for wrong usage, and examples that keep their lines."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **more})
        self.register("type", None, _not_empty)

    def add_subparsers(self, **more: Any) -> Any:
        """Declare commands; their own parsers look at what follows the command."""
        made = super().add_subparsers(**more)
        made.type = str
        return made

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but a command refuses its own unknown options, with those that are close."""
        parsed, extras = super().parse_known_args(args, namespace)
        if unknown := [extra.partition("=")[0] for extra in extras if extra.startswith("-")]:
            self._refuse(f"no option {unknown[0]!r}", unknown[0], self._option_string_actions)
        return parsed, extras

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = f"no command {value!r}" if isinstance(action, argparse._SubParsersAction) else (
                f"{'/'.join(action.option_strings)} {value!r}"
            )  # fmt: skip
            self._refuse(what, str(value), map(str, action.choices), f"one of {', '.join(map(str, action.choices))}")

    def _refuse(self, found: str, asked: str, known: Iterable[str], expected: str = "") -> NoReturn:
        """Say what was found and which of the known words is close; exit 64."""
        close = similar(asked, known, most=1) if len(asked) > 2 else []
        expected = f"\n  expected: {expected or 'an option of the command'}"
        mean = f"did you mean {close[0]}? " if close else ""
        print(f"{self.prog}: {found}{expected}\n  next: {mean}see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(int(ExitCode.USAGE))

    def error(self, message: str) -> NoReturn:
        """Say what is wrong; exit 64."""
        expected = "" if "\n  expected: " in message else "\n  expected: the arguments that its help lists"
        print(f"{self.prog}: {message}{expected}\n  next: see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(int(ExitCode.USAGE))


def _not_empty(text: str) -> str:
    """The type of every argument that names no other: a variable that is not set is no name and no path."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty value\n  expected: a name, a path or a text")
    return text


def count(text: str) -> int:
    """The type of a number of things at once; 0 lets us choose."""
    if not (text.isascii() and text.isdecimal() and len(text) < _DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r}\n  expected: a whole number, 0 or more")
    return int(text)


_DIGITS = 7
"""Longer counts are typing errors."""


def processes(text: str) -> str:
    """The type of pytest-xdist's number of processes."""
    return text if text in ("auto", "logical") else str(count(text))


def seconds(text: str) -> float:
    """The type of a time limit."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}\n  expected: a number of seconds above 0")
    return found


def percent(text: str) -> float:
    """The type of a share: `2%`, or `2`, is 0.02."""
    try:
        found = float(text.removesuffix("%")) / 100
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}\n  expected: a percentage from 0 to 100, such as 2%")
    return found


@dataclass(frozen=True)
class Output:
    """How much is printed, and for whom; declared by `saying`."""

    verbose: int = 0
    json: bool = False


def command(
    commands: Any,
    name: str,
    run: Callable[[Options], int],
    help: str,
    examples: str,
    options: type[Options],
    *,
    resume: str = "--resume continues",
    prints: bool = False,
) -> Parser:
    """Declare a command; returns its parser, for its arguments.

    Args:
        run: the command; gets an instance of `options`, returns the exit code.
        options: the dataclass that the arguments become.
        resume: how to go on after Ctrl-C.
        prints: what it prints is all that it does, so that it failed where that could not be written.
    """
    made: Parser = commands.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=f"examples:\n{examples}"
    )
    made.set_defaults(**{_RUN: run, _OPTIONS: options, _RESUME: resume, _PRINTS: prints})
    return made


_RUN, _OPTIONS, _RESUME, _PRINTS = "command run", "command options", "command resume", "command prints"
"""Where `command` keeps what it knows in the Namespace; with a space, so that no argument's `dest` is called so."""


def run(parsed: argparse.Namespace) -> int:
    """Run the command that was parsed; its exit code."""
    values = vars(parsed)
    return int(values[_RUN](options_of(values[_OPTIONS], values)))


def prints(parsed: argparse.Namespace) -> bool:
    """True if what the parsed command prints is all that it does."""
    return bool(vars(parsed)[_PRINTS])


def resume(parsed: argparse.Namespace) -> str:
    """How to go on with the command that was parsed, after Ctrl-C."""
    return str(vars(parsed)[_RESUME])


def options_of(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """An options dataclass from parsed arguments, by field name; see the module's docstring."""
    types = typing.get_type_hints(kind)
    found: dict[str, Any] = {}
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(types[one.name]):
            found[one.name] = options_of(types[one.name], values)
        elif values.get(one.name) is not None:
            found[one.name] = _converted(values[one.name], types[one.name])
    return kind(**found)


def _converted(value: Any, wanted: Any) -> Any:
    kinds = typing.get_args(wanted) or (wanted,)
    if typing.get_origin(wanted) is tuple:
        return tuple(_converted(each, kinds[0]) for each in value)
    return _place(value) if Path in kinds else value


def _place(text: str) -> Path:
    try:
        return expanded(text).resolve()
    except (OSError, RuntimeError) as error:  # a link to itself, no such user, or the current folder is deleted
        why = f"{error.strerror}: {error.filename or text}" if isinstance(error, OSError) else error
        raise UsageError(f"{text!r} is no path: {why}", "a path", "check it, and the current folder") from error


def arguments_of(options: Any) -> dict[str, Any]:
    """The plain values of an options dataclass, flat: `options_of` makes the same dataclass of them again."""
    found: dict[str, Any] = {}
    for one in dataclasses.fields(options):
        value = getattr(options, one.name)
        if dataclasses.is_dataclass(value):
            found |= arguments_of(value)
        elif isinstance(value, tuple):
            found[one.name] = [str(each) if isinstance(each, Path) else each for each in value]
        else:
            found[one.name] = str(value) if isinstance(value, Path) else value
    return found


class Arguments(Protocol):
    """Where arguments are declared: a parser, or a group of one."""

    def add_argument(self, *flags: str, **more: Any) -> Any:
        """Declare an argument."""


def where(one: Arguments, *, fixtures: bool = True) -> None:
    """Options that say where matrices and fixtures are: `Places`."""
    one.add_argument("--matrices", metavar="DIR", help="your own scenarios, bases and environments, before ours")
    if fixtures:
        one.add_argument("--fixtures", metavar="DIR", help="where fixtures are (default: fixtures/)")


def choice(one: Arguments, scenarios: bool = True, keyword: str = "keyword") -> None:
    """Options that choose scenarios: `Selection`."""
    one.add_argument(
        "-k", dest=keyword, type=str, default="", metavar="EXPR",
        help="only scenarios whose name or family matches, for example 'lokr or loha'",
    )  # fmt: skip
    one.add_argument(
        "--family", dest="families", action="append", metavar="NAME", default=[],
        help="only scenarios of this family; globs work: 'bnb-*' (repeatable)",
    )  # fmt: skip
    if scenarios:
        one.add_argument(
            "--scenarios", action="append", default=[], metavar="PATH", help="scenario files or folders (default: all)"
        )


def hub(one: Arguments) -> None:
    """The option that includes scenarios on models of the Hub."""
    one.add_argument(
        "--hub", action="store_true",
        help="include scenarios that use real Hub models, from the local cache; nothing is downloaded",
    )  # fmt: skip


def one_cell(one: Parser, reports: str = "where runs are (default: reports/)") -> None:
    """Options of a command about one cell, besides the cell."""
    one.add_argument(
        "--creator", metavar="SPEC", help="the environment that made the fixture, if its name in CELL is not a SPEC"
    )
    one.add_argument(
        "--scenarios", action="append", default=[], metavar="PATH", help="file or folder that declares the scenario"
    )
    one.add_argument("--reports", metavar="DIR", help=reports)
    one.add_argument("--json", action="store_true", help="print JSON")
    where(one)
    handler(one)


def handler(one: Arguments) -> None:
    """The option that replaces the worker's cell module, for tests of everything around it."""
    one.add_argument("--worker-handler", help=argparse.SUPPRESS)


def saying(one: Arguments) -> None:
    """Options that say how much is printed, and for whom: `Output`."""
    one.add_argument("-v", "--verbose", action="count", default=0, help="print more, such as a line for each cell")
    one.add_argument("--json", action="store_true", help="print JSON")
