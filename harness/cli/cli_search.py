"""The command lines of `blame` and `bisect`."""

from __future__ import annotations

from typing import Any

from harness.cli import bisect, blame
from harness.cli.parser import SPEC, Parser, command, one_cell

_CODES = """
exit codes:
  0    answered
  2    could not tell: the ends are not what they should be, nothing could be tested, disk or network failed
       (what was tried is kept: the same command goes on from there)
  64   a wrong argument, an unknown cell, two ends that do not differ
  130  interrupted; the same command goes on
"""


def add_to(commands: Any) -> None:
    """Add `blame` and `bisect`."""
    one = command(
        commands, "blame", blame.blame, "which library turned a cell's verdict: delta debugging over the pins",
        "  peft-regress blame lokr-alpha-differs                       of the newest run\n"
        "  peft-regress blame 'lora-bias-all@v061:current[cpu]'        no run needed\n"
        "  peft-regress blame CELL --good v0140 --bad peft==0.20.0,transformers==5.9.0\n"
        "\nTwo environments differ in many packages. Each candidate is a mix of the two, built (seconds, cached) and\n"
        "tried; what can't be installed or imported is passed over, as a bisection does. The answer is a sentence:\n"
        "  peft 0.6.1 → 0.21.2 alone does it; transformers, accelerate and 36 more packages are innocent.\n" + _CODES,
        resume="the same command goes on",
    )  # fmt: skip
    one.add_argument(
        "--good", dest="sound_in", metavar="SPEC", help=f"where it is sound (default: CELL's creator): {SPEC}"
    )
    one.add_argument("--bad", dest="deviates_in", metavar="SPEC", help="where it deviates (default: CELL's loader)")
    _shared(one)
    one = command(
        commands, "bisect", bisect.bisect, "in which release of a library, and in which commit, a verdict turned",
        "  peft-regress bisect lokr-alpha-differs                    the library that blame found, else the likeliest\n"
        "  peft-regress bisect CELL --package transformers --good 4.51.3 --bad 5.0.0\n"
        "  peft-regress bisect CELL --package peft --find-fix --bad 0.18.0   the first good one\n"
        "  peft-regress bisect CELL --repo ../peft                     then on to the commit\n"
        "\nYanked releases are passed over, and so is what can't be tested, as `git bisect skip` does. Both ends are\n"
        "verified first. The journal remembers what was tried: the same command goes on where it stopped.\n" + _CODES,
        resume="the same command goes on",
    )  # fmt: skip
    one.add_argument(
        "--package", metavar="NAME", help="what is bisected (default: what blame found, else the likeliest)"
    )
    one.add_argument("--good", metavar="X", help="a release that is sound; with --repo also a commit, tag or branch")
    one.add_argument("--bad", metavar="Y", help="one that deviates (defaults: as in CELL's creator and loader)")
    one.add_argument("--find-fix", action="store_true", help="the good one is the later: find the first good")
    one.add_argument("--pre", action="store_true", help="pre-releases too")
    one.add_argument(
        "--rest", choices=(bisect.HELD, bisect.PERIOD),
        help="the other packages: held as in one environment, or as of each release's day (default: held, and of its "
        "day where a release can't be tested so)",
    )  # fmt: skip
    one.add_argument("--repo", metavar="PATH", help="a local clone of the package: go on to the commit")
    one.add_argument("--good-env", dest="sound_in", metavar="SPEC", help="in place of CELL's creator")
    one.add_argument("--bad-env", dest="deviates_in", metavar="SPEC", help="in place of CELL's loader")
    _shared(one)


def _shared(one: Parser) -> None:
    one.add_argument("cell", metavar="CELL", help="scenario@creator:loader[device], or a scenario of the run")
    one.add_argument("--run", metavar="RUN", help="the run that CELL is of (default: the newest)")
    one_cell(one, "where results and journals go (default: reports/)")
    one.add_argument("--log", metavar="FILE", help="the journal (default: beside the result)")
    one.add_argument("--replay", metavar="FILE", help="take what this journal says in place of trying it again")
    one.add_argument("--anew", action="store_true", help="try everything again, whatever the journal remembers")
    one.add_argument("-q", "--quiet", action="store_true", help="the answer only")
