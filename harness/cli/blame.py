"""`blame`: which library causes a deviation."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from harness.cli import common, searching
from harness.cli.parser import SPEC, command
from harness.core.errors import ExitCode
from harness.core.progress import quiet
from harness.deviation.search import blame as search
from harness.deviation.search.blame import Answer
from harness.deviation.search.work import SearchRequest


@dataclass(frozen=True)
class BlameOptions:
    request: SearchRequest
    json: bool = False
    quiet: bool = False
    no_pin: bool = False


def add_to(commands: Any) -> None:
    one = command(
        commands, "blame", blame, "find the library that causes a deviation",
        "  peft-regress blame lokr-alpha-differs                       a cell of the newest run\n"
        "  peft-regress blame 'lora-bias-all@v061:current[cpu]'        no run needed\n"
        "  peft-regress blame CELL --good v0140 --bad peft==0.20.0,transformers==5.9.0\n"
        "  peft-regress blame lora-linear@v0132 --good before.txt --bad after.txt   your own two locks (pip freeze)\n"
        "\nWith --good and --bad, CELL may end after the creator: scenario@creator.\n"
        "The two environments differ in many packages. blame tries mixes of the two (delta debugging): each is\n"
        "built (seconds, cached) and the cell is replayed in it. The answer says only what these trials show: a mix\n"
        "that deviates otherwise, or cannot be installed, shows nothing. When a cause is found, its old versions are\n"
        "put back; if the cell still deviates, blame searches for the next cause. Last, it tries pins that may help:\n"
        "  transformers 4.57.3 → 5.9.0 alone causes it; it deviates in the same way without the changes of peft,\n"
        "  accelerate, safetensors and 41 more packages (3 trials).\n"
        "    pip install 'transformers<5.6' helps: the cell is clean (exact) with transformers 5.5.4\n"
        + searching.EXIT_CODES,
        BlameOptions,
        resume=searching.RESUME,
    )  # fmt: skip
    one.add_argument(
        "--good", dest="sound_in", metavar="SPEC",
        help=f"an environment in which the cell does not deviate (default: CELL's creator): {SPEC}, or a lock file: "
        "the output of pip freeze or uv pip compile, or a pylock.toml",
    )  # fmt: skip
    one.add_argument(
        "--bad", dest="deviates_in", metavar="SPEC",
        help="an environment in which the cell deviates (default: CELL's loader)",
    )  # fmt: skip
    one.add_argument("--no-pin", action="store_true", help="do not search for the versions that help")
    searching.arguments(one)


def blame(options: BlameOptions) -> int:
    """Find the smallest set of version changes between two environments that changes a cell's verdict."""
    answer = search.blame(options.request, quiet if options.quiet else common.say, pins=not options.no_pin)
    if options.json:
        common.out_json(answer.data())
    else:
        _print(answer, options.request)
    return ExitCode.CLEAN if answer.is_answer else ExitCode.CANNOT_TELL


def _print(answer: Answer, request: SearchRequest) -> None:
    common.out(answer.sentence + ".")
    for note in answer.notes:
        common.out(f"  note: {note}")
    for line in answer.pin.lines if answer.pin else ():
        common.out(f"  {line}")
    rows = [(one.words, one.shown, f"{one.seconds:.1f}") for one in answer.tried]
    searching.painter().table("Tried", ("candidate", "result", "seconds"), rows, right=(2,))
    searching.say_spent(answer.spent, answer.journal)
    if answer.culprit:
        cell = request.about.cell if request.deviates_in else str(answer.cell)
        ends = [("--good-env", request.sound_in), ("--bad-env", request.deviates_in)]
        more = "".join(f"{option} {shlex.quote(spec)} " for option, spec in ends if spec)
        common.say(f"to find the release: peft-regress bisect '{cell}' {more}--package {answer.culprit}")
