"""`repro`: write a folder that shows a deviation without this project."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from harness.cli import common
from harness.cli.parser import command, one_cell
from harness.core.errors import ExitCode
from harness.core.files import expanded
from harness.deviation.one_cell import CellRequest
from harness.deviation.repro import folder
from harness.deviation.repro.folder import Written
from harness.judge import causes


@dataclass(frozen=True)
class ReproOptions:
    request: CellRequest
    output: str = ""
    """Not a Path: that would be resolved, and a link would pass for the folder that it points to."""
    force: bool = False
    verify: bool = True
    json: bool = False


def add_to(commands: Any) -> None:
    one = command(
        commands, "repro", repro, "write a folder that shows a deviation with the libraries alone",
        "  peft-regress repro lokr-alpha-differs                  a cell of the newest run\n"
        "  peft-regress repro 'lora-bias-all@v061:current[cpu]' --output issue-1234\n"
        "  peft-regress repro 'lora-linear@peft==0.9.0:../peft[cpu]'     in no run yet, so it is checked first\n\n"
        "The folder has two short scripts, two requirement files, the adapter, the base and a README. It\n"
        "does not need this project. Both scripts are run in their environments first.\n\n"
        "exit codes:\n"
        "  0    written, and the scripts show the deviation (or --no-verify)\n"
        "  2    written, but the scripts do not show the deviation (see the README); or nothing is written: the\n"
        "       cell could not be compared, its fixture is damaged, an environment failed, or the disk is full\n"
        "  64   no such cell, a cell that does not deviate, or a folder that exists\n"
        "  130  interrupted; nothing is written",
        ReproOptions,
    )  # fmt: skip
    one.add_argument("cell", metavar="CELL", help="a cell of the run, as for `show`; or the full id of any cell")
    one.add_argument("--run", metavar="RUN", help="a run's folder (default: the newest)")
    one.add_argument("--output", "--to", metavar="DIR", help="the folder to write (default: repro-CELL here)")
    one.add_argument("--force", action="store_true", help="replace a folder that `repro` wrote before")
    one.add_argument(
        "--verify", action=argparse.BooleanOptionalAction, default=True,
        help="run the scripts in both environments, and say whether they show the deviation (default)",
    )  # fmt: skip
    one_cell(one)


def repro(options: ReproOptions) -> int:
    """Write the folder, run its scripts in both environments, and say whether the deviation shows."""
    output = expanded(options.output).absolute() if options.output else None
    written = folder.write(options.request, output, force=options.force, verify=options.verify, log=common.say)
    if options.json:
        common.out_json({
            "cell": written.cell.id, "folder": str(written.folder), "compares": written.aspect.title,
            "shown": written.shows, "why_not": written.ran.why_not if written.ran else "not run",
        })  # fmt: skip
    else:
        _print(written)
    return ExitCode.CANNOT_TELL if written.shows is False else ExitCode.CLEAN


def _print(written: Written) -> None:
    cell, ran, aspect = written.cell, written.ran, written.aspect
    common.out(str(written.folder))
    if ran is None:
        common.say(f"not run (--no-verify); the scripts compare {aspect.title}")
    elif ran.shown:
        common.say(f"run in both environments: the deviation shows; the scripts compare {aspect.title}")
        if (main := causes.main_finding(cell)) is not None and aspect.finding not in (None, main):
            common.say(f"they do not show the main finding of the cell, which is: {main.message}")
    else:
        common.say(
            f"peft-regress: the scripts do not show the deviation of {cell.id}: {ran.why_not}\n"
            f"  expected: a difference in {aspect.title}\n"
            "  next: do not pass the folder on; `peft-regress show` says how the deviation was seen"
        )
