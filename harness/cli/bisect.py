"""`bisect`: in which release of a library a cell's verdict changes, and in which commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.cli import common, searching
from harness.cli.parser import command
from harness.core.errors import ExitCode
from harness.core.progress import quiet
from harness.deviation.search import bisect as search
from harness.deviation.search.bisect import RESTS, Answer, BisectRequest
from harness.deviation.search.outcome import result_words
from harness.deviation.search.turning_point import TurningPoint


@dataclass(frozen=True)
class BisectOptions:
    request: BisectRequest
    json: bool = False
    quiet: bool = False


def add_to(commands: Any) -> None:
    one = command(
        commands, "bisect", bisect, "find the release of a library, and the commit, in which a verdict changes",
        "  peft-regress bisect lokr-alpha-differs                    the library that blame found, or the likeliest\n"
        "  peft-regress bisect CELL --package transformers --good 4.51.3 --bad 5.0.0\n"
        "  peft-regress bisect CELL --package peft --find-fix --bad 0.18.0   the first good release\n"
        "  peft-regress bisect CELL --repo ../peft                     continue to the commit\n"
        "\nBoth ends are verified first. Yanked releases and those that cannot be tested are skipped, as with\n"
        "`git bisect skip`. The journal keeps all results: run the same command to continue an interrupted search.\n"
        + searching.EXIT_CODES,
        BisectOptions,
        resume=searching.RESUME,
    )  # fmt: skip
    one.add_argument(
        "--package", metavar="NAME", help="the package to bisect (default: the one that blame found, or the likeliest)"
    )
    one.add_argument(
        "--good", metavar="X",
        help="a good release; with --repo also a commit, tag or branch (default: CELL's creator's)",
    )  # fmt: skip
    one.add_argument("--bad", metavar="Y", help="a bad release (default: CELL's loader's)")
    one.add_argument("--find-fix", action="store_true", help="find the first good release after a bad one")
    one.add_argument("--pre", action="store_true", help="include pre-releases")
    one.add_argument(
        "--rest", choices=RESTS,
        help="the other packages: fixed as in one environment, or as on each release's day (default: held; a PEFT "
        "release that cannot be tested that way is tried with the packages of its day)",
    )  # fmt: skip
    one.add_argument("--repo", dest="clone", metavar="PATH", help="a clone of the package: continue to the commit")
    one.add_argument(
        "--good-env", dest="sound_in", metavar="SPEC", help="the good environment (default: CELL's creator)"
    )
    one.add_argument(
        "--bad-env", dest="deviates_in", metavar="SPEC", help="the bad environment (default: CELL's loader)"
    )
    searching.arguments(one)


def bisect(options: BisectOptions) -> int:
    """Find the release, and with a clone the commit, in which a cell's verdict changes."""
    answer = search.bisect(options.request, quiet if options.quiet else common.say)
    for note in answer.notes:
        common.say(note)
    if options.json:
        common.out_json(answer.data())
    else:
        _print(answer)
    return ExitCode.CLEAN


def _print(answer: Answer) -> None:
    points = [part.at for part in (answer.releases, answer.commits) if part]
    for point in points:
        common.out(point.sentence + ".")
    if answer.releases:
        common.out(f"  {answer.releases.rest}.")
        if answer.releases.compare:
            common.out(f"  {answer.releases.compare}")
    for point in points:
        _print_tried(point)
    searching.say_spent(answer.spent, answer.journal)


def _print_tried(point: TurningPoint) -> None:
    rows = [(one.name, one.day, result_words(one.result, one.verdict), one.why) for one in point.tried]
    searching.painter().table("Tried", ("point", "day", "result", "verdict"), rows)
