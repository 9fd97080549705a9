"""Where a cell's fixture comes from: it is stored, or made first: for a pair, or on demand into the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from harness.core import matrix
from harness.core.errors import HarnessError
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.envs.environment import BuiltEnvironment
from harness.envs.environments import Environments
from harness.judge import cell_result
from harness.runner.create import create, save
from harness.runner.plan import Planned
from harness.runner.workers.process import worker_digest
from harness.runner.workers.schedule import Key, Pools
from harness.store.fixtures import BadFixture, Manifest, NoFixture, Store, recorded_versions


@dataclass
class Supply:
    """Gets fixtures for a session.

    Args:
        store: where fixtures are read; with `creating`, also where they are made first.
        creating: make what is not in the store, whoever the creator is.
        environment: builds the environment of a spec.
        pools: worker processes by environment.
        only_one: lets one thread at a time into what it names.
    """

    environments: Environments
    store: Store
    scratch: Path
    creating: bool
    environment: Callable[[str], BuiltEnvironment]
    pools: Pools
    only_one: Callable[[str], AbstractContextManager[None]]
    _makers: dict[str, bool] = field(default_factory=dict)
    _cached: dict[str, Store | None] = field(default_factory=dict)
    _creations: dict[str, HarnessError | None] = field(default_factory=dict)
    """Each fixture that may have to be made, and why it could not be."""
    _tried: set[str] = field(default_factory=set)
    _recorded: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def expect(self, cell: Planned) -> None:
        """The cell will be asked for, so that a pool that may have to make its fixture stays open until it has."""
        if _creation(cell) not in self._creations and self._makes(cell):
            self._creations[_creation(cell)] = None
            self.pools.expect(_creating(cell))

    def manifest(self, cell: Planned) -> Manifest | Cell:
        """The cell's fixture, or the cell itself where there can be none.

        Raises:
            NoFixture: it should be stored and is not.
            BadFixture: it is damaged, or of another declaration than the scenario's.
            CreationRefused: it was to be made, and proves nothing.
        """
        store = self.store_of(cell)
        return self._stored(cell) if store is self.store and not self.creating else self._made(cell, store)

    def store_of(self, cell: Planned) -> Store:
        """Where the cell's fixture is: in the cache where its creator's are not committed."""
        spec = cell.creator_spec
        if self.creating:
            return self.store
        with self.only_one(f"store {spec}"):
            if spec not in self._cached:
                self._cached[spec] = self._in_cache(spec) if self._makes(cell) else None
        return self._cached[spec] or self.store

    def _makes(self, cell: Planned) -> bool:
        spec = cell.creator_spec
        if spec not in self._makers:
            declared = spec in self.environments.names()
            self._makers[spec] = self.creating or (declared and self.environments.makes_fixtures_on_demand(spec))
        return self._makers[spec]

    def _in_cache(self, spec: str) -> Store:
        built = self.environment(spec)
        folder = fixtures_cache(self.environments) / folder_of(built.name, built.lock_digest)
        return Store(folder, origin="created")

    def _made(self, cell: Planned, store: Store) -> Manifest | Cell:
        with self.only_one(f"create {_creation(cell)}"):
            try:
                with contextlib.suppress(NoFixture, BadFixture):  # what is regenerable is made anew
                    found = store.manifest(cell.id.creator, cell.id.scenario)
                    if self.creating or not _of_another_declaration(cell, found):
                        return found
                if refused := self._creations.get(_creation(cell)):
                    raise refused
                return self._create(cell, store)
            except HarnessError as error:
                self._creations[_creation(cell)] = error  # it would be refused for the next loader too
                raise
            finally:
                if _creation(cell) not in self._tried:
                    self._tried.add(_creation(cell))
                    self.pools.done(_creating(cell))

    def _create(self, cell: Planned, store: Store) -> Manifest | Cell:
        environment = self.environment(cell.creator_spec)
        if reason := matrix.unsupported(cell.declared, environment.versions, creating=True):
            return cell_result.could_not_tell(cell.id, Verdict.UNSUPPORTED, f"creator: {reason}")
        folder = self.scratch / "created" / f"{cell.id.creator}-{cell.id.scenario}"
        with self.pools.use(_creating(cell)) as pool:
            manifest, folder = create(pool, cell.declared, environment.name, environment.lock_digest, folder)
        return save(store, manifest, folder, replace="made on demand")

    def _stored(self, cell: Planned) -> Manifest | Cell:
        if not self.store.has(cell.id.creator, cell.id.scenario):
            versions = self._creators_versions(cell)
            if versions and (reason := matrix.unstored(cell.declared, versions)):
                return cell_result.could_not_tell(cell.id, Verdict.UNSUPPORTED, f"creator: {reason}")
        manifest = self.store.manifest(cell.id.creator, cell.id.scenario)
        if reason := matrix.unsupported(cell.declared, manifest.versions, creating=True):
            return cell_result.could_not_tell(cell.id, Verdict.UNSUPPORTED, f"creator: {reason}")
        if _of_another_declaration(cell, manifest):
            raise BadFixture(
                f"{cell.id}: the scenario's declaration changed after the fixture was made",
                "a fixture made from the declaration as it is",
                f"create it anew: `peft-regress create {cell.id.creator} -k {cell.id.scenario} --replace --reason …`",
            )
        return manifest

    def _creators_versions(self, cell: Planned) -> Mapping[str, str]:
        """What the creator had: as another fixture of it says, else as its lock does; nothing where nobody can tell."""
        if cell.id.creator not in self._recorded:
            self._recorded[cell.id.creator] = recorded_versions(self.store, cell.id.creator)
        found = self._recorded[cell.id.creator]
        if not found and cell.creator_spec in self.environments.names():
            return self.environments.locked_versions(cell.creator_spec)
        return found


def _creating(cell: Planned) -> Key:
    return Key(cell.creator_spec, "cpu", "creator")


def _creation(cell: Planned) -> str:
    return f"{cell.id.scenario}@{cell.id.creator}"


def _of_another_declaration(cell: Planned, manifest: Manifest) -> bool:
    return matrix.digest(matrix.resolve(cell.declared, manifest.versions)) != manifest.scenario_digest


def fixtures_cache(environments: Environments) -> Path:
    """Where fixtures are made on demand, a folder for each creator and state of its lock."""
    return environments.cache / "fixtures"


def folder_of(name: str, lock_digest: str) -> str:
    """The cache's folder for an environment's fixtures: only that environment and this worker fill it."""
    return f"{name}-{lock_digest[:12]}-{worker_digest()[:12]}"


def out_of_date(environments: Environments) -> list[Path]:
    """Folders of the cache whose environment has another lock by now, or whose worker was another."""
    wanted = set()
    for name in environments.names():
        with contextlib.suppress(HarnessError):  # what can't be described has nothing in the cache that counts
            described = environments.describe(name)
            wanted.add(folder_of(described.name, described.lock_digest))
    return sorted(path for path in fixtures_cache(environments).glob("*") if path.name not in wanted)
