"""The package versions of the environment that is to load an adapter. Nothing is built, and no index is asked."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from harness.core.errors import HarnessError, UsageError
from harness.core.progress import Log, quiet
from harness.core.text import similar
from harness.core.versions import version_of
from harness.envs import spec as specs
from harness.envs.environment import EnvFailed, Environment, refuse_too_old
from harness.envs.environments import CURRENT, Environments
from harness.envs.installers import Outcome

SHOWN = ("peft", "transformers")
"""The packages that an answer names."""


@dataclass(frozen=True)
class Target:
    """What is to load an adapter.

    Attributes:
        spec: as the user named it.
        versions: package → version.
        notes: what is not known of it, in sentences.
        unsure: why the known breaks tell little of it, in sentences.
    """

    spec: str
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`peft 0.21.2, transformers 5.23.0`."""
        return ", ".join(f"{package} {self.versions[package]}" for package in SHOWN if package in self.versions)


class Known(Environments):
    """The environments whose versions are known on this machine; no index is asked, and uv is not run."""

    def __init__(self, matrices: Path, log: Log = quiet, *, fallback: Path | None = None) -> None:
        super().__init__(matrices, log=log, fallback=fallback, uv=_no_uv)

    def _pinned(self, pins: specs.Pins, spec: str) -> Environment:
        for package, version in pins.pins:
            if version_of(version) not in [version_of(one) for one in self.releases.kept(package).releases]:
                raise EnvFailed(spec, "resolve", f"{package} {version} was never looked up here")
        return super()._pinned(pins, spec)


def _no_uv(_arguments: Sequence[str], _folder: Path) -> Outcome:
    raise EnvFailed("", "resolve", "it was never resolved here")


def installed() -> Target:
    """What the Python that runs this process has."""
    found = [(one.metadata["Name"], one.version) for one in importlib.metadata.distributions()]
    versions: dict[str, str] = {canonicalize_name(name): version for name, version in reversed(found) if name}
    return _with_peft("--installed", versions, "pass --python PATH with the Python that has it")


def of_python(path: str, environments: Environments) -> Target:
    """What another Python has, by the metadata of its packages."""
    return of_spec(f"python:{path}", environments)


def of_spec(spec: str, environments: Environments) -> Target:
    """The versions of an environment: those of its lock; of pins, as far as they are known here.

    Raises:
        UsageError: the spec is wrong.
        HarnessError: its versions are not known on this machine.
    """
    match specs.parse(spec, environments.names()):
        case specs.Over(specs.Pins() as above, base):
            beneath, pins = of_spec(base, environments), dict(above.pins)
            pins, unsure = _as_declared(spec, pins, environments)
            return Target(spec, {**beneath.versions, **pins}, beneath.notes, (*beneath.unsure, *unsure))
        case specs.Git() | specs.Over(specs.Git()):
            raise HarnessError(
                f"{spec!r} is not on this machine as files", "an environment whose versions are known without fetching",
                "pass a checkout's folder, a declared environment or pins; `peft-regress try` fetches",
            )  # fmt: skip
        case specs.Pins() as pins:
            refuse_too_old(spec, dict(pins.pins))
            try:
                return Target(spec, environments.describe(spec).versions)
            except EnvFailed:
                return _of_pins(spec, dict(pins.pins), environments)
    return _with_peft(spec, environments.describe(spec).versions, "name an environment that has it")


def _of_pins(spec: str, pins: Mapping[str, str], environments: Environments) -> Target:
    """Pins that were never resolved: the other versions are those of a declared environment with the same PEFT."""
    pins, unsure = _as_declared(spec, pins, environments)
    base = _with_same_peft(pins["peft"], environments) if "peft" in pins else CURRENT
    if base:
        note = f"{spec} was never resolved here: versions that it does not pin are those of {base}"
        return Target(spec, {**environments.locked_versions(base), **pins}, (note,), unsure)
    note = "known breaks that depend on the version of another package than the pinned ones are left out"
    return Target(spec, dict(pins), (f"{spec} was never resolved here: {note}",), unsure)


def _as_declared(
    spec: str, pins: Mapping[str, str], environments: Environments
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Pins as the declared environments spell them (5.0.0 for 5), and which versions none of these has.

    Nothing was measured with those, or they do not exist.

    Raises:
        UsageError: no declared environment has a package of this name.
    """
    declared: dict[str, set[str]] = defaultdict(set)
    for name in environments.names():
        with contextlib.suppress(HarnessError):  # without a lock, or with a stale one
            for package, version in environments.locked_versions(name).items():
                declared[package].add(version)
    spelled, unsure = dict(pins), []
    for package, version in pins.items():
        if package not in declared:
            close = similar(package, declared)
            raise UsageError(
                f"{spec!r}: no environment here has a package {package}", "packages that an adapter is loaded with",
                f"did you mean {', '.join(close)}?" if close else f"leave it out, or name {' or '.join(SHOWN)}",
            )  # fmt: skip
        same = [one for one in declared[package] if version_of(one) == version_of(version)]
        spelled[package] = version if version in same else min(same, default=version)
        if not same:
            unsure.append(f"nothing was measured with {package} {version}: no environment here has it, if it exists")
    return spelled, tuple(unsure)


def _with_same_peft(version: str, environments: Environments) -> str:
    """The declared environment that has this PEFT and pins the fewest packages; empty if none has it."""
    declared = environments.declarations()
    for name in sorted(declared, key=lambda name: (len(declared[name].pins), name)):
        with contextlib.suppress(HarnessError):  # without a lock, or with a stale one
            if environments.locked_versions(name).get("peft") == version:
                return name
    return ""


def _with_peft(spec: str, versions: Mapping[str, str], next_step: str) -> Target:
    if "peft" not in versions:
        raise UsageError(f"{spec}: peft is not installed there", "an environment with peft", next_step)
    return Target(spec, versions)
