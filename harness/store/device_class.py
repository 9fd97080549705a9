"""Which golden a replay on a device is held against: device classes, the most specific first (pure).

A class is a kind of device and what it must be besides: `cpu`, `cuda`, `cuda-sm90`, `cuda-sm90-h200`. A device is of
every class of its kind whose further parts it all has. Of a fixture's classes that fit, the one that says most counts;
two that say equally much are an error, since nobody could tell which was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.errors import UsageError
from harness.store.manifest import BadFixture, Manifest, NoFixture

CPU = "cpu"
_CLASS = re.compile(r"^[a-z]+(-[a-z0-9.]+)*$")
_NOT_SAYING = frozenset({"nvidia", "amd", "intel", "graphics", "device"})


@dataclass(frozen=True)
class Device:
    """A device as goldens are chosen for it."""

    kind: str
    parts: frozenset[str] = frozenset()
    """All that a class may ask of it: `sm90`, `h200`."""

    @classmethod
    def of(cls, facts: Mapping[str, Any] | None, asked: str = CPU) -> Device:
        """The device in a worker's facts.

        Args:
            facts: what the worker says under `gpu`; nothing of a worker on the CPU.
            asked: what it was asked for, `cuda` or `cuda:1`.
        """
        kind = asked.partition(":")[0]
        said = dict(facts or {}) if kind != CPU else {}
        parts = set(re.findall(r"[a-z0-9.]+", str(said.get("name", "")).lower())) - _NOT_SAYING
        capability = str(said.get("capability", "")).replace(".", "")
        return cls(kind, frozenset(parts | ({f"sm{capability}"} if capability else set())))

    @classmethod
    def named(cls, name: str) -> Device:
        """The device that a class describes: `cuda-sm90`.

        Raises:
            UsageError: it is no class.
        """
        if not _CLASS.match(name):
            raise UsageError(f"{name!r} is no device class", "cpu, cuda, cuda-sm90, …", "mend --device-class")
        kind, *parts = name.split("-")
        return cls(kind, frozenset(parts))

    @property
    def own_class(self) -> str:
        """The class that a golden made on it gets: kind and architecture, on which the choice of kernels hangs."""
        return "-".join([self.kind, *sorted(part for part in self.parts if re.fullmatch(r"sm\d+", part))])

    def is_of(self, name: str) -> bool:
        """True where the device is of a class."""
        kind, *wanted = name.split("-")
        return kind == self.kind and self.parts.issuperset(wanted)


def checked_class(name: str, device: Device) -> str:
    """A class that a user names for a golden made on a device.

    Raises:
        UsageError: it is no class, or the device is none of it.
    """
    has = f"made of {device.kind}{''.join(f', {part}' for part in sorted(device.parts))}"
    if not _CLASS.match(name) or not device.is_of(name):
        raise UsageError(f"{name!r} is no class of this device", f"one {has}", f"for example {device.own_class}")
    return name


def best(classes: Iterable[str], device: Device) -> str:
    """The most specific class that a device is of; empty where it is of none.

    Raises:
        BadFixture: two say equally much.
    """
    fitting = sorted((name for name in classes if device.is_of(name)), key=lambda name: (-name.count("-"), name))
    if len(fitting) > 1 and fitting[0].count("-") == fitting[1].count("-"):
        raise BadFixture(
            f"{fitting[0]} and {fitting[1]} both fit the device, and neither says more than the other",
            "one most specific golden", "add one of a class that says both, or remove one of the two",
        )  # fmt: skip
    return fitting[0] if fitting else ""


def golden_for(manifest: Manifest, device: Device) -> tuple[str, str]:
    """(device class of the golden that a replay on a device is held against, what a reader should know of that).

    Without a golden of its own kind the CPU's is taken: both sides measure what rounding costs them.

    Raises:
        BadFixture: which one is meant can't be told.
        NoFixture: there is none, of the device or of the CPU.
    """
    what = f"{manifest.creator}/{manifest.scenario}"
    try:
        found = best(manifest.goldens, device)
    except BadFixture as error:
        raise BadFixture(f"{what}: {error.found}", error.expected, error.next_step) from None
    if found:
        return found, "" if device.kind == CPU else f"held against the golden of {found}"
    if CPU in manifest.goldens:
        return (
            CPU,
            f"held against the CPU's golden, by what rounding costs on both: there is none of {device.own_class}",
        )
    raise NoFixture(
        f"fixture {what} has no golden for {device.own_class} and none of the CPU",
        f"one of {', '.join(sorted(manifest.goldens))} fits other devices; one that fits this",
        f"make one there: `peft-regress create {manifest.creator} -k {manifest.scenario}"
        + (f" --device {device.kind}`" if device.kind != CPU else "`"),
    )


_EXHAUSTED = re.compile(
    r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|devices? (is|are) busy or unavailable"
    r"|no CUDA-capable device|no kernel image is available",
    re.IGNORECASE,
)
_OF_MEMORY = ("OutOfMemoryError",)


def exhausted(kind: str, message: str) -> bool:
    """True for an error that says nothing of the libraries: the GPU is too small, busy, or went away."""
    return kind.rpartition(".")[2] in _OF_MEMORY or bool(_EXHAUSTED.search(message) and "CPU" not in message[:12])


def in_short(message: str) -> str:
    """The first sentence of what a device says: the rest is advice on settings."""
    return message.strip().splitlines()[0].partition(". ")[0] if message.strip() else ""
