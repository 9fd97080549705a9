"""The golden that a replay is compared with, read from the store; for a replay also laid out in its folder."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.core import observation
from harness.core.errors import HarnessError
from harness.core.matrix import CellId
from harness.core.observation import Observed
from harness.judge import checkpoint_keys, standard
from harness.runner.fixture_source import Fixture
from harness.store import device_class
from harness.store.device_class import Device
from harness.store.manifest import BadFixture, Manifest

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ROOM_S = 3.0
T = TypeVar("T")


@dataclass(frozen=True)
class Golden:
    """What a replay is compared with."""

    observed: Observed
    device_class: str = device_class.CPU
    note: str = ""
    """What the reader should know of this choice of golden."""


def laid_out(identity: CellId, fixture: Fixture, folder: Path, device: Device) -> Golden:
    """The golden for a device, laid out in a folder together with the fixture's other files.

    What is compared later is the golden of the store. The worker can write to the folder.

    Raises:
        BadFixture: a file is damaged, or the checkpoint lacks what the scenario `expects`.
        NoFixture: there is no golden for this device.
        HarnessError: the folder cannot be written.
    """
    name, note = device_class.golden_for(fixture.manifest, device)
    data = _with_room(folder, lambda: fixture.store.materialise(fixture.manifest, folder, name))
    return Golden(_as_declared(identity, fixture.manifest, _parsed(identity, fixture, data)), name, note)


def _with_room(folder: Path, fill: Callable[[], T]) -> T:
    """Fill a folder; on a full disk once more after some seconds, because the cell that filled it is stopped."""
    try:
        return fill()
    except OSError as error:
        failed = error
    if failed.errno in _FULL:
        time.sleep(_ROOM_S)
        with contextlib.suppress(OSError):
            return fill()
    raise HarnessError(
        f"{failed.filename or folder}: {failed.strerror or failed}", "a writable folder with some free megabytes",
        "free some space, or set TMPDIR to another folder",
    ) from failed  # fmt: skip


def in_store(identity: CellId, fixture: Fixture) -> Golden:
    """The CPU's golden without a folder. Reads every file of the fixture, so that damage is noticed all the same.

    Raises:
        BadFixture: a file is damaged, or the checkpoint lacks what the scenario `expects`.
    """
    store, manifest = fixture.store, fixture.manifest
    data = {name: store.content(manifest, name) for name in manifest.laid_out(device_class.CPU)}
    return Golden(_as_declared(identity, manifest, _parsed(identity, fixture, data)))


def _parsed(identity: CellId, fixture: Fixture, data: Mapping[str, bytes]) -> Observed:
    place = fixture.store.folder / identity.creator / identity.scenario
    return observation.parse(place, data["golden/observation.json"], data["golden/arrays.safetensors"])


def _as_declared(identity: CellId, manifest: Manifest, golden: Observed) -> Observed:
    """The golden as the scenario means it."""
    if problems := checkpoint_keys.unmet(golden, manifest.resolved):
        raise BadFixture(
            f"{identity}: the checkpoint does not hold what the scenario `expects`: {'; '.join(problems)}",
            "the keys and shapes under `expects`",
            f"create it anew: `peft-regress create {identity.creator} -k {identity.scenario} --replace --reason …`",
        )
    if wrong := standard.undeclared(golden, manifest.resolved):
        raise BadFixture(f"{identity}: {wrong[0]}", *wrong[1:])
    return standard.declared(golden, manifest.resolved)
