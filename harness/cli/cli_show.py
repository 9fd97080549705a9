"""The command line of `show`."""

from __future__ import annotations

from typing import Any

from harness.cli import show
from harness.cli.parser import command, one_cell


def add_to(commands: Any) -> None:
    """Add `show`."""
    one = command(
        commands, "show", show.show, "print one cell of a run in full",
        "  peft-regress show lokr-alpha-differs\n"
        "  peft-regress show 'lokr-alpha-differs@v061:current[cpu]' reports/20261122-x\n"
        "  peft-regress show lokr-alpha-differs --layers      where it starts, and whose doing it is\n\n"
        "--layers replays the cell once more, layer by layer, here and in the creator's own environment, and keeps\n"
        "what it finds in the run's folder (where/CELL.json); asked again, it says what it kept.\n\n"
        "exit codes:\n"
        "  0    told\n"
        "  2    the cell could not be compared, its fixture is damaged, an environment failed\n"
        "  64   no such cell or run",
    )  # fmt: skip
    one.add_argument("cell", metavar="CELL", help="a cell's id, or a part of it that only one cell has")
    one.add_argument("place", metavar="RUN", nargs="?", help="a run's folder (default: the newest)")
    one.add_argument("--run", metavar="RUN", help="the same, wherever it stands among the options")
    one.add_argument("--layers", action="store_true", help="the first layer that differs, its inputs and parameters")
    one.add_argument("--again", action="store_true", help="with --layers: trace it anew, whatever was kept")
    one_cell(one)
