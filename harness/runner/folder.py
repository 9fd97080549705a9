"""Run folders. Finished cells are appended to a file, so that an interrupted run loses nothing and can be resumed."""

from __future__ import annotations

import datetime
import json
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import filelock
import pydantic

from harness import __version__
from harness.core.errors import UsageError
from harness.core.files import append_lines, must_take_files, write_atomically
from harness.core.lock import file_lock
from harness.core.run import Cell, EnvironmentReport, Run, finished
from harness.core.run_file import load
from harness.judge import breaks, expected
from harness.worker.files import read_json, read_regular

CELLS = "cells.jsonl"
PLAN = "plan.json"


class Recorder:
    """One run's folder: its plan, and the cells that have finished.

    Args:
        selected: what `to_resume` finds the run by; default: the plan.
    """

    def __init__(
        self, folder: Path, plan: Sequence[str], command: str = "", title: str = "",
        selected: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.plan = tuple(plan)
        self.command = command
        self.title = title
        self.cells: dict[str, Cell] = {}
        self.created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._started = time.monotonic()
        must_take_files(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._folder_lock = _lock_of(folder)
        self._folder_lock.acquire()  # released when the process ends: a running run can't be resumed
        self.cells.update({cell.id: cell for cell in _judged(folder, self.plan)})
        self.resumed = frozenset(self.cells)
        self.environments = _environments_of(folder)
        kept = {"plan": tuple(plan if selected is None else selected), "command": command}
        write_atomically(folder / PLAN, json.dumps(kept, indent=1).encode())

    def add(self, cell: Cell) -> bool:
        """Keep a finished cell; it is on disk when this returns. False where it is kept already."""
        line = _line(cell)
        with self._lock:
            if cell.id in self.cells:
                return False
            self.cells[cell.id] = cell
            append_lines(self.folder / CELLS, [line])
        return True

    def extend(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Add cells to the plan; returns those that are new in it."""
        with self._lock:
            new = tuple(id for id in ids if id not in self.plan)
            self.plan = (*self.plan, *new)
        return new

    def close(self) -> None:
        """Release the folder. What the cells of a finished run observed has served its purpose: it is removed."""
        if any(cell.observed for cell in self.cells.values()) and _is_finished(self.folder):
            cells = [cell.model_copy(update={"observed": ""}) for cell in self.cells.values()]
            write_atomically(self.folder / CELLS, "".join(f"{_line(cell)}\n" for cell in cells).encode())
        self._folder_lock.release()
        Path(self._folder_lock.lock_file).unlink(missing_ok=True)

    def run(
        self,
        environments: Iterable[EnvironmentReport],
        known: Sequence[breaks.Break],
        *,
        interrupted: bool = False,
        strict: bool = False,
        left_out: Mapping[str, str] | None = None,
        timings: Mapping[str, float] | None = None,
        today: datetime.date | None = None,
    ) -> Run:
        """The run so far, with known breaks applied, counts, and its exit code."""
        environments = tuple(environments)
        versions = {environment.name: environment.versions for environment in environments}
        cells, problems = expected.apply(
            list(self.cells.values()), known, versions, today or datetime.date.today(), complete=not interrupted
        )
        return finished(
            Run(
                id=self.folder.name,
                created=self.created,
                tool_version=__version__,
                command=self.command,
                title=self.title,
                environments=environments,
                plan=self.plan,
                cells=cells,
                left_out=dict(left_out or {}),
                expectation_problems=problems,
                breaks={one.id: one.report for one in known if one.id in {cell.expectation for cell in cells}},
                interrupted=interrupted,
                strict=strict,
                duration_s=round(time.monotonic() - self._started, 3),
                timings=dict(timings or {}),
            )
        )


def _line(cell: Cell) -> str:
    return json.dumps(cell.model_dump(mode="json"), separators=(",", ":"))


def new_folder(reports: Path, label: str) -> Path:
    """A new name for a run's folder, unique also among runs of the same second: `20261122-065900-v061-current-3fa9`."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    safe = "".join(letter if letter.isalnum() or letter in "-._+" else "-" for letter in label)[:60]
    return reports / f"{stamp}-{safe}-{secrets.token_hex(2)}"


def _lock_of(folder: Path) -> filelock.BaseFileLock:
    return file_lock(folder / ".lock", timeout=0, thread_local=False)


def finished_cells(folder: Path) -> list[Cell]:
    """The cells in a run's folder; an incomplete last line, which a killed process leaves, is skipped."""
    try:
        lines = read_regular(folder / CELLS).splitlines()
    except FileNotFoundError:
        return []
    cells = []
    for line in lines:
        try:
            cells.append(Cell.model_validate_json(line))
        except pydantic.ValidationError:
            continue  # incomplete: that cell is checked again
    return cells


def _environments_of(folder: Path) -> tuple[EnvironmentReport, ...]:
    """The environments in the report of an interrupted run; empty where it left no report."""
    try:
        return load(folder).environments
    except UsageError:
        return ()


def judged_before(reports: Path, plan: Sequence[str]) -> list[Cell]:
    """The finished cells of the unfinished run of this plan; for a process that helps the one which records it."""
    return _judged(next(_unfinished(reports, plan), reports), plan)


def _judged(folder: Path, plan: Sequence[str]) -> list[Cell]:
    """The finished cells of a plan, without those that have no judgement: their cause may be fixed by now."""
    planned = set(plan)
    return [cell for cell in finished_cells(folder) if cell.id in planned and not cell.verdict.cannot_tell]


def to_resume(reports: Path, plan: Sequence[str]) -> Path:
    """The newest unfinished run of this plan.

    Raises:
        UsageError: there is none.
    """
    for folder in _unfinished(reports, plan):
        if not _is_under_way(folder):
            return folder
    raise UsageError(
        f"no unfinished run of these {len(plan)} cells in {reports}",
        "a run that was interrupted, with the same scenarios, creators and loaders",
        "leave out --resume to start again",
    )


def _unfinished(reports: Path, plan: Sequence[str]) -> Iterator[Path]:
    """Folders of unfinished runs of this plan, the newest first."""
    for folder in sorted(reports.glob("*/"), key=lambda f: f.stat().st_mtime, reverse=True):
        if _plan_of(folder) == list(plan) and not _is_finished(folder):
            yield folder


def _plan_of(folder: Path) -> list[str] | None:
    try:
        found = read_json(folder / PLAN, links=True)
        return list(found["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_under_way(folder: Path) -> bool:
    try:
        with _lock_of(folder):
            return False
    except filelock.Timeout:
        return True


def _is_finished(folder: Path) -> bool:
    try:
        return not read_json(folder / "report.json", links=True).get("interrupted", False)
    except (OSError, ValueError, AttributeError):
        return False
