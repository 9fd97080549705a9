"""`show`: one cell of a run in full, and where its deviation starts."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import pydantic

from harness.cli import common, one_cell
from harness.core import files, run_file
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.observation import Observed
from harness.core.run import Cell
from harness.deviation import where as wheres
from harness.deviation import where_text as report
from harness.deviation.where import Where
from harness.envs.environment import EnvFailed
from harness.report import terminal
from harness.runner.workers.pool import WorkerFailed

FOLDER = "where"
"""Within a run's folder: what was traced of its cells."""


def show(arguments: argparse.Namespace) -> int:
    """Print one cell of a run in full; with `--layers`, where its deviation starts."""
    arguments.run = arguments.run or arguments.place
    if arguments.layers:
        return layers(arguments)
    run = run_file.load(one_cell.run_folder(arguments))
    cell = one_cell.one_of(run, arguments.cell)
    if arguments.json:
        common.out(json.dumps(cell.model_dump(mode="json"), indent=1))
    else:
        terminal.show(cell, run, common.console())
    return ExitCode.CLEAN


def layers(arguments: argparse.Namespace) -> int:
    """Replay one cell, layer by layer, unless that was done before, and say where it starts to deviate."""
    kept = _kept_before(arguments)
    found = kept or _traced(arguments)
    if arguments.json:
        common.out(json.dumps(run_file.portable(found), indent=1))
    else:
        common.out("\n".join(report.lines(found)))
    return ExitCode.CLEAN


def _kept_before(arguments: argparse.Namespace) -> Where | None:
    """What was traced before and lies beside the run; None where it must be traced."""
    if arguments.again:
        return None
    try:
        folder = one_cell.run_folder(arguments)
        cell = one_cell.one_of(run_file.load(folder), arguments.cell)
    except UsageError:
        return None  # it is asked for by a whole id that is in no run, or `found` says what is wrong
    try:
        found = Where.model_validate_json(_file(folder, cell).read_bytes())
    except (OSError, pydantic.ValidationError):
        return None
    return found if found.format == wheres.FORMAT else None


def _traced(arguments: argparse.Namespace) -> Where:
    with one_cell.found(arguments) as cell:
        if cell.cell.verdict.cannot_tell:
            raise HarnessError(
                f"{cell.cell.id} is {cell.cell.verdict}: {cell.cell.reason or 'it was not compared'}",
                "a cell that was compared",
                "mend what keeps it from being compared, and check it again",
            )
        golden, now = cell.session.traced(cell.planned)
        found = wheres.find(cell.cell, golden, now, _creators(cell))
    if cell.run_folder is not None:
        path = _file(cell.run_folder, cell.cell)
        try:
            files.write_atomically(path, json.dumps(run_file.portable(found), indent=1).encode() + b"\n")
        except OSError as error:
            common.say(f"{path} can't be kept: {error.strerror}; it will be traced again")
    return found


def _creators(cell: one_cell.Found) -> Observed | None:
    """The same in the creator's own environment, for what no golden holds; None where it can't be had."""
    planned = cell.planned
    own = replace(planned, id=replace(planned.id, loader=planned.id.creator), loader_spec=planned.creator_spec)
    try:
        return cell.session.traced(own)[1]
    except (UsageError, EnvFailed, WorkerFailed) as error:
        common.say(f"the creator's own environment was not asked: {error.found}")
    except HarnessError as error:
        common.say(f"the creator's own environment could not be traced: {error.found}")
    return None


def _file(folder: Path, cell: Cell) -> Path:
    folder = folder if folder.is_dir() else folder.parent
    return folder / FOLDER / (re.sub(r"[^A-Za-z0-9@.:=+\[\]-]+", "_", cell.id) + ".json")
