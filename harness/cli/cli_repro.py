"""The command line of `repro`."""

from __future__ import annotations

import argparse
from typing import Any

from harness.cli import repro
from harness.cli.parser import command, one_cell


def add_to(commands: Any) -> None:
    """Add `repro`."""
    one = command(
        commands, "repro", repro.repro, "write a folder that shows a deviation with the libraries alone",
        "  peft-regress repro lokr-alpha-differs                  a cell of the newest run\n"
        "  peft-regress repro 'lora-bias-all@v061:current[cpu]' --output issue-1234\n"
        "  peft-regress repro 'lora-linear@peft==0.9.0:../peft[cpu]'     in no run yet: checked now\n\n"
        "The folder has two short scripts, two requirement files, the adapter, the base and a README, and needs\n"
        "nothing of this project. The scripts are run in both environments first.\n\n"
        "exit codes:\n"
        "  0    written, and the deviation shows when the scripts are run (or --no-verify)\n"
        "  2    written, but it does not show, as its README says; or nothing is written: the cell could not be\n"
        "       compared, its fixture is damaged, an environment failed, the disk is full\n"
        "  64   no such cell, one that does not deviate, a folder that is there already\n"
        "  130  interrupted; nothing is left",
    )  # fmt: skip
    one.add_argument("cell", metavar="CELL", help="a cell of the run, as `show` takes it, or a whole id of none")
    one.add_argument("--run", metavar="RUN", help="a run's folder (default: the newest)")
    one.add_argument("--output", "--to", metavar="DIR", help="the folder to write (default: repro-CELL here)")
    one.add_argument("--force", action="store_true", help="replace a folder that this command made before")
    one.add_argument(
        "--verify", action=argparse.BooleanOptionalAction, default=True,
        help="run the scripts in both environments, and say whether they show it (default)",
    )  # fmt: skip
    one_cell(one)
