"""What a session's cells share of the memory of observations: their keys, what is kept, and when.

An observation is kept only after a look at the environment's files: none of them may have changed while it was
computed. A look costs up to half a second, so there is one every few seconds. A run that is killed loses the cells
since the last look.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import platform
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.core import machine, matrix, observation
from harness.core.errors import HarnessError
from harness.core.observation import Observed
from harness.core.progress import Log, quiet
from harness.envs.environment import BuiltEnvironment
from harness.envs.environments import Environments
from harness.runner.executed import Executed, Trace
from harness.runner.memory import FOLDER, Entry, Known, Memory
from harness.runner.plan import Planned
from harness.runner.workers.process import worker_digest
from harness.store.device_class import CPU
from harness.store.fixtures import Store
from harness.store.manifest import Manifest
from harness.worker.shared import FURTHER

_LOOK_SHARE = 0.05
"""The share of the time that looking at the environments' files may take."""
AUDIT = 0.02
"""The share of remembered cells that each run computes anew, and compares."""


class Remembered:
    """The memory as the cells of one session use it.

    Args:
        is_sound: False once an environment is no longer what was built.
        facts_of: what the worker of a loader said of itself, by the loader's name.
        fresh: recall nothing; what is computed is kept all the same.
        audit: the share of cells that are computed anew though they are remembered.
        handler: what replaces the worker's cell module.
        log: called with the first cell of an environment whose code cannot be recorded.
    """

    def __init__(
        self, memory: Memory, is_sound: Callable[[BuiltEnvironment], bool],
        facts_of: Callable[[str], Mapping[str, Any]], *, fresh: bool = False, audit: float = AUDIT,
        handler: Path | None = None, log: Log = quiet,
    ) -> None:  # fmt: skip
        self._memory = memory
        self._is_sound = is_sound
        self._facts_of = facts_of
        self._fresh = fresh
        self._audit = audit
        self._worker = code_digest(handler)
        self._log = log
        self._untraced: set[str] = set()
        self._lock = threading.Lock()
        self._waiting: dict[Path, _Waiting] = {}
        self._looked, self._cost_s = time.monotonic(), 0.0

    def key(self, cell: Planned, environment: BuiltEnvironment, manifest: Manifest) -> str:
        """The key of what a cell observes; empty for a cell that is never remembered."""
        return key_of(cell, environment, manifest, self._worker)

    def recall(
        self, cell: Planned, environment: BuiltEnvironment, manifest: Manifest, golden: Observed
    ) -> Known | None:
        """What a cell observed, if it is remembered: also with the further probes, of which the rest is taken."""
        if self._fresh:
            return None
        for one in _serving(cell):
            key = self.key(one, environment, manifest)
            if key and (found := self._memory.recall(key, golden.arrays)):
                return found if one is cell else replace(found, observed=_without_further(found.observed))
        return None

    def executed(self, cell: Planned, environment: BuiltEnvironment, manifest: Manifest) -> Executed | None:
        """What a cell executed; None if that is not known."""
        found = self.trace(cell, environment, manifest)
        return found.executed if found else None

    def trace(self, cell: Planned, environment: BuiltEnvironment, manifest: Manifest) -> Trace | None:
        """What was recorded of a cell; None if nobody tried."""
        keys = [key for one in _serving(cell) if (key := self.key(one, environment, manifest))]
        found = self._memory.traces(keys) if keys else {}
        return next((found[key] for key in keys if key in found), None)

    def audits(self, key: str) -> bool:
        """True for the sample that is computed anew today."""
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        drawn = int.from_bytes(hashlib.sha256(f"{day} {key}".encode()).digest()[:8], "big") / 2**64
        return drawn < self._audit

    def forget(self, key: str) -> None:
        """Delete what is remembered of a cell."""
        self._memory.forget(key)

    def facts(self, environment: BuiltEnvironment) -> Mapping[str, Any]:
        """What the environment's worker said of itself when it last computed."""
        return self._memory.facts(environment_key(environment))

    def keep(
        self, key: str, cell: Planned, environment: BuiltEnvironment, now: Observed, golden: Observed,
        seconds: float, same_as: str = "", trace: Trace | None = None,
    ) -> None:  # fmt: skip
        """Keep what a cell observed, after the next look at its environment's files.

        Args:
            trace: what was recorded of it. Without one, an earlier one is kept.
        """
        if not key:
            return
        content = observation.encoded(now, golden.arrays)
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self._lock:
            waiting = self._waiting.setdefault(environment.python, _Waiting(environment))
            waiting.entries.append(Entry(key, str(cell.id), when, same_as, seconds, content))
            waiting.traces |= {key: trace} if trace else {}
            if trace and trace.why and environment.name not in self._untraced:
                self._untraced.add(environment.name)
                self._log(
                    f"{cell.id}: what it executes is not recorded: {trace.why}. "
                    "A change is checked on such cells by the files that it touches"
                )
            if (time.monotonic() - self._looked) * _LOOK_SHARE >= self._cost_s:
                self._write()

    def close(self) -> None:
        """Keep what waits, and close the memory."""
        with self._lock:
            self._write()
        self._memory.close()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        begun = time.monotonic()
        for one in waiting.values():
            if self._is_sound(one.environment):
                facts, key = self._facts_of(one.environment.name), environment_key(one.environment)
                self._memory.keep(one.entries, {key: facts} if facts else {}, key, one.traces)
        self._looked = time.monotonic()
        self._cost_s = self._looked - begun


