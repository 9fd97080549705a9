"""Device classes: which golden a replay on a device is compared with (pure).

A class is a kind of device and further properties: `cpu`, `cuda`, `cuda-sm90`, `cuda-sm90-h200`. A device belongs to
each class of its kind whose properties it has. The most specific class of a fixture that fits is used. Two equally
specific ones are an error, because the right one is unknown.
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
    """The properties of a device that decide which golden is used."""

    kind: str
    parts: frozenset[str] = frozenset()
    """The properties that a class may require: `sm90`, `h200`."""

    @classmethod
    def of(cls, facts: Mapping[str, Any] | None, asked: str = CPU) -> Device:
        """The device in a worker's facts.

        Args:
            facts: the worker's `gpu`; None for a worker on the CPU.
            asked: the device that was requested, `cuda` or `cuda:1`.
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
            UsageError: it is not a class.
        """
        if not _CLASS.match(name):
            raise UsageError(f"{name!r} is not a device class", "cpu, cuda, cuda-sm90, …", "correct --device-class")
        kind, *parts = name.split("-")
        return cls(kind, frozenset(parts))

    @property
    def own_class(self) -> str:
        """The class of a golden made on it: kind and architecture, which decide on the kernels."""
        return "-".join([self.kind, *sorted(part for part in self.parts if re.fullmatch(r"sm\d+", part))])

    def is_of(self, name: str) -> bool:
        """True if the device belongs to a class."""
        kind, *wanted = name.split("-")
        return kind == self.kind and self.parts.issuperset(wanted)


def checked_class(name: str, device: Device) -> str:
    """The class that a user chose for a golden made on a device.

    Raises:
        UsageError: it is not a class, or the device does not belong to it.
    """
    has = f"made of {device.kind}{''.join(f', {part}' for part in sorted(device.parts))}"
    if not _CLASS.match(name) or not device.is_of(name):
        raise UsageError(
            f"the device does not belong to class {name!r}", f"one {has}", f"for example {device.own_class}"
        )
    return name


def best(classes: Iterable[str], device: Device) -> str:
    """The most specific class that a device belongs to; empty if there is none.

    Raises:
        BadFixture: two are equally specific.
    """
    fitting = sorted((name for name in classes if device.is_of(name)), key=lambda name: (-name.count("-"), name))
    if len(fitting) > 1 and fitting[0].count("-") == fitting[1].count("-"):
        raise BadFixture(
            f"{fitting[0]} and {fitting[1]} both fit the device, and are equally specific",
            "one most specific golden", "add one of a class with both properties, or remove one of the two",
        )  # fmt: skip
    return fitting[0] if fitting else ""


def golden_for(manifest: Manifest, device: Device) -> tuple[str, str]:
    """(device class of the golden that a replay on a device is compared with, a note for the report).

    Without a golden of the device's kind, the CPU's golden is used. The allowance then covers rounding on both sides.

    Raises:
        BadFixture: two goldens are equally specific.
        NoFixture: there is none for the device or the CPU.
    """
    what = f"{manifest.creator}/{manifest.scenario}"
    try:
        found = best(manifest.goldens, device)
    except BadFixture as error:
        raise BadFixture(f"{what}: {error.found}", error.expected, error.next_step) from None
    if found:
        return found, "" if device.kind == CPU else f"compared with the golden of {found}"
    if CPU in manifest.goldens:
        return (
            CPU,
            f"compared with the CPU's golden, allowing for rounding on both: there is none for {device.own_class}",
        )
    raise NoFixture(
        f"fixture {what} has no golden for {device.own_class} and none for the CPU",
        f"one for this device; there are {', '.join(sorted(manifest.goldens))}",
        f"create one there: `peft-regress create {manifest.creator} -k {manifest.scenario}"
        + (f" --device {device.kind}`" if device.kind != CPU else "`"),
    )


_EXHAUSTED = re.compile(
    r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|devices? (is|are) busy or unavailable"
    r"|no CUDA-capable device|no kernel image is available",
    re.IGNORECASE,
)
_OF_MEMORY = ("OutOfMemoryError",)


def exhausted(kind: str, message: str) -> bool:
    """True for an error that is not the libraries': the GPU is too small, busy or gone."""
    return kind.rpartition(".")[2] in _OF_MEMORY or bool(_EXHAUSTED.search(message) and "CPU" not in message[:12])


def in_short(message: str) -> str:
    """The first sentence of a device's error. The rest is advice on settings."""
    return message.strip().splitlines()[0].partition(". ")[0] if message.strip() else ""
