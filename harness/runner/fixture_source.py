"""Where a cell's fixture comes from: a store, or made first, for `pair` or on demand into the cache."""

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
from harness.runner.create import create_one, save
from harness.runner.plan import Planned
from harness.runner.workers.process import worker_digest
from harness.runner.workers.schedule import Key, Pools
from harness.store.fixtures import Store, recorded_versions
from harness.store.manifest import BadFixture, Manifest, NoFixture
from harness.worker import in_use
from harness.worker.files import remove


@dataclass(frozen=True)
class Fixture:
    """A fixture, and the store that holds it."""

    store: Store
    manifest: Manifest

    @property
    def origin(self) -> str:
        """`committed`, or `created` for one that was made on demand."""
        return self.store.origin_of(self.manifest)


@dataclass
class StoredFixtures:
    """Finds cells' fixtures in a store; makes none."""

    environments: Environments
    store: Store
    _recorded: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def fixture(self, cell: Planned) -> Fixture | Cell:
        """The cell's fixture; `unsupported` where the creator lacks the scenario's feature.

        Raises:
            NoFixture: it should be stored and is not.
            BadFixture: it is damaged, or was made from another declaration of the scenario.
        """
        if not self.store.has(cell.id.creator, cell.id.scenario):
            versions = self._creators_versions(cell)
            if versions and (reason := matrix.unstored(cell.declared, versions)):
                return unsupported_by_creator(cell, reason)
        manifest = self.store.manifest(cell.id.creator, cell.id.scenario)
        if reason := matrix.unsupported(cell.declared, manifest.versions, creating=True):
            return unsupported_by_creator(cell, reason)
        if _of_another_declaration(cell, manifest):
            raise BadFixture(
                f"{cell.id}: the scenario's declaration changed after the fixture was made",
                "a fixture made from the current declaration",
                f"create it anew: `peft-regress create {cell.id.creator} -k {cell.id.scenario} --replace --reason …`",
            )
        return Fixture(self.store, manifest)

    def _creators_versions(self, cell: Planned) -> Mapping[str, str]:
        """The creator's packages, from another of its fixtures, else from its lock; empty where neither is there."""
        if cell.id.creator not in self._recorded:
            self._recorded[cell.id.creator] = recorded_versions(self.store, cell.id.creator)
        found = self._recorded[cell.id.creator]
        if not found and cell.creator_spec in self.environments.names():
            return self.environments.locked_versions(cell.creator_spec)
        return found


def unsupported_by_creator(cell: Planned, reason: str) -> Cell:
    """The cell whose creator lacks the scenario's feature."""
    return cell_result.could_not_tell(cell.id, Verdict.UNSUPPORTED, f"creator: {reason}")


@dataclass
class FixtureSource:
    """Gets fixtures for a session, and makes those that are not stored and may be made.

    Args:
        store: where fixtures are read; with `creating`, also where they are made first.
        creating: make every fixture that is not in the store, whoever the creator is.
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

    def __post_init__(self) -> None:
        self._stored = StoredFixtures(self.environments, self.store)

    def expect(self, cell: Planned) -> None:
        """Announce a cell, so that the pool that may have to make its fixture stays open until then."""
        if _creation(cell) not in self._creations and self._makes(cell):
            self._creations[_creation(cell)] = None
            self.pools.expect(_creating(cell))

    def fixture(self, cell: Planned) -> Fixture | Cell:
        """The cell's fixture, made if need be; `unsupported` where the creator lacks the scenario's feature.

        Raises:
            NoFixture: it should be stored and is not.
            BadFixture: it is damaged, or was made from another declaration of the scenario.
            CreationRefused: it was to be made, and would prove nothing.
        """
        store = self.store_of(cell)
        return self._stored.fixture(cell) if store is self.store and not self.creating else self._made(cell, store)

    def store_of(self, cell: Planned) -> Store:
        """The store of the cell's fixture: in the cache for a creator whose fixtures are not committed."""
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
        with contextlib.suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
        in_use.hold(str(folder))  # `env gc` would delete it when the lock changes
        return Store(folder, origin="created")

    def _made(self, cell: Planned, store: Store) -> Fixture | Cell:
        with self.only_one(f"create {_creation(cell)}"):
            try:
                with contextlib.suppress(NoFixture, BadFixture):  # a damaged one can be made again
                    found = store.manifest(cell.id.creator, cell.id.scenario)
                    if self.creating or not _of_another_declaration(cell, found):
                        return Fixture(store, found)
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

    def _create(self, cell: Planned, store: Store) -> Fixture | Cell:
        environment = self.environment(cell.creator_spec)
        if reason := matrix.unsupported(cell.declared, environment.versions, creating=True):
            return unsupported_by_creator(cell, reason)
        folder = self.scratch / "created" / f"{cell.id.creator}-{cell.id.scenario}"
        with self.pools.use(_creating(cell)) as pool:
            manifest, folder = create_one(pool, cell.declared, environment.name, environment.lock_digest, folder)
        try:
            return Fixture(store, save(store, manifest, folder, replace="made on demand"))
        finally:
            remove(folder)


def _creating(cell: Planned) -> Key:
    return Key(cell.creator_spec, "cpu", "creator")


def _creation(cell: Planned) -> str:
    return f"{cell.id.scenario}@{cell.id.creator}"


def _of_another_declaration(cell: Planned, manifest: Manifest) -> bool:
    return matrix.digest(matrix.resolve(cell.declared, manifest.versions)) != manifest.scenario_digest


def fixtures_cache(environments: Environments) -> Path:
    """The cache of fixtures made on demand: a folder for each creator and state of its lock."""
    return environments.cache / "fixtures"


def folder_of(name: str, lock_digest: str) -> str:
    """The name of an environment's folder in the cache. Another lock or another worker gets another folder."""
    return f"{name}-{lock_digest[:12]}-{worker_digest()[:12]}"


def out_of_date(environments: Environments) -> list[Path]:
    """Folders of the cache that were made with an older lock or another worker."""
    wanted = set()
    for name in environments.names():
        with contextlib.suppress(HarnessError):  # an environment that can't be described uses nothing of the cache
            described = environments.describe(name)
            wanted.add(folder_of(described.name, described.lock_digest))
    return sorted(path for path in fixtures_cache(environments).glob("*") if path.is_dir() and path.name not in wanted)
