"""Reads and writes `matrices/envs/NAME.toml` and `matrices/consumers/NAME.toml`."""

from __future__ import annotations

import datetime
import fnmatch
import hashlib
import json
from pathlib import Path
from typing import Literal, Self

import pydantic
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, is_normalized_name

from harness.core import toml_files
from harness.core.model import Strict
from harness.core.versions import version_of

NEWEST = "newest"


class Exempt(Strict):
    """Exempts a package from the environment's release day."""

    reason: str = pydantic.Field(min_length=1)
    until: datetime.date | None = None
    """The day that counts for this package. Default: the day of locking, so the lock depends on it."""


class ReadBy(Strict):
    """How a consumer reads what PEFT saves."""

    driver: str = pydantic.Field(pattern=r"^([a-z][a-z0-9_]*|[A-Za-z0-9][\w.-]*\.py)$")
    """A module of `harness/worker/consume/`, or a Python file beside the declaration."""
    package: str = pydantic.Field(min_length=1)
    """The package that it is about: `consumer:NAME==X` is release X of it."""
    extract: list[str] = pydantic.Field(default_factory=list)
    """If given, the package is not installed. These files of its sdist (globs) are put into the environment."""
    lacks: dict[str, str] = pydantic.Field(default_factory=dict)
    """Glob of names → why it cannot read such scenarios. Names are those of the base, its classes, its `model_type`,
    and the class of the adapter's configuration."""

    _canonical = pydantic.field_validator("package")(lambda name: canonicalize_name(name))

    @pydantic.field_validator("extract")
    @classmethod
    def _inside(cls, globs: list[str]) -> list[str]:
        for glob in globs:
            if glob.startswith("/") or ".." in glob.split("/") or "\\" in glob:
                raise ValueError(f"{glob!r} must be a path inside of the package")
        return globs


