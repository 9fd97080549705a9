"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from harness import __version__
from harness.cli import common, faults, streams
from harness.cli.parser import EXIT_CODES, Parser, prints, resume, run
from harness.core.errors import ExitCode, HarnessError

_COMMANDS = {
    "check": ("check", "pair", "matrix"),
    "doctor": ("doctor",),
    "try_": ("try",),
    "adopt": ("adopt",),
    "reports": ("list", "report", "diff"),
    "show": ("show",),
    "blame": ("blame",),
    "bisect": ("bisect",),
    "repro": ("repro",),
    "accept": ("accept",),
    "triage": ("triage",),
    "create": ("create",),
    "fixtures": ("fixtures",),
    "env": ("env",),
    "offline": ("export", "judge"),
    "lint": ("lint",),
    "docs": ("docs",),
}
"""Module → its commands, in the order of the help: the first ones are those that users need first."""


def parser(command: str = "") -> Parser:
    """The command line.

    Args:
        command: make the parser of this command only, and import only what it needs. Any other word gives all of them.
    """
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
    wanted = [module for module, names in _COMMANDS.items() if command in names]
    for module in wanted or _COMMANDS:
        importlib.import_module(f"harness.cli.{module}").add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, which is the same if nobody reads what it prints."""
    with streams.guarded() as out:
        code, is_result = _main(arguments)
        lost = out.lost()
        if lost and is_result:
            error = HarnessError(f"the output cannot be written: {lost}", "free space", "run the command again")
            common.say(f"peft-regress: {error}")
            return code or int(ExitCode.CANNOT_TELL)
    return code


def _main(arguments: Sequence[str] | None) -> tuple[int, bool]:
    """The exit code, and True if what was printed is all that the command does."""
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        parsed = parser(words[0] if words else "").parse_args(words)
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else int(ExitCode.USAGE), False
    try:
        return run(parsed), prints(parsed)
    except KeyboardInterrupt:
        common.say(f"peft-regress: interrupted; what had finished is kept, {resume(parsed)}")
        return int(ExitCode.INTERRUPTED), False
    except Exception as error:  # noqa: BLE001  # the rim: no traceback reaches the user, and none exits with 1
        known = faults.explained(error)
        common.say(f"peft-regress: {known}")
        return int(known.exit_code), False
