"""What runs on a node: it says what it is, takes files, and checks batches."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path

from harness.core import data
from harness.core.errors import UsageError
from harness.core.progress import Log, quiet
from harness.core.run import Cell
from harness.core.scratch import scratch_folder
from harness.envs import source_tree
from harness.envs.environment import Environment
from harness.envs.environments import Environments
from harness.runner.cluster.batch import Batch, Done
from harness.runner.cluster.contents import FOLDER, Contents
from harness.runner.plan import Planned
from harness.runner.remembered import Entries, entries_of
from harness.runner.session import Session
from harness.store.fixtures import Store

_LOOK_S = 1.0
"""How often a node looks whether its batch is still wanted."""


class Stopped(Exception):
    """The controller does not want the batch any more."""


def missing(wanted: Sequence[str]) -> list[str]:
    """Those of these files that the node does not have."""
    return _contents().missing(wanted)


def take(contents: Mapping[str, bytes]) -> None:
    """Keep files on the node.

    Raises:
        HarnessError: one of them is damaged, or the disk is full.
    """
    _contents().add(contents)


def run(
    batch: Batch, threads: int = 0, *, log: Log = quiet, on_cell: Callable[[Cell], None] = lambda _: None,
    wanted: Callable[[], bool] = lambda: True,
) -> Done:  # fmt: skip
    """Check a batch in a session.

    Args:
        threads: cells at once, if the batch leaves it open.
        wanted: False once the result is not needed any more; the session is then ended.

    Raises:
        HarnessError: a file of the batch is not on the node.
        Stopped: the batch is not wanted any more.
    """
    with scratch_folder("node") as scratch:
        environments = SentEnvironments(batch, scratch, log)
        how, store = batch.how, _store(batch, scratch)
        batch.remembered.keep(environments.cache)
        session = Session(
            environments, store, scratch / "session", dataclasses.replace(how, jobs=how.jobs or threads),
            log=log, finished=on_cell,
        )  # fmt: skip
        with session, _watched(session, wanted):
            cells = _checked(session, [_with_files(cell, batch, scratch) for cell in batch.cells])
            met, failed = session.environment_reports(), session.failed_environments()
            seconds = session.import_seconds()
        learnt = Entries() if how.creating else _learnt(batch, environments, store)
    results = tuple(_with_path(cell, store.folder, batch.store) for cell in cells)
    return Done(results, met, failed, seconds, learnt)


def _learnt(batch: Batch, environments: Environments, store: Store) -> Entries:
    """What the node remembers of the cells, and the controller does not."""
    found = entries_of(batch.cells, environments, store, batch.how.handler)
    sent = {(entry.key, entry.computed) for entry in batch.remembered.entries}
    return Entries(tuple(one for one in found.entries if (one.key, one.computed) not in sent), found.facts)


def _contents() -> Contents:
    return Contents(data.cache() / FOLDER)


def _checked(session: Session, cells: Sequence[Planned]) -> list[Cell]:
    session.start(cells)
    try:
        return [session.result(cell) for cell in cells]
    except CancelledError:
        raise Stopped from None


@contextlib.contextmanager
def _watched(session: Session, wanted: Callable[[], bool]) -> Iterator[None]:
    """Ends the session if its batch is not wanted any more."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_S):
            if not wanted():
                session.cancel()
                session.close()
                return

    thread = threading.Thread(target=watch, name="batch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _store(batch: Batch, scratch: Path) -> Store:
    folder = scratch / "fixtures"
    _contents().lay_out(batch.fixtures, folder)
    return Store(folder, origin="created" if batch.how.creating else "committed")


def _with_files(cell: Planned, batch: Batch, scratch: Path) -> Planned:
    """The cell with the saved adapter beside its scenario, if it has one, in a folder of the node."""
    given = cell.declared.given
    if given is None or given.digest not in batch.given:
        return cell
    folder = scratch / "given" / given.digest
    if not folder.exists():
        _contents().lay_out(batch.given[given.digest], folder)
    declared = dataclasses.replace(cell.declared, given=dataclasses.replace(given, folder=folder))
    return dataclasses.replace(cell, declared=declared)


def _with_path(cell: Cell, own: Path, controllers: Path) -> Cell:
    """The cell with the controller's path in its messages, in the place of the node's."""
    said = {name: getattr(cell, name) for name in ("reason", "log_tail")}
    return cell.model_copy(update={name: text.replace(str(own), str(controllers)) for name, text in said.items()})


class SentEnvironments(Environments):
    """The environments that a batch describes. Nothing is resolved on the node; packages are installed there."""

    def __init__(self, batch: Batch, scratch: Path, log: Log) -> None:
        super().__init__(scratch / "no-matrices", log=log)
        self._batch = batch
        self._scratch = scratch
        self._files: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The declared ones."""
        return sorted(self._batch.declared)

    def makes_fixtures_on_demand(self, name: str) -> bool:
        """As the controller's matrix says."""
        return name in self._batch.on_demand

    def describe(self, spec: str) -> Environment:
        """As the controller describes it, with the tree of a checkout in a folder of the node."""
        if spec not in self._batch.environments:
            raise UsageError(f"{spec!r} was not sent to this node", "an environment of the batch", "report this error")
        with self._lock:
            return self._with_tree(self._batch.environments[spec])

    def _with_tree(self, environment: Environment) -> Environment:
        overlay = environment.overlay
        if overlay is None:
            return environment
        tree = self._scratch / "trees" / overlay.digest
        if overlay.digest not in self._files:
            data = _contents().read(self._batch.trees[overlay.digest])
            self._files[overlay.digest] = source_tree.unpack(data, tree)
        base = self._with_tree(overlay.base) if overlay.base else None
        here = dataclasses.replace(overlay, tree=tree, base=base, files=self._files[overlay.digest])
        return dataclasses.replace(environment, overlay=here)
