"""One cell of the command line: found in a run, or checked now; with its fixture, whoever made it."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.cli import common
from harness.core import cell_settings, run_file
from harness.core.errors import HarnessError, UsageError
from harness.core.matrix import CellId, Declared
from harness.core.run import Cell, Run
from harness.envs import spec as specs
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.runner import plan
from harness.runner.plan import Planned
from harness.runner.session import Session
from harness.store.fixtures import Manifest, NoFixture, Store


@dataclass(frozen=True)
class Found:
    """A cell, and all that it was made of.

    Attributes:
        run: the run that it was found in; None where it was checked now.
        session: open, to replay it.
    """

    cell: Cell
    run: Run | None
    run_folder: Path | None
    planned: Planned
    store: Store
    manifest: Manifest
    environments: Environments
    session: Session


def one_of(run: Run, text: str) -> Cell:
    """The cell of a run that is meant: by its id, its scenario, or a part of its id that only one has.

    Raises:
        UsageError: none is, or several are.
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
def found(arguments: argparse.Namespace) -> Iterator[Found]:
    """The cell that a command is about.

    Its scenario's name or id is looked for in the run that is named, else in the newest; a whole id that is in none is
    checked now.

    Raises:
        UsageError: there is no such cell, scenario or environment.
        HarnessError: its fixture is damaged, or can't be made.
    """
    environments = common.environments_of(arguments)
    cell, run, folder, planned = located(arguments, environments)
    scratch = Path(tempfile.mkdtemp(prefix="peft-regress-"))
    try:
        with contextlib.ExitStack() as stack:
            session, store, manifest = _with_fixture(arguments, planned, environments, scratch, stack)
            if cell is None:
                common.say(f"{planned.id} is in no run: checking it now")
                cell = session.result(planned)
            if isinstance(manifest, Cell):
                raise HarnessError(f"{planned.id}: {manifest.reason}", "a creator that can make it", "choose another")
            yield Found(cell, run, folder, planned, store, manifest, environments, session)
    except OSError as error:
        raise HarnessError(
            f"{error.filename or scratch}: {error.strerror or error}",
            "a place for scratch files that can be written, with room for some megabytes",
            "free some space, or name another place with TMPDIR",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def located(
    arguments: argparse.Namespace, environments: Environments
) -> tuple[Cell | None, Run | None, Path | None, Planned]:
    """The cell that a command is about, as a run has it and as it would be checked; nothing is looked at yet.

    Raises:
        UsageError: there is no such cell, scenario or environment.
    """
    cell, run, folder = _in_run(arguments)
    return cell, run, folder, _planned(arguments, cell, run, _declared(arguments, cell), environments)


def _in_run(arguments: argparse.Namespace) -> tuple[Cell | None, Run | None, Path | None]:
    whole = all(mark in arguments.cell for mark in "@:[]")
    try:
        folder = run_folder(arguments)
        run = run_file.load(folder)
        return one_of(run, arguments.cell), run, folder if folder.is_dir() else folder.parent
    except UsageError:
        if not whole or arguments.run:
            raise
        return None, None, None


def _declared(arguments: argparse.Namespace, cell: Cell | None) -> Declared:
    """The scenario's declaration: in the matrix, the files that are named, or that which the cell was made from."""
    name = cell.scenario if cell else plan.parsed(arguments.cell).scenario
    where = [Path(text).resolve() for text in arguments.scenarios]
    if not where and cell and "--scenarios" in (words := shlex.split(cell.reproduce)):
        where = [path for path in [Path(words[words.index("--scenarios") + 1])] if path.exists()]
    declared = {one.name: one for one in common.matrix_of(arguments).scenarios(where or None, hub=True)}
    if name not in declared:
        close = ", ".join(difflib.get_close_matches(name, declared, n=4))
        raise UsageError(
            f"no scenario {name!r}", f"one that is declared{close and f': {close}'}",
            "`peft-regress list` shows them; name the file of another with --scenarios",
        )  # fmt: skip
    return declared[name]


def _planned(
    arguments: argparse.Namespace, cell: Cell | None, run: Run | None, declared: Declared, environments: Environments
) -> Planned:
    if cell is not None and run is not None:
        said = {environment.name: environment.spec for environment in run.environments if environment.spec}
        known = CellId(cell.scenario, cell.creator, cell.loader, cell.device, cell_settings.parse(cell.settings))
        creator = arguments.creator or said.get(cell.creator) or _spec_of(cell.creator, environments)
        return Planned(known, declared, creator, said.get(cell.loader) or _spec_of(cell.loader, environments))
    asked = plan.parsed(arguments.cell)
    spec = arguments.creator or _spec_of(asked.creator, environments)
    loader_spec = _spec_of(asked.loader, environments)
    creator = asked.creator
    if creator not in common.store_of(arguments).creators():
        creator = plan.name_of(environments, spec)
    known = CellId(
        asked.scenario, creator, plan.name_of(environments, loader_spec), asked.device or "cpu", asked.settings
    )
    return Planned(known, declared, spec, loader_spec)


def _spec_of(name: str, environments: Environments) -> str:
    """What an environment of that name is asked for by: `peft-0.9.0` is what `peft==0.9.0` is called."""
    if name in environments.names() or specs.is_path(name) or not _PINNED.fullmatch(name):
        return name
    return ",".join("==".join(part.rsplit("-", 1)) for part in name.split("+"))


_PINNED = re.compile(r"[a-z][a-z0-9-]*-\d[^-+]*(\+[a-z][a-z0-9-]*-\d[^-+]*)*")


def _can_be_had(environments: Environments, spec: str) -> bool:
    try:
        environments.describe(spec)
    except (UsageError, EnvFailed):
        return False
    return True


def _with_fixture(
    arguments: argparse.Namespace, planned: Planned, environments: Environments, scratch: Path,
    stack: contextlib.ExitStack,
) -> tuple[Session, Store, Manifest | Cell]:  # fmt: skip
    """A session that has the cell's fixture: the stored one; where there is none, one that is made as `pair` does."""

    def session(store: Store, creating: bool) -> Session:
        handler = common.path(getattr(arguments, "worker_handler", None))
        return stack.enter_context(Session(
            environments, store, scratch / ("made" if creating else "stored"), jobs=1, creating=creating, share=False,
            log=common.say, handler=handler,
        ))  # fmt: skip

    stored = session(common.store_of(arguments), creating=False)
    try:
        return stored, *stored.fixture(planned)
    except NoFixture:
        if not _can_be_had(environments, planned.creator_spec):
            raise
        common.say(f"{planned.id} has no stored fixture: making one")
        maker = session(Store(scratch / "fixtures", origin="created"), creating=True)
        return maker, *maker.fixture(planned)


def run_folder(arguments: argparse.Namespace) -> Path:
    """The run that a command is about: the one that is named, else the newest."""
    return Path(arguments.run) if arguments.run else newest_run(common.reports_folder(arguments))


def newest_run(folder: Path) -> Path:
    """The newest finished run in the reports folder."""
    found = [path for path in folder.glob("*/report.json") if path.parent.name != "sample"]
    if not found:
        raise UsageError(
            f"no run in {folder}", "a folder that `check` wrote", "run `peft-regress check` first, or name a run"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent
