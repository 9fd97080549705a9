"""What the command lines of `blame` and `bisect` share."""

from __future__ import annotations

from collections.abc import Mapping

from harness.cli import common, streams
from harness.cli.parser import Parser, one_cell
from harness.report import terminal

RESUME = "the same command continues"
EXIT_CODES = """
exit codes:
  0    there is an answer
  2    could not tell: an end has the wrong verdict, the trials show no cause, or disk or network failed
       (results are kept: run the same command to continue)
  64   a wrong argument, an unknown cell, or two ends that do not differ
  130  interrupted; run the same command to continue
"""


def arguments(one: Parser) -> None:
    """Add the arguments that are common to both commands."""
    one.add_argument("cell", metavar="CELL", help="scenario@creator:loader[device], or a scenario of the run")
    one.add_argument("--run", metavar="RUN", help="the run that has CELL (default: the newest)")
    one_cell(one, "where results and journals are written (default: reports/)")
    one.add_argument(
        "--log", dest="journal", metavar="FILE", help="the journal of all tries (default: next to the result)"
    )
    one.add_argument("--replay", metavar="FILE", help="use this journal's results instead of trying again")
    one.add_argument("--anew", action="store_true", help="ignore the journal, and try everything again")
    one.add_argument("-q", "--quiet", action="store_true", help="print the answer only")


def say_spent(spent: Mapping[str, float], journal: object) -> None:
    """Print the cost of a search and the path of its journal to stderr."""
    common.say(
        f"{spent['seconds']} s; {spent['environments_built']} environments built, {spent['cells']} cells run, "
        f"{spent['remembered']} results from the journal: {journal}"
    )


def painter() -> terminal.Painter:
    """Prints tables to stdout."""
    return terminal.Painter(streams.console())
