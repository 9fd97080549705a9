"""Traces a cell layer by layer, and keeps what was found in the run's folder.

Example:
    where = where_trace.trace(CellRequest("lokr-alpha-differs"))
    print(where.first, where.said[-1])
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pydantic

from harness.core import files, run_file
from harness.core.errors import HarnessError, UsageError
from harness.core.observation import Observed
from harness.core.progress import Log, quiet
from harness.core.run import Cell
from harness.deviation import one_cell
from harness.deviation import where as wheres
from harness.deviation.one_cell import CellRequest, Found
from harness.deviation.where import Where
from harness.envs.environment import EnvFailed
from harness.runner.workers.pool import WorkerFailed
from harness.worker.files import read_regular

FOLDER = "where"
"""Within a run's folder: one file for each cell that was traced."""


def trace(request: CellRequest, *, again: bool = False, log: Log = quiet) -> Where:
    """Find the first layer that differs, and why.

    The cell is replayed once more, layer by layer, with the loader's libraries and with the creator's. The result is
    kept in the run's folder (`where/CELL.json`) and reused the next time.

    Args:
        again: trace anew even if there is a kept result.

    Raises:
        UsageError: there is no such cell, scenario or environment.
        HarnessError: the cell cannot be compared, its fixture is damaged, or an environment failed.
    """
    return (None if again else _kept(request)) or _traced(request, log)


def _kept(request: CellRequest) -> Where | None:
    """The result of an earlier trace; None if there is none that can be read."""
    try:
        folder = request.run_folder
        cell = one_cell.one_of(run_file.load(folder), request.cell)
    except UsageError:
        return None  # a whole id that is in no run, or an error that the trace reports
    try:
        found = Where.model_validate_json(read_regular(_file(folder, cell)))
    except (OSError, pydantic.ValidationError):
        return None
    return found if found.format == wheres.FORMAT else None


def _traced(request: CellRequest, log: Log) -> Where:
    with one_cell.opened(request, log) as cell:
        if cell.cell.verdict.cannot_tell:
            raise HarnessError(
                f"{cell.cell.id} is {cell.cell.verdict}: {cell.cell.reason or 'it was not compared'}",
                "a cell that was compared",
                "fix what prevents the comparison, and check the cell again",
            )
        golden, now = cell.session.traced(cell.planned)
        found = wheres.find(cell.cell, golden, now, _creators(cell, log))
    if cell.run_folder is not None:
        path = _file(cell.run_folder, cell.cell)
        try:
            files.write_atomically(path, json.dumps(run_file.portable(found), indent=1).encode() + b"\n")
        except OSError as error:
            log(f"{path} cannot be written: {error.strerror}; the next `show --layers` traces the cell again")
    return found


def _creators(cell: Found, log: Log) -> Observed | None:
    """A trace in the creator's own environment, for what no golden holds; None if that is not possible."""
    planned = cell.planned
    own = replace(planned, id=replace(planned.id, loader=planned.id.creator), loader_spec=planned.creator_spec)
    try:
        return cell.session.traced(own)[1]
    except (UsageError, EnvFailed, WorkerFailed) as error:
        log(f"the creator's environment is not available: {error.found}")
    except HarnessError as error:
        log(f"the cell cannot be traced in the creator's environment: {error.found}")
    return None


def _file(folder: Path, cell: Cell) -> Path:
    folder = folder if folder.is_dir() else folder.parent
    return folder / FOLDER / (re.sub(r"[^A-Za-z0-9@.:=+\[\]-]+", "_", cell.id) + ".json")
