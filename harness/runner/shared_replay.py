"""Replays that several fixtures share: computed once, judged against each fixture's own golden.

Adjacent releases often save identical tensors; only their configs differ, in entries that the loader ignores, or for
which it has the same default. We replay the fixtures of the oldest and the newest such creator. A fixture between them
reuses that result if all of this holds:

* scenario, loader, device, tensors, further files and inputs are the same, byte for byte;
* the loader's own classes make the same objects of the configs, with the same warnings (the worker's `identify`);
* the config has each entry that both ends have, and none that neither has;
* the replays of the oldest and the newest are equal to the bit: arrays, facts and warnings. A loader that looks at the
  version in a file would have to accept both ends and reject the middle.

A fixture whose result would deviate is replayed for itself, so no deviation rests on another cell's computation.

Which configs a loader reads alike is known once its worker runs. So a group (equal tensors) hands out its cells one by
one (`Turn`): the oldest and the newest first, the others some groups later, of these the ends before what is between.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError
from harness.core.matrix import CellId
from harness.core.observation import Observed
from harness.core.progress import Log
from harness.envs import spec as specs
from harness.runner.alike import (
    ADAPTER_CONFIG,
    BASE_CONFIGS,
    adapter_id,
    age,
    base_id,
    between,
    equal,
    traits,
    with_config,
)
from harness.runner.executed import Trace, united
from harness.runner.plan import Planned
from harness.runner.workers.gpus import WorkerPool
from harness.runner.workers.job import Job
from harness.store.device_class import CPU
from harness.store.fixtures import Store
from harness.store.manifest import Manifest
from harness.worker.files import parse_json, read_json, remove
from harness.worker.shared import Task

_WORTH_IT = 3
"""Members that a group needs: two have none between them."""
_FIRST = 2
"""How many cells of a group start at its place: the oldest and the newest."""
_LAG = 4
"""How many groups later the others start, so that they need not wait for their ends."""
_LIMIT_S = 300.0


@dataclass(frozen=True)
class Taken:
    """What a cell takes over from the ends of its group.

    Attributes:
        other: the cell whose replay observed it.
        trace: what both ends executed; None if that was not recorded.
    """

    now: Observed
    other: str
    trace: Trace | None


Turn = Callable[[], Planned]
"""Tells which cell comes next; a group has as many turns as cells."""


@dataclass
class _Group:
    """Planned cells whose replays differ in configs only, from the oldest creator to the newest."""

    members: list[Planned]
    manifests: dict[str, Manifest]
    waiting: list[Planned] = field(default_factory=list)
    """The cells that have not begun, in the order in which they will."""
    seen: dict[str, Future[Observed | None]] = field(default_factory=dict)
    """What each cell observed; dropped when the last one has been checked."""
    traces: dict[str, Trace | None] = field(default_factory=dict)
    """What the cells executed, where that was recorded."""
    left: int = 0
    """Cells that are not checked yet."""
    ends: dict[CellId, tuple[Planned, Planned]] = field(default_factory=dict)
    """Cell → the oldest and the newest one whose config the loader reads like its own; empty until it was asked."""

    def __post_init__(self) -> None:
        self.waiting = [self.members[0], self.members[-1], *self.members[1:-1]]
        self.seen = {str(cell.id): Future() for cell in self.members}
        self.left = len(self.members)

    def split(self, known: Mapping[str, str]) -> None:
        """Find the ends of the cells that are read alike, and let them begin first. What was not read is by itself."""
        alike: dict[tuple[str, ...], list[Planned]] = {}
        for cell in self.members:
            manifest = self.manifests[str(cell.id)]
            read = known.get(adapter_id(manifest)), known.get(base_id(manifest))
            alike.setdefault((read[0], read[1]) if read[0] and read[1] else (str(cell.id),), []).append(cell)
        self.ends = {cell.id: (members[0], members[-1]) for members in alike.values() for cell in members}
        self.waiting.sort(key=lambda cell: not self.is_end(cell))

    def is_end(self, cell: Planned) -> bool:
        """True for the oldest and the newest of the cells that are read alike, and before that is known."""
        return any(end.id == cell.id for end in self.ends.get(cell.id, (cell,)))

    def have_begun(self, cells: Iterable[Planned]) -> bool:
        """True where none of these cells waits."""
        return not any(cell.id == one.id for cell in cells for one in self.waiting)


class SharedReplays:
    """Arranges planned cells, and hands what the ends of a group observed to the cells between them."""

    def __init__(self, store_of: Callable[[Planned], Store], scratch: Path, log: Log) -> None:
        """Start without groups.

        Args:
            store_of: where a cell's fixture is.
            log: called where a loader could not be asked, so that every cell is computed: slower, with equal results.
        """
        self._store_of = store_of
        self._log = log
        self._scratch = scratch
        self._groups: dict[str, _Group] = {}
        self._identities: dict[str, Future[Mapping[str, str]]] = {}
        self._traits: dict[tuple[str, str], tuple[Manifest, str] | None] = {}
        self._lock = threading.Lock()

    def arrange(self, cells: Sequence[Planned]) -> list[tuple[Planned, Turn]]:
        """A turn for each cell, in the best order, with a cell of the same loader."""
        alike: dict[tuple[str, ...], list[tuple[Planned, Manifest]]] = {}
        single: list[Planned] = []
        for cell in cells:
            if (found := self._looked_at(cell)) is None:
                single.append(cell)
                continue
            manifest, traits = found
            key = (cell.loader_spec, cell.id.place, cell.id.scenario, traits)
            alike.setdefault(key, []).append((cell, manifest))
        placed: list[tuple[float, Planned, Turn]] = []
        for number, members in enumerate(alike.values()):
            placed += [(number + after, cell, turn) for after, cell, turn in self._placed(members)]
        ordered = sorted(placed, key=lambda one: one[0])
        return [(cell, turn) for _, cell, turn in ordered] + [(cell, fixed(cell)) for cell in single]

    def _looked_at(self, cell: Planned) -> tuple[Manifest, str] | None:
        """The manifest and the traits of the cell's fixture; None where it can't be read, which the check reports."""
        if cell.id.device != CPU or cell.further or specs.reads_only(cell.loader_spec):
            # replays on a GPU need not repeat to the bit; others of a group have no further probes; and a consumer
            # has no classes of configurations that could be compared
            return None
        key = (cell.id.creator, cell.id.scenario)
        if key not in self._traits:
            try:
                store = self._store_of(cell)
                manifest = store.manifest(*key) if store.has(*key) else None
                self._traits[key] = (manifest, traits(store, manifest)) if manifest else None
            except (HarnessError, ValueError, LookupError):
                self._traits[key] = None
        return self._traits[key]

    def _placed(self, members: list[tuple[Planned, Manifest]]) -> list[tuple[float, Planned, Turn]]:
        ordered = sorted(members, key=lambda pair: age(pair[1]))
        cells = [cell for cell, _ in ordered]
        if len(ordered) < _WORTH_IT:
            return [(0.0, cell, fixed(cell)) for cell in cells]
        group = _Group(cells, {str(cell.id): manifest for cell, manifest in ordered})
        self._groups |= {str(cell.id): group for cell in cells}

        def turn() -> Planned:
            with self._lock:
                return group.waiting.pop(0)

        return [(0.0 if place < _FIRST else _LAG + 0.5, cell, turn) for place, cell in enumerate(cells)]

    def has(self, cell: Planned, manifest: Manifest) -> bool:
        """True where the cell is one of a group.

        Args:
            manifest: its fixture's current one; a fixture made on demand may have changed since `arrange`.
        """
        group = self._groups.get(str(cell.id))
        return group is not None and group.manifests[str(cell.id)] == manifest

    def observed(self, cell: Planned, manifest: Manifest, now: Observed | None, trace: Trace | None = None) -> None:
        """Record a cell's observation, None where there is none. Later calls for the same cell are ignored.

        Args:
            trace: what it executed, if that was recorded.
        """
        group = self._groups.get(str(cell.id))
        if group is not None:
            group.traces.setdefault(str(cell.id), trace)
            self._record(cell, now if group.manifests[str(cell.id)] == manifest else None)

    def _record(self, cell: Planned, now: Observed | None) -> None:
        group = self._groups.get(str(cell.id))
        future = group.seen.get(str(cell.id)) if group else None
        if future is not None and not future.done():
            future.set_result(now)

    def agree(self, cell: Planned, now: Observed) -> bool:
        """True where the replay of another cell of the group is equal to this cell's. Waits for the ends that run."""
        group = self._groups.get(str(cell.id))
        if group is None:
            return False
        with self._lock:
            running = [str(end.id) for end in group.ends.get(cell.id, ()) if group.have_begun([end])]
            others = [(name, future) for name, future in group.seen.items() if name != str(cell.id)]
        known = [future.result() for name, future in others if future.done() or name in running]
        return any(other is not None and equal(other, now) for other in known)

    def done(self, cell: Planned) -> None:
        """Record that a cell has been checked, whatever its result."""
        self._record(cell, None)
        group = self._groups.get(str(cell.id))
        if group is not None:
            with self._lock:
                group.left -= 1
                if group.left <= 0:
                    group.seen = {}

    def taken_over(self, cell: Planned, pool: WorkerPool, resolved: Mapping[str, Any]) -> Taken | None:
        """What a replay of the cell would observe; None where that is unknown.

        Waits for the ends of the cell's group if they have begun. They wait for no other cell.

        Args:
            resolved: the scenario as the worker gets it.
        """
        group = self._groups[str(cell.id)]
        known = self._identified(cell, pool, resolved)
        with self._lock:
            if not group.ends:
                group.split(known)
            ends = group.ends[cell.id]
            if group.is_end(cell) or not group.have_begun(ends):
                return None
        oldest, newest = (group.seen[str(end.id)].result() for end in ends)
        if oldest is None or newest is None or not equal(oldest, newest):
            return None
        configs = [self._configs(one, group.manifests[str(one.id)]) for one in (ends[0], cell, ends[1])]
        if not between(*configs):
            return None
        trace = united([group.traces.get(str(end.id)) for end in ends])
        return Taken(with_config(newest, configs[1].get(ADAPTER_CONFIG, {})), str(ends[1].id), trace)

    def _configs(self, cell: Planned, manifest: Manifest) -> dict[str, dict[str, Any]]:
        """The fixture's configs, by file."""
        names = [name for name in (ADAPTER_CONFIG, *BASE_CONFIGS) if name in manifest.files]
        return {name: parse_json(self._store_of(cell).content(manifest, name)) for name in names}

    def _identified(self, cell: Planned, pool: WorkerPool, resolved: Mapping[str, Any]) -> Mapping[str, str]:
        """What the loader makes of the configs of the cell's scenario: config → digest; empty where it failed."""
        key = f"{cell.loader_spec} {cell.id.scenario}"
        with self._lock:
            first = key not in self._identities
            future = self._identities.setdefault(key, Future())
        if first:
            try:
                future.set_result(self._asked(cell, pool, resolved))
            except BaseException as error:
                future.set_result({})
                if not isinstance(error, (HarnessError, OSError, ValueError)):
                    raise
        return future.result()

    def _asked(self, cell: Planned, pool: WorkerPool, resolved: Mapping[str, Any]) -> Mapping[str, str]:
        folder = self._scratch / "identify" / str(cell.id).replace("/", "_")
        fixtures = self._of_scenario(cell)
        manifests = [manifest for _, manifest in fixtures]

        def fill() -> None:
            for one, manifest in fixtures:
                self._lay_out(self._store_of(one), manifest, folder)

        fill()
        adapters = sorted({adapter_id(manifest) for manifest in manifests})
        kind = resolved["base"].get("config", "") if resolved["base"]["kind"] == "transformers" else ""
        bases = {base_id(manifest): kind for manifest in manifests}
        request: Task = {"kind": "identify", "adapters": adapters, "bases": bases}
        done = pool.submit(Job(f"identify {cell.id}", request, folder, _LIMIT_S, fill)).result()
        if done.outcome != "done":
            last = (done.log_tail or done.detail).strip().rpartition("\n")[2]
            self._log(f"{cell.id}: the loader could not compare the configs, so every cell is computed: {last}")
            return {}
        found = read_json(folder / "identities.json")
        remove(folder)
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise ValueError(f"{folder / 'identities.json'} holds no digests")
        return found

    def _of_scenario(self, cell: Planned) -> list[tuple[Planned, Manifest]]:
        groups = {
            id(group): group
            for group in self._groups.values()
            if group.members[0].id.scenario == cell.id.scenario and group.members[0].loader_spec == cell.loader_spec
        }
        return [(one, group.manifests[str(one.id)]) for group in groups.values() for one in group.members]

    def _lay_out(self, store: Store, manifest: Manifest, folder: Path) -> None:
        places = {ADAPTER_CONFIG: f"adapters/{adapter_id(manifest)}"}
        places |= dict.fromkeys(BASE_CONFIGS, f"bases/{base_id(manifest)}")
        (folder / places[BASE_CONFIGS[0]] / "base").mkdir(parents=True, exist_ok=True)
        for name, place in places.items():
            path = folder / place / name
            if name in manifest.files and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(store.content(manifest, name))


def fixed(cell: Planned) -> Turn:
    """The turn of a cell that is by itself."""
    return lambda: cell