@dataclass
class _Waiting:
    """What is kept of an environment after the next look at its files."""

    environment: BuiltEnvironment
    entries: list[Entry] = field(default_factory=list)
    traces: dict[str, Trace] = field(default_factory=dict)


def key_of(cell: Planned, environment: BuiltEnvironment, manifest: Manifest, worker: str) -> str:
    """The key of what a cell observes; empty for a cell that is never remembered.

    Those are cells on a GPU, whose replays need not repeat to the bit, of models of the Hub, and of interpreters that
    others may change.
    """
    if environment.untouched or cell.id.device != CPU or cell.declared.needs_hub:
        return ""
    said = {
        "environment": environment_key(environment),
        "files": {name: stored.sha256 for name, stored in manifest.files.items()},
        "golden": {name: stored.sha256 for name, stored in manifest.goldens.get(CPU, {}).items()},
        "scenario": matrix.digest(matrix.resolve(cell.declared, environment.versions)),
        "settings": dict(cell.id.settings.request),
        "further": cell.further,
        "worker": worker,
        "machine": _machine(),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def known(cells: Iterable[Planned], environments: Environments, store: Store, handler: Path | None = None) -> set[str]:
    """The ids of those cells that need not be computed."""
    keys = _keys(cells, environments, store, handler)
    there = Memory(environments.cache / FOLDER).which(key for some in keys.values() for key in some)
    return {cell for cell, some in keys.items() if there.intersection(some)}


def executed_of(
    cells: Iterable[Planned], environments: Environments, store: Store, handler: Path | None = None, *,
    files: Collection[str] | None = None,
) -> dict[str, Executed]:  # fmt: skip
    """What cells executed, by their ids. A cell that is not there has no trace.

    Args:
        files: only what is in these files (as `Executed` names them); None for all. This is much faster for thousands
            of cells.
    """
    keys = _keys(cells, environments, store, handler)
    found = Memory(environments.cache / FOLDER).traces([key for some in keys.values() for key in some], files)
    executed = {key: trace.executed for key, trace in found.items() if trace.executed}
    return {cell: executed[key] for cell, some in keys.items() for key in reversed(some) if key in executed}


@dataclass(frozen=True)
class Entries:
    """What one machine remembers of some cells, for the memory of another."""

    entries: tuple[Entry, ...] = ()
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What workers said of their environments, by key."""

    def keep(self, cache: Path) -> None:
        """Add it to the memory of this machine."""
        if self.entries:
            memory = Memory(cache / FOLDER)
            memory.keep(self.entries, self.facts)
            memory.close()


def entries_of(
    cells: Iterable[Planned], environments: Environments, store: Store, handler: Path | None = None
) -> Entries:
    """What this machine remembers of cells."""
    cells = list(cells)
    keys, memory = _keys(cells, environments, store, handler), Memory(environments.cache / FOLDER)
    built = (environments.built(environments.describe(spec)) for spec in {cell.loader_spec for cell in cells})
    named = {environment_key(one) for one in built if one is not None}
    facts = {key: said for key in named if (said := memory.facts(key))} if memory.path.exists() else {}
    return Entries(tuple(memory.entries(key for some in keys.values() for key in some)), facts)


def _keys(
    cells: Iterable[Planned], environments: Environments, store: Store, handler: Path | None
) -> dict[str, list[str]]:
    """The keys that serve each cell, its own first."""
    built: dict[str, BuiltEnvironment | None] = {}
    worker, keys = code_digest(handler), dict[str, list[str]]()
    for cell in cells:
        spec, fixture = cell.loader_spec, (cell.id.creator, cell.id.scenario)
        if spec not in built:
            built[spec] = environments.built(environments.describe(spec))
        with contextlib.suppress(HarnessError):
            if (environment := built[spec]) is not None and store.has(*fixture):
                manifest = store.manifest(*fixture)
                keys[str(cell.id)] = [key_of(one, environment, manifest, worker) for one in _serving(cell)]
    return keys


def _serving(cell: Planned) -> tuple[Planned, ...]:
    """The cells whose observation contains what this one observes: itself, and the same with the further probes."""
    return (cell,) if cell.further else (cell, replace(cell, further=True))


def _without_further(observed: Observed) -> Observed:
    """An observation as a replay without the further probes gives it."""

    def kept(said: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in said.items() if name.partition("/")[0] not in FURTHER}

    return replace(
        observed, probes=kept(observed.probes), facts=kept(observed.facts), arrays=kept(observed.arrays),
    )  # fmt: skip


def environment_key(environment: BuiltEnvironment) -> str:
    """What an environment's results depend on: its lock with the digest of a checkout's files, and its Python."""
    return f"{environment.lock_digest} {environment.python_version}"


@functools.cache
def _machine() -> str:
    """The platform and the processor: some kernels are chosen by what the processor can do."""
    return hashlib.sha256(
        "\n".join((platform.platform(), platform.processor(), *machine.processor())).encode()
    ).hexdigest()


def code_digest(handler: Path | None) -> str:
    """SHA-256 of the code that observes: the worker's, and what replaces its cell module in tests."""
    own = worker_digest()
    return own if handler is None else f"{own} {hashlib.sha256(handler.read_bytes()).hexdigest()}"
