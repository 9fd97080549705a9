"""Makes a batch of planned cells, and reads the files that it needs."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.core.errors import HarnessError, UsageError
from harness.envs import source_tree
from harness.envs.environment import Environment
from harness.envs.environments import Environments
from harness.runner.cluster.batch import Batch, Done
from harness.runner.cluster.contents import must_be
from harness.runner.how import How
from harness.runner.plan import Planned
from harness.runner.remembered import Entries, entries_of
from harness.store.fixtures import Store
from harness.worker.files import read_regular

Read = Callable[[], bytes]


class Packing:
    """Makes batches, and has the content of each file that one of them names.

    Args:
        environments: the controller's.
        store: the controller's fixtures.
        how: the cells are checked.
    """

    def __init__(self, environments: Environments, store: Store, how: How) -> None:
        self._environments = environments
        self._store = store
        self.how = how
        self._sources: dict[str, Read] = {}
        self._files: dict[Path, str] = {}
        self._described: dict[str, Environment] = {}
        self._trees: dict[str, str] = {}
        self._lock = threading.Lock()

    def batch(self, cells: Sequence[Planned]) -> Batch:
        """The batch of these cells of one loader.

        Raises:
            HarnessError: an environment cannot be described.
        """
        with self._lock:
            names = set(self._environments.names())
            creators = {cell.creator_spec for cell in cells}
            made = frozenset(name for name in creators & names if self._environments.makes_fixtures_on_demand(name))
            specs = {cell.loader_spec for cell in cells} | (creators if self.how.creating else creators & names)
            environments = {spec: self.described(spec) for spec in sorted(specs)}
            remembered = Entries()
            if not (self.how.fresh or self.how.creating):
                remembered = entries_of(cells, self._environments, self._store, self.how.handler)
            return Batch(
                tuple(cells), self.how, environments, made, frozenset(specs & names), self._store.folder,
                {} if self.how.creating else dict(self._fixtures(cells)),
                dict(self._packed_trees(environments)),
                {one.declared.given.digest: self._given(one.declared.given.folder) for one in cells
                 if one.declared.given and (self.how.creating or one.creator_spec in made)},
                remembered,
            )  # fmt: skip

    def described(self, spec: str) -> Environment:
        """An environment, described once, so that all nodes build the same.

        Raises:
            UsageError: it is an interpreter of this machine.
            HarnessError: it cannot be described.
        """
        if spec not in self._described:
            found = self._environments.describe(spec)
            if found.interpreter is not None:
                raise UsageError(
                    f"{spec!r} with --cluster: the nodes cannot use an interpreter of this machine",
                    "an environment that each node builds: a name, pins, a checkout, a Git ref or a lock file",
                    "pip freeze > lock.txt in that environment, and pass --loader lock.txt",
                )  # fmt: skip
            self._described[spec] = found
        return self._described[spec]

    def read(self, sha256: str) -> bytes:
        """The content of a file of a batch.

        Raises:
            HarnessError: the file changed since the batch was made.
        """
        data = self._sources[sha256]()
        must_be(sha256, data, "a file that is sent to a node changed during the run")
        return data

    def keep(self, done: Done) -> None:
        """Remember here what a node observed."""
        with self._lock:
            done.remembered.keep(self._environments.cache)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _fixtures(self, cells: Sequence[Planned]) -> Iterator[tuple[str, str]]:
        """The files of the cells' fixtures as they are, also damaged ones; one that is missing is left out."""
        store: Store | None = self._store
        while store is not None:
            for path in sorted(set(_paths(store, cells))):
                if sha256 := self._file(path):
                    yield path.relative_to(store.folder).as_posix(), sha256
            store = store.fallback

    def _file(self, path: Path) -> str:
        """The SHA-256 of a file; empty if it cannot be read."""
        if path not in self._files:
            try:
                self._files[path] = self._content(lambda: read_regular(path))
            except OSError:
                return ""
        return self._files[path]

    def _content(self, read: Read) -> str:
        sha256 = hashlib.sha256(read()).hexdigest()
        self._sources[sha256] = read
        return sha256

    def _given(self, folder: Path) -> Mapping[str, str]:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {path.relative_to(folder).as_posix(): self._file(path) for path in paths}

    def _packed_trees(self, environments: Mapping[str, Environment]) -> Iterator[tuple[str, str]]:
        for environment in environments.values():
            below: Environment | None = environment
            while below is not None and (overlay := below.overlay) is not None:
                if overlay.digest not in self._trees:
                    tree = overlay.tree
                    self._trees[overlay.digest] = self._content(lambda tree=tree: source_tree.packed(tree))  # type: ignore[misc]
                yield overlay.digest, self._trees[overlay.digest]
                below = overlay.base


def _paths(store: Store, cells: Sequence[Planned]) -> Iterator[Path]:
    """The files of the cells' fixtures in a store, whether they exist or not."""
    for cell in cells:
        creator, scenario = cell.id.creator, cell.id.scenario
        yield from store.manifests.paths(creator, scenario)
        with contextlib.suppress(HarnessError, ValueError):
            manifest = store.manifest(creator, scenario)
            goldens = [one for golden in manifest.goldens.values() for one in golden.values()]
            for stored in (*manifest.files.values(), *goldens, *manifest.shared.values()):
                yield store.blobs.path(stored.sha256)
