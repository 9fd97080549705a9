"""A cache of the baseline's cells: a second check against the same baseline computes only what is new.

A replay repeats to the bit. So the cell of a released environment depends on its lock, the fixture, the scenario and
our own code only, and these are its key. Cells of interpreters that others may change, cells on a GPU and cells without
a judgement are never cached, nor those of an environment whose files changed while they were computed.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydantic

from harness.core import data, matrix
from harness.core.errors import HarnessError
from harness.core.files import append_lines, read_text
from harness.core.lock import file_lock
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.envs.environment import Environment
from harness.runner.plan import Planned
from harness.store.device_class import CPU
from harness.store.fixtures import Store
from harness.worker.files import parse_json

FOLDER = "remembered"

_SHOWING = {"cli", "report", "deviation"}
"""Rooms that show results or follow them up. All other code may decide what a cell says."""
_PASSING = {Verdict.CRASH, Verdict.TIMEOUT}
"""A busy machine may have caused these, so they are never cached."""

_LOOK_SHARE = 0.05
"""The share of the time that looking at the environment's files may take. A look at `current` costs half a second, so
a check that is killed loses at most ten seconds of cells."""


@dataclass(frozen=True)
class KnownCell:
    """A cached cell, and when it was computed."""

    cell: Cell
    computed: str


class KnownCells:
    """The cached cells of one environment.

    Args:
        cache: the folder of all caches.
        environment: whose cells; those of a user's own interpreter are never cached.
        store: where the fixtures are.
        forward: as the cells are checked.
        is_sound: False once the environment is no longer what was built. Its cells are then not cached.
    """

    def __init__(
        self, cache: Path, environment: Environment, store: Store, *, forward: bool = False,
        is_sound: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        self._environment = environment
        self._store = store
        self._forward = forward
        self._is_sound = is_sound
        self._asked = time.monotonic()
        self._cost_s = 0.0
        self._waiting: dict[str, list[str]] = {}
        self._folder: Path | None = None
        if environment.interpreter is None:
            name = f"{environment.name}-{environment.lock_digest[:12]}"
            self._folder = cache / FOLDER / code_digest()[:16] / name
        self._known: dict[str, dict[str, KnownCell]] = {}

    def recall(self, cells: Iterable[Planned]) -> dict[str, KnownCell]:
        """The cached ones of these cells, by id."""
        found = {}
        for cell in cells:
            key = self._key(cell)
            if key and (known := self._of(cell.id.creator).get(key)):
                found[str(cell.id)] = known
        return found

    def keep(self, cells: Iterable[Planned], results: Mapping[str, Cell]) -> None:
        """Cache what was computed, after the next look at the environment's files: there is one every few seconds."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        for cell in cells:
            result = results.get(str(cell.id))
            if result is not None and _worth_it(result) and (key := self._key(cell)):
                said = {"key": key, "computed": now, "cell": result.model_dump(mode="json")}
                self._waiting.setdefault(cell.id.creator, []).append(json.dumps(said))
        if (time.monotonic() - self._asked) * _LOOK_SHARE >= self._cost_s:
            self.write()

    def write(self) -> None:
        """Write what waits for a look at the environment's files. A cache that can't be written is no error."""
        waiting, self._waiting = self._waiting, {}
        started = time.monotonic()
        sound = bool(waiting) and self._is_sound()
        self._asked = time.monotonic()
        self._cost_s = self._asked - started
        for creator, lines in waiting.items() if sound else ():
            with contextlib.suppress(OSError):
                self._append(self._file(creator), lines)

    def _append(self, file: Path, lines: Iterable[str]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(file.with_suffix(".lock")):
            append_lines(file, lines, durable=False)

    def _of(self, creator: str) -> dict[str, KnownCell]:
        if creator not in self._known:
            self._known[creator] = dict(self._read(creator))
        return self._known[creator]

    def _read(self, creator: str) -> Iterable[tuple[str, KnownCell]]:
        try:
            lines = read_text(self._file(creator)).splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in lines:
            with contextlib.suppress(
                ValueError, KeyError, TypeError, pydantic.ValidationError
            ):  # incomplete, or of another format
                said = parse_json(line)
                yield said["key"], KnownCell(Cell.model_validate(said["cell"]), said["computed"])

    def _file(self, creator: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{creator.replace('/', '_')}.jsonl"

    def _key(self, cell: Planned) -> str:
        """A cell's key in the cache; empty for one that is never cached."""
        if self._folder is None or cell.id.device != CPU or cell.declared.needs_hub:
            return ""
        try:
            if not self._store.has(cell.id.creator, cell.id.scenario):
                return ""
            manifest = self._store.manifest(cell.id.creator, cell.id.scenario)
        except HarnessError:
            return ""
        resolved = matrix.digest(matrix.resolve(cell.declared, self._environment.versions))
        requires = repr((cell.declared.scenario.requires, cell.declared.scenario.creator_requires))
        said = (
            manifest.model_dump_json(),
            resolved,
            requires,
            str(self._forward),
            str(cell.further),
            platform.platform(),
        )
        return hashlib.sha256("\0".join((str(cell.id), *said)).encode()).hexdigest()


def _worth_it(cell: Cell) -> bool:
    return not cell.verdict.cannot_tell and cell.verdict not in _PASSING


@functools.cache
def code_digest() -> str:
    """SHA-256 of all code that may decide what a cell says."""
    whole = hashlib.sha256()
    for name in deciding():
        whole.update(f"{name}\0".encode() + (data.CODE / name).read_bytes())
    return whole.hexdigest()


def deciding() -> list[str]:
    """The files of our code that may decide what a cell says."""
    names = (path.relative_to(data.CODE) for path in data.CODE.rglob("*.py"))
    return sorted(name.as_posix() for name in names if name.parts[0] not in _SHOWING)


def forget_others(cache: Path, *, dry_run: bool) -> list[Path]:
    """Delete the cells that other states of our code cached; returns the folders."""
    gone = [path for path in sorted((cache / FOLDER).glob("*")) if path.is_dir() and path.name != code_digest()[:16]]
    for path in gone if not dry_run else ():
        shutil.rmtree(path, ignore_errors=True)
    return gone