class Declaration(Strict):
    """The pins of an environment that matter; the lock holds all packages."""

    why: str = pydantic.Field(min_length=1)
    python: str = pydantic.Field(pattern=r"^3\.\d+$")
    pins: dict[str, str] = pydantic.Field(min_length=1)
    """Package → version, or `newest`."""
    released: datetime.date | None = None
    """Only releases up to this day (UTC, inclusive) are used, except for pinned and exempt packages."""
    exceptions: dict[str, Exempt] = pydantic.Field(default_factory=dict)
    extra: dict[str, str] = pydantic.Field(default_factory=dict)
    """Additional requirement → the reason for it."""
    without: dict[str, str] = pydantic.Field(default_factory=dict)
    """Package that others require and that is left out → why it is not needed."""
    on_demand: bool = False
    """Built only if it is named."""
    families: list[str] = pydantic.Field(default_factory=list)
    """Globs of the scenario families that it creates fixtures for; empty for all. As a loader it takes every family."""
    fixtures: Literal["committed", "on-demand"] = "committed"
    """`on-demand`: created in the cache when needed, because every lock changes the environment."""
    consumer: ReadBy | None = None
    """Only in `matrices/consumers/`, and there always."""

    @pydantic.field_validator("pins")
    @classmethod
    def _pins(cls, pins: dict[str, str]) -> dict[str, str]:
        for package, version in pins.items():
            if version != NEWEST:
                _version(package, version)
        return {canonicalize_name(package): version for package, version in pins.items()}

    @pydantic.field_validator("exceptions")
    @classmethod
    def _exceptions(cls, exceptions: dict[str, Exempt]) -> dict[str, Exempt]:
        return {canonicalize_name(package): exempt for package, exempt in exceptions.items()}

    @pydantic.field_validator("without")
    @classmethod
    def _without(cls, without: dict[str, str]) -> dict[str, str]:
        for package, reason in without.items():
            if not is_normalized_name(canonicalize_name(package)) or not reason.strip():
                raise ValueError(f"{package!r} must be the name of a package, with a reason")
        return {canonicalize_name(package): reason for package, reason in without.items()}

    @pydantic.field_validator("extra")
    @classmethod
    def _extra(cls, extra: dict[str, str]) -> dict[str, str]:
        for requirement, reason in extra.items():
            try:
                direct = Requirement(requirement).url
            except InvalidRequirement as error:
                raise ValueError(f"{requirement!r} is not a requirement such as 'safetensors>=0.4': {error}") from error
            if direct or not reason.strip():
                raise ValueError(f"{requirement!r} must be a requirement without an address, with a reason")
        return extra

    @pydantic.model_validator(mode="after")
    def _pins_its_package(self) -> Self:
        if self.consumer and self.pins.get(self.consumer.package, NEWEST) == NEWEST:
            raise ValueError(f"`pins` must have a version of {self.consumer.package}, which the consumer is about")
        return self

    @property
    def extracted(self) -> str:
        """The package of which files are extracted instead of installing it; empty if there is none."""
        return self.consumer.package if self.consumer and self.consumer.extract else ""

    def requirements(self) -> list[str]:
        """The requirements to resolve."""
        pins = [(package, version) for package, version in sorted(self.pins.items()) if package != self.extracted]
        pinned = [package if version == NEWEST else f"{package}=={version}" for package, version in pins]
        return pinned + sorted(self.extra)

    def makes(self, family: str) -> bool:
        """True if it creates fixtures for that family of scenarios."""
        return not self.families or any(fnmatch.fnmatchcase(family, glob) for glob in self.families)

    def exact(self) -> dict[str, str]:
        """The packages that are pinned to a version."""
        return {package: version for package, version in self.pins.items() if version != NEWEST}

    def digest(self) -> str:
        """SHA-256 of everything that decides the resolution. A lock with another digest is stale."""
        until = {package: str(exempt.until) for package, exempt in self.exceptions.items()}
        decides: list[object] = [self.python, str(self.released), self.requirements(), until]
        if self.without:
            decides.append(sorted(self.without))
        if self.extracted:
            decides.append(f"{self.extracted}=={self.pins[self.extracted]}")
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def with_pins(self, pins: dict[str, str], released: datetime.date, why: str) -> Self:
        """This declaration with more packages pinned, and all others as of a day. Its own pins stay."""
        return self.model_copy(
            update={
                "pins": self.pins | pins,
                "released": released,
                "why": why,
                "on_demand": False,
                "families": [],
                "fixtures": "committed",
            }
        )


def _version(package: str, version: str) -> None:
    if version_of(version) is None:
        raise ValueError(f"{package}: {version!r} is neither one version nor {NEWEST!r}")


def load(path: Path) -> Declaration:
    """The declaration in a file.

    Raises:
        UsageError: the file does not exist, or a key or value in it is not allowed.
    """
    return toml_files.validated(Declaration, toml_files.read(path), path)


def render(declaration: Declaration) -> str:
    """The declaration as the text of a TOML file."""
    lines = [f"why = {_quoted(declaration.why)}", f"python = {_quoted(declaration.python)}"]
    if declaration.released:
        lines.append(f"released = {declaration.released}  # nothing younger is resolved, but for what follows")
    lines += ["", "[pins]", *(_pin(declaration, package) for package in declaration.pins)]
    if declaration.exceptions:
        lines += ["", "[exceptions]  # younger than the day above, because what is held needs it"]
        lines += [_exception(package, exempt) for package, exempt in declaration.exceptions.items()]
    if declaration.extra:
        lines += ["", "[extra]", *(f"{_quoted(item)} = {_quoted(why)}" for item, why in declaration.extra.items())]
    if declaration.without:
        lines += ["", "[without]", *(f"{item} = {_quoted(why)}" for item, why in declaration.without.items())]
    return "\n".join(lines) + "\n"


def _pin(declaration: Declaration, package: str) -> str:
    version = declaration.pins[package]
    of_that_day = "  # of that day" if version == NEWEST and declaration.released else ""
    return f"{package} = {_quoted(version)}{of_that_day}"


def _exception(package: str, exempt: Exempt) -> str:
    until = f"until = {exempt.until}, " if exempt.until else ""
    return f"{package} = {{ {until}reason = {_quoted(exempt.reason)} }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
