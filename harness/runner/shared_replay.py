"""Replays that several fixtures share: computed once, judged against each fixture's own golden.

Adjacent releases often save identical tensors; only their configs differ, in entries that the loader ignores. We replay
the fixtures of the oldest and the newest such creator. A fixture between them reuses that result if all of this holds:

* scenario, loader, device, tensors, further files and inputs are the same, byte for byte;
* the loader's own classes make the same objects of the configs, with the same warnings (the worker's `identify`);
* the replays of the oldest and the newest are equal to the bit: arrays, facts and warnings. A loader that looks at the
  version in a file would have to accept both ends and reject the middle.

A fixture whose result would deviate is replayed for itself, so no deviation rests on another cell's computation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import Version
from safetensors.numpy import load

from harness.core.errors import HarnessError
from harness.core.observation import Observed
from harness.core.progress import Log
from harness.core.text import enumerated
from harness.core.versions import version_of
from harness.envs import spec as specs
from harness.judge.numbers import same_bits
from harness.runner.executed import Trace, united
from harness.runner.plan import Planned
from harness.runner.workers.gpus import WorkerPool
from harness.runner.workers.job import Job
from harness.store.device_class import CPU
from harness.store.fixtures import Store
from harness.store.manifest import Manifest
from harness.worker.files import parse_json, read_json, remove
from harness.worker.shared import Task

ADAPTER_CONFIG = "adapter/adapter_config.json"
GENERATION_CONFIG = "base/generation_config.json"
BASE_CONFIGS = ("base/config.json", GENERATION_CONFIG)
_READ_BY_CLASSES = frozenset({ADAPTER_CONFIG, *BASE_CONFIGS})
_STAMPS = ("peft_version", "transformers_version")
"""Which version wrote a file; no part of its meaning."""
_WORTH_IT = 3
"""Members that a group needs: two have none between them."""
_LAG = 4
"""How many groups later the middle cells start, so that they need not wait for their ends."""
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


@dataclass
class _Group:
    """Planned cells whose replays differ in configs only, from the oldest creator to the newest."""

    members: list[Planned]
    manifests: dict[str, Manifest]
    seen: dict[str, Future[Observed | None]] = field(default_factory=dict)
    """Observations of the two ends, by cell; dropped when the last middle cell has been checked."""
    traces: dict[str, Trace | None] = field(default_factory=dict)
    """What the ends executed, by cell."""
    between: int = 0
    """Middle cells that are not checked yet."""

    @property
    def ends(self) -> tuple[Planned, Planned]:
        return self.members[0], self.members[-1]


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

    def arrange(self, cells: Sequence[Planned]) -> list[Planned]:
        """The cells in the best order: the middle cells of a group shortly after its ends."""
        alike: dict[tuple[str, ...], list[tuple[Planned, Manifest]]] = {}
        single: list[Planned] = []
        for cell in cells:
            if (found := self._looked_at(cell)) is None:
                single.append(cell)
                continue
            manifest, traits = found
            key = (cell.loader_spec, cell.id.place, cell.id.scenario, traits)
            alike.setdefault(key, []).append((cell, manifest))
        placed: list[tuple[float, Planned]] = []
        for number, members in enumerate(alike.values()):
            placed += [(number + after, cell) for after, cell in self._placed(members)]
        return [cell for _, cell in sorted(placed, key=lambda pair: pair[0])] + single

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

    def _placed(self, members: list[tuple[Planned, Manifest]]) -> list[tuple[float, Planned]]:
        ordered = sorted(members, key=lambda pair: _age(pair[1]))
        cells = [cell for cell, _ in ordered]
        if len(ordered) < _WORTH_IT:
            return [(0.0, cell) for cell in cells]
        group = _Group(cells, {str(cell.id): manifest for cell, manifest in ordered}, between=len(cells) - 2)
        group.seen = {str(cell.id): Future() for cell in group.ends}
        self._groups |= {str(cell.id): group for cell in cells}
        return [(0.0 if cell in group.ends else _LAG + 0.5, cell) for cell in cells]

    def is_between(self, cell: Planned, manifest: Manifest) -> bool:
        """True where the cell may reuse what the ends of its group observed.

        Args:
            manifest: its fixture's current one; a fixture made on demand may have changed since `arrange`.
        """
        group = self._groups.get(str(cell.id))
        return group is not None and cell not in group.ends and group.manifests[str(cell.id)] == manifest

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
        """True where the replay of another cell of the group is equal to this cell's."""
        group = self._groups.get(str(cell.id))
        others = [future for name, future in group.seen.items() if name != str(cell.id)] if group else []
        seen = [future.result() for future in others if future.done()]
        return any(other is not None and equal(other, now) for other in seen)

    def done(self, cell: Planned) -> None:
        """Record that a cell has been checked, whatever its result."""
        self._record(cell, None)
        group = self._groups.get(str(cell.id))
        if group is not None and cell not in group.ends:
            with self._lock:
                group.between -= 1
                if group.between <= 0:
                    group.seen = {}

    def taken_over(self, cell: Planned, pool: WorkerPool, resolved: Mapping[str, Any]) -> Taken | None:
        """What a replay of the cell would observe; None where that is unknown.

        Waits for the ends of the cell's group.

        Args:
            resolved: the scenario as the worker gets it.
        """
        group = self._groups[str(cell.id)]
        if not self._read_alike(cell, group, pool, resolved):
            return None
        oldest, newest = (group.seen[str(end.id)].result() for end in group.ends)
        if oldest is None or newest is None or not equal(oldest, newest):
            return None
        own = parse_json(self._store_of(cell).content(group.manifests[str(cell.id)], ADAPTER_CONFIG))
        traces = [group.traces.get(str(end.id)) for end in group.ends]
        return Taken(with_config(newest, own), str(group.ends[1].id), united(traces))

    def _read_alike(self, cell: Planned, group: _Group, pool: WorkerPool, resolved: Mapping[str, Any]) -> bool:
        known = self._identified(cell, pool, resolved)
        three = [group.manifests[str(one.id)] for one in (cell, *group.ends)]
        adapters = {known.get(_adapter_id(manifest)) for manifest in three}
        bases = {known.get(_base_id(manifest)) for manifest in three}
        return len(adapters) == 1 and len(bases) == 1 and None not in adapters | bases

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
        adapters = sorted({_adapter_id(manifest) for manifest in manifests})
        kind = resolved["base"].get("config", "") if resolved["base"]["kind"] == "transformers" else ""
        bases = {_base_id(manifest): kind for manifest in manifests}
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
        places = {ADAPTER_CONFIG: f"adapters/{_adapter_id(manifest)}"}
        places |= dict.fromkeys(BASE_CONFIGS, f"bases/{_base_id(manifest)}")
        (folder / places[BASE_CONFIGS[0]] / "base").mkdir(parents=True, exist_ok=True)
        for name, place in places.items():
            path = folder / place / name
            if name in manifest.files and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(store.content(manifest, name))


