"""`show`: print one cell of a run in full, or the first layer that differs in it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common, streams
from harness.cli.parser import command, one_cell
from harness.core import run_file
from harness.core.errors import ExitCode
from harness.deviation import where_text, where_trace
from harness.deviation.one_cell import CellRequest, one_of
from harness.report import terminal


@dataclass(frozen=True)
class ShowOptions:
    """Options of `show`; `place` is the run given without `--run`."""

    request: CellRequest
    place: Path | None = None
    layers: bool = False
    again: bool = False
    json: bool = False


def add_to(commands: Any) -> None:
    one = command(
        commands, "show", show, "print one cell of a run in full",
        "  peft-regress show lokr-alpha-differs\n"
        "  peft-regress show 'lokr-alpha-differs@v061:current[cpu]' reports/20261122-x\n"
        "  peft-regress show lokr-alpha-differs --layers      the first layer that differs, and why\n\n"
        "--layers replays the cell layer by layer, with the loader's and with the creator's libraries. The result is\n"
        "kept in the run's folder (where/CELL.json) and shown again without a replay.\n\n"
        "exit codes:\n"
        "  0    shown\n"
        "  2    the cell could not be compared, its fixture is damaged, or an environment failed\n"
        "  64   no such cell or run",
        ShowOptions,
        prints=True,
    )  # fmt: skip
    one.add_argument("cell", metavar="CELL", help="a cell's id, its scenario, or a part of the id that is unique")
    one.add_argument("place", metavar="RUN", nargs="?", help="a run's folder (default: the newest)")
    one.add_argument("--run", metavar="RUN", help="the same as RUN")
    one.add_argument("--layers", action="store_true", help="find the first layer that differs, and why")
    one.add_argument("--again", action="store_true", help="with --layers: trace the cell again")
    one_cell(one)


def show(options: ShowOptions) -> int:
    """Print one cell of a run in full; with `--layers`, the first layer that differs."""
    request = dataclasses.replace(options.request, run=options.request.run or options.place)
    if options.layers:
        found = where_trace.trace(request, again=options.again, log=common.say)
        if options.json:
            common.out_json(run_file.portable(found))
        else:
            common.out("\n".join(where_text.lines(found)))
        return ExitCode.CLEAN
    run = run_file.load(request.run_folder)
    cell = one_of(run, request.cell)
    if options.json:
        common.out_json(cell.model_dump(mode="json"))
    else:
        terminal.show(cell, run, streams.console())
    return ExitCode.CLEAN
