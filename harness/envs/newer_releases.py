"""Compares the locks that follow the newest releases (`current`) with the package index."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from harness.core.errors import HarnessError
from harness.core.text import listed
from harness.envs.declaration import NEWEST, Declaration
from harness.envs.environments import Environments
from harness.envs.index import Known, Release

WATCHED = {
    "peft": "PEFT", "transformers": "Transformers", "accelerate": "Accelerate", "bitsandbytes": "bitsandbytes",
    "safetensors": "safetensors", "tokenizers": "tokenizers", "huggingface-hub": "huggingface_hub",
}  # fmt: skip
"""The packages that decide what an adapter computes, with their names in messages. Torch is held at one version."""


@dataclass(frozen=True)
class Following:
    """An environment that is declared to follow the newest releases."""

    name: str
    python: str
    versions: Mapping[str, str]
    """The watched packages, as locked."""
    admitted: Mapping[str, SpecifierSet]
    """What its packages require of watched packages that its declaration does not name."""

    def newer(self, package: str, known: Known) -> Release | None:
        """The newest release of a package that a new lock could hold; None if the lock holds it."""
        locked = self.versions.get(package)
        latest = known.newest_for(self.python, self.admitted.get(package, SpecifierSet()))
        return latest if locked and latest and Version(latest.version) > Version(locked) else None


def following(environments: Environments) -> list[Following]:
    """The environments whose declaration sets no day and asks for the newest releases."""
    found = []
    for name, declared in environments.declarations().items():
        if declared.released is None and NEWEST in declared.pins.values():
            try:
                found.append(_following(environments, name, declared))
            except HarnessError:
                continue  # not locked, or stale: the check reports that itself
    return found


def _following(environments: Environments, name: str, declared: Declaration) -> Following:
    locked = environments.locked_versions(name)
    follows = {package for package in WATCHED if declared.pins.get(package) == NEWEST}
    carried = {package for package in WATCHED if package in locked and package not in declared.pins}
    site = environments.site_packages(name) if carried else None
    admitted = requirements(site, carried) if site else {}
    watched = follows | (carried if site else set())
    return Following(name, declared.python, {p: v for p, v in locked.items() if p in watched}, admitted)


def requirements(site: Path, packages: Iterable[str]) -> dict[str, SpecifierSet]:
    """What the packages installed in a folder require of some packages."""
    found = dict.fromkeys(packages, SpecifierSet())
    for distribution in importlib.metadata.distributions(path=[str(site)]):
        for text in distribution.requires or ():
            try:
                one = Requirement(text)
            except InvalidRequirement:
                continue
            name = canonicalize_name(one.name)
            if name in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
                found[name] &= one.specifier
    return found


def outrun(known: Mapping[str, Known], environments: Iterable[Following]) -> list[str]:
    """Sentences about locks that are older than the index: one for each set of releases that is newer."""
    names: dict[tuple[str, ...], list[str]] = {}
    for one in environments:
        found = [_newer(package, one, known[package]) for package in WATCHED if package in known]
        if said := tuple(text for text in found if text):
            names.setdefault(said, []).append(one.name)
    return [_behind(locked, said) for said, locked in names.items()]


def _newer(package: str, one: Following, known: Known) -> str:
    release = one.newer(package, known)
    if release is None:
        return ""
    return f"{WATCHED[package]} {one.versions[package]}, the newest is {release.version} of {release.day}"


def _behind(names: list[str], said: tuple[str, ...]) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{listed(names)} {verb} locked at {'; '.join(said)}; next: peft-regress env lock {' '.join(names)}"
