"""One cell to look at closely: found in a run, or checked now, with its fixture and an open session.

Example:
    request = CellRequest("lokr-alpha-differs@v061:current[cpu]")
    with one_cell.opened(request) as found:
        golden, now = found.session.traced(found.planned)
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.core import cell_settings, run_file
from harness.core.errors import HarnessError, UsageError
from harness.core.matrix import CellId, Declared
from harness.core.progress import Log, quiet
from harness.core.run import Cell, Run
from harness.core.scratch import scratch_folder
from harness.core.text import similar
from harness.envs import spec as specs
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.runner import plan
from harness.runner.fixture_source import Fixture
from harness.runner.how import How
from harness.runner.plan import Planned
from harness.runner.request import Places
from harness.runner.session import Session
from harness.store.fixtures import Store
from harness.store.manifest import Manifest, NoFixture


@dataclass(frozen=True)
class CellRequest:
    """A cell that somebody asks about.

    Attributes:
        cell: the id (`scenario@creator:loader[device]`), the scenario's name, or a part of the id that only one cell
            of the run contains.
        run: the run's folder or its report.json; default: the newest run in the reports folder.
        creator: how the environment that made the fixture is specified, if its name is not a specification.
        scenarios: files or folders that declare the scenario; default: the matrices.
        worker_handler: replaces the worker's cell module; for tests.
    """

    cell: str
    places: Places = Places()
    run: Path | None = None
    creator: str = ""
    scenarios: tuple[Path, ...] = ()
    worker_handler: Path | None = None

    @property
    def run_folder(self) -> Path:
        """The run to search for the cell.

        Raises:
            UsageError: there is no run.
        """
        return run_folder(self.places, self.run)


@dataclass(frozen=True)
class Located:
    """A cell as it would be checked, and as a run has it.

    Attributes:
        cell: None if no run has it; likewise the run's folder.
    """

    planned: Planned
    cell: Cell | None = None
    run_folder: Path | None = None


@dataclass(frozen=True)
class Found:
    """A judged cell, its fixture, and an open session that can replay it.

    Attributes:
        run_folder: the run that has the cell; None if the cell was checked now.
    """

    cell: Cell
    run_folder: Path | None
    planned: Planned
    store: Store
    manifest: Manifest
    environments: Environments
    session: Session


def one_of(run: Run, text: str) -> Cell:
    """The one cell of a run that a text names: by id, by scenario, or by a part of the id.

    Raises:
        UsageError: no cell matches, or several do.
    """
    found = [cell for cell in run.cells if text in (cell.id, cell.scenario)]
    found = found or [cell for cell in run.cells if cell.id.startswith(text)]
    found = found or [cell for cell in run.cells if text in cell.id]
    if len(found) == 1:
        return found[0]
    names = ", ".join(cell.id for cell in (found or run.cells)[:8])
    raise UsageError(
        f"{'no cell' if not found else f'{len(found)} cells'} of run {run.id} match {text!r}",
        f"one cell, for example: {names}",
        "give the whole id",
    )


@contextlib.contextmanager
def opened(request: CellRequest, log: Log = quiet) -> Iterator[Found]:
    """Find a cell and open a session on it. A cell that is in no run is checked first.

    Raises:
        UsageError: there is no such cell, scenario or environment.
        HarnessError: the fixture is damaged or cannot be made, or the disk is full.
    """
    environments = request.places.environments(log)
    located = locate(request, environments)
    planned = located.planned
    scratch = Path(tempfile.gettempdir())
    try:
        with scratch_folder() as scratch, contextlib.ExitStack() as stack:
            session, fixture = _with_fixture(request, planned, environments, scratch, stack, log)
            cell = located.cell
            if cell is None:
                log(f"{planned.id} is in no run: checking it now")
                cell = session.result(planned)
            if isinstance(fixture, Cell):
                raise HarnessError(
                    f"{planned.id}: {fixture.reason}", "a creator that can make the fixture", "choose another creator"
                )
            yield Found(cell, located.run_folder, planned, fixture.store, fixture.manifest, environments, session)
    except OSError as error:
        raise HarnessError(
            f"{error.filename or scratch}: {error.strerror or error}",
            "a writable place for temporary files, with a few free megabytes",
            "free some space, or set TMPDIR to another folder",
        ) from error


def locate(request: CellRequest, environments: Environments) -> Located:
    """Look a cell up in its run and in the matrices. Nothing is built, replayed or written.

    A whole id that is in no run is planned as it would be checked.

    Raises:
        UsageError: there is no such cell, scenario or environment.
    """
    run, cell, folder = _in_run(request)
    declared = _declared(request, cell)
    if run is None or cell is None:
        return Located(_planned_anew(request, declared, environments))
    return Located(_planned_as_in(run, cell, request, declared, environments), cell, folder)


def run_folder(places: Places, run: Path | None = None) -> Path:
    """The run that somebody names, or the newest finished run in the reports folder.

    Raises:
        UsageError: there is none.
    """
    return run or newest_run(places.reports_folder)


def newest_run(reports: Path) -> Path:
    """The newest finished run in a reports folder.

    Raises:
        UsageError: there is none.
    """
    found = [path for path in reports.glob("*/report.json") if path.parent.name != "sample"]
    if not found:
        raise UsageError(
            f"no run in {reports}", "a folder that `check` wrote", "run `peft-regress check` first, or name a run"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


# -- looking up -------------------------------------------------------------------------------------------------------


def _in_run(request: CellRequest) -> tuple[Run, Cell, Path] | tuple[None, None, None]:
    is_whole_id = all(mark in request.cell for mark in "@:[]")
    try:
        folder = request.run_folder
        run = run_file.load(folder)
        return run, one_of(run, request.cell), folder if folder.is_dir() else folder.parent
    except UsageError:
        if not is_whole_id or request.run:
            raise
        return None, None, None


def _declared(request: CellRequest, cell: Cell | None) -> Declared:
    """The scenario's declaration: in the files of the request, those that the cell's run used, or the matrices."""
    name = cell.scenario if cell else plan.parsed(request.cell).scenario
    where = list(request.scenarios)
    if not where and cell and "--scenarios" in (words := shlex.split(cell.reproduce)):
        where = [path for path in [Path(words[words.index("--scenarios") + 1])] if path.exists()]
    declared = {one.name: one for one in request.places.matrix().scenarios(where or None, hub=True)}
    if name not in declared:
        close = ", ".join(similar(name, declared))
        raise UsageError(
            f"no scenario {name!r}", f"a declared one{close and f': {close}'}",
            "`peft-regress list` shows them; name the file of another with --scenarios",
        )  # fmt: skip
    return declared[name]


def _planned_as_in(
    run: Run, cell: Cell, request: CellRequest, declared: Declared, environments: Environments
) -> Planned:
    """The cell as a run checked it, with the environments that the run used."""
    specs_of_run = {environment.name: environment.spec for environment in run.environments if environment.spec}
    id = CellId(cell.scenario, cell.creator, cell.loader, cell.device, cell_settings.parse(cell.settings))
    creator = request.creator or specs_of_run.get(cell.creator) or _spec_of(cell.creator, environments)
    return Planned(id, declared, creator, specs_of_run.get(cell.loader) or _spec_of(cell.loader, environments))


def _planned_anew(request: CellRequest, declared: Declared, environments: Environments) -> Planned:
    """The cell that a whole id describes."""
    asked = plan.parsed(request.cell)
    spec = request.creator or _spec_of(asked.creator, environments)
    loader_spec = _spec_of(asked.loader, environments)
    creator = asked.creator
    if creator not in request.places.store(required=False).creators():
        creator = plan.name_of(environments, spec)
    loader = plan.name_of(environments, loader_spec)
    id = CellId(asked.scenario, creator, loader, asked.device or "cpu", asked.settings)
    return Planned(id, declared, spec, loader_spec)


_PINNED = re.compile(r"[a-z][a-z0-9-]*-\d[^-+]*(\+[a-z][a-z0-9-]*-\d[^-+]*)*")


def _spec_of(name: str, environments: Environments) -> str:
    """The specification behind an environment's name: `peft-0.9.0` is the name of `peft==0.9.0`."""
    for spec in environments.consumers():
        own, rest = spec.replace(":", "-"), name.removeprefix(spec.replace(":", "-"))
        if name == own or (rest != name and rest.startswith("-")):
            return f"{spec}=={rest[1:]}" if rest else spec
    if name in environments.names() or specs.is_path(name) or not _PINNED.fullmatch(name):
        return name
    return ",".join("==".join(part.rsplit("-", 1)) for part in name.split("+"))


# -- the fixture ------------------------------------------------------------------------------------------------------


def _with_fixture(
    request: CellRequest, planned: Planned, environments: Environments, scratch: Path, stack: contextlib.ExitStack,
    log: Log,
) -> tuple[Session, Fixture | Cell]:  # fmt: skip
    """A session that has the cell's fixture: the stored one, or one that is made as `pair` does."""

    def session(store: Store, creating: bool) -> Session:
        return stack.enter_context(Session(
            environments, store, scratch / ("made" if creating else "stored"),
            How(1, creating=creating, share=False, forward=True, handler=request.worker_handler), log=log,
        ))  # fmt: skip

    stored = session(request.places.store(required=False), creating=False)
    try:
        return stored, stored.fixture(planned)
    except NoFixture:
        if not _exists(environments, planned.creator_spec):
            raise
        log(f"{planned.id} has no stored fixture: making one")
        maker = session(Store(scratch / "fixtures", origin="created"), creating=True)
        return maker, maker.fixture(planned)


def _exists(environments: Environments, spec: str) -> bool:
    try:
        environments.describe(spec)
    except (UsageError, EnvFailed):
        return False
    return True