def traits(store: Store, manifest: Manifest) -> str:
    """SHA-256 over what a replay of a fixture reads, without model cards.

    Of a config only the entries with a true value count: such fixtures are likely to be read alike. The loader decides.
    """
    whole = hashlib.sha256(manifest.scenario.encode())
    for name in (ADAPTER_CONFIG, GENERATION_CONFIG):
        if name in manifest.files:
            config = parse_json(store.content(manifest, name))
            says = {key: value for key, value in config.items() if value and key not in _STAMPS}
            whole.update(json.dumps(says, sort_keys=True).encode())
    for name, stored in sorted(manifest.files.items()):
        if name not in _READ_BY_CLASSES and not name.endswith("README.md"):
            whole.update(f"{name}\0{stored.sha256}\n".encode())
    same = parse_json(store.content(manifest, "golden/observation.json"))["same"]
    arrays = load(store.content(manifest, "golden/arrays.safetensors"))
    for name in sorted(set(arrays) | set(same)):
        if name.startswith(("inputs/", "layers/input/")):
            array = arrays[same.get(name, name)]
            whole.update(f"{name}\0{array.dtype}\0{array.shape}\n".encode() + array.tobytes())
    return whole.hexdigest()


def equal(one: Observed, other: Observed) -> bool:
    """True where two observations are equal to the bit, apart from the version stamps in configs."""
    said = [(_unstamped(each.facts), each.load, each.probes) for each in (one, other)]
    if said[0] != said[1] or set(one.arrays) != set(other.arrays):
        return False
    return all(same_bits(array, other.arrays[name]) for name, array in one.arrays.items())


def differing(one: Observed, other: Observed) -> str:
    """The first things in which two observations differ, apart from the version stamps in configs."""
    arrays = sorted({*one.arrays} ^ {*other.arrays})
    arrays += [
        name for name in one.arrays if name in other.arrays and not same_bits(one.arrays[name], other.arrays[name])
    ]
    facts, others = _unstamped(one.facts), _unstamped(other.facts)
    said = [f"facts of {name}" for name in sorted({*facts, *others}) if facts.get(name) != others.get(name)]
    said += [
        f"outcome of {name}"
        for name in sorted({*one.probes, *other.probes})
        if one.probes.get(name) != other.probes.get(name)
    ]
    said += ["loading"] if one.load != other.load else []
    return enumerated([*arrays, *said], 3)


def with_config(observed: Observed, config: Mapping[str, Any]) -> Observed:
    """The observation of a checkpoint with this config: the round trip reports the config that it started with."""
    if "config_before" not in observed.facts.get("roundtrip", {}):
        return observed
    roundtrip = {**observed.facts["roundtrip"], "config_before": dict(config)}
    return dataclasses.replace(observed, facts={**observed.facts, "roundtrip": roundtrip}, timings={})


def _unstamped(facts: Mapping[str, Any]) -> dict[str, Any]:
    roundtrip = {key: value for key, value in facts.get("roundtrip", {}).items() if key != "config_before"}
    if "config" in roundtrip:
        roundtrip["config"] = {key: value for key, value in roundtrip["config"].items() if key not in _STAMPS}
    return {**facts, "roundtrip": roundtrip}


def _adapter_id(manifest: Manifest) -> str:
    return _id(manifest, (ADAPTER_CONFIG,))


def _base_id(manifest: Manifest) -> str:
    return _id(manifest, BASE_CONFIGS)


def _id(manifest: Manifest, names: Iterable[str]) -> str:
    digests = [manifest.files[name].sha256 if name in manifest.files else "" for name in names]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:24]


def _age(manifest: Manifest) -> tuple[Any, ...]:
    releases = (version_of(manifest.versions.get(package, "")) for package in ("peft", "transformers"))
    return *(release or Version("0") for release in releases), manifest.creator
