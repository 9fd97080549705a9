"""Reads `matrices/environment-rules.toml`: what releases need beside the packages of their day."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import pydantic
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.core import toml_files, versions
from harness.core.model import Strict
from harness.envs.declaration import Declaration

FILE = "environment-rules.toml"


class Rule(Strict):
    """A requirement of the environments whose packages meet a condition."""

    if_: str = pydantic.Field(alias="if", min_length=1)
    """A condition on the resolved packages: `accelerate>=0.16,<0.21`."""
    add: str = pydantic.Field(min_length=1)
    """The requirement: `setuptools<81`."""
    reason: str = pydantic.Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _readable(self) -> Self:
        versions.parse(self.if_)
        try:
            Requirement(self.add)
        except InvalidRequirement as error:
            raise ValueError(f"{self.add!r} is not a requirement such as 'setuptools<81': {error}") from error
        return self

    @property
    def package(self) -> str:
        """The package that it is about."""
        return canonicalize_name(Requirement(self.add).name)

    def unmet(self, packages: Mapping[str, str]) -> bool:
        """True if packages meet the condition and not the requirement."""
        found = packages.get(self.package)
        met = found is not None and Requirement(self.add).specifier.contains(found, prereleases=True)
        return not met and versions.parse(self.if_).holds(packages)


class _File(Strict):
    rule: list[Rule] = pydantic.Field(default_factory=list)


def load(matrices: Path) -> tuple[Rule, ...]:
    """The rules of a matrices folder; none if it has no such file.

    Raises:
        UsageError: a key or value is not allowed.
    """
    file = matrices / FILE
    return tuple(toml_files.validated(_File, toml_files.read(file), file).rule) if file.is_file() else ()


def governed(rules: Iterable[Rule], template: Declaration) -> Declaration:
    """A template without the requirements that a rule adds where they are needed."""
    added = {one.add for one in rules}
    return template.model_copy(update={"extra": {k: why for k, why in template.extra.items() if k not in added}})


def applied(rules: Iterable[Rule], declared: Declaration, packages: Mapping[str, str]) -> Declaration:
    """A declaration with what these packages, resolved from it, still need. What it pins itself stays."""
    added = {one.add: one.reason for one in rules if one.package not in declared.exact() and one.unmet(packages)}
    return declared.model_copy(update={"extra": declared.extra | added}) if added else declared


def digest(rules: Iterable[Rule]) -> str:
    """SHA-256 of what rules decide."""
    return hashlib.sha256("\n".join(f"{one.if_} -> {one.add}" for one in rules).encode()).hexdigest()
