"""Compares the matrix with the package index: which releases have no declared environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import Version

from harness.core.text import enumerated
from harness.envs.declaration import Declaration
from harness.envs.environment import OLDEST_PEFT
from harness.envs.index import Known, Release

PACKAGE = "peft"
_SHOWN = 4


@dataclass(frozen=True)
class Series:
    """A package whose every minor release has an environment."""

    name: str
    """Its name in messages."""
    first: Version
    """The oldest release in the matrix. Older ones lack features that scenarios need."""
    fix: str
    """The next step for a release without an environment."""


SERIES = {
    PACKAGE: Series("PEFT", OLDEST_PEFT, "peft-regress env add --missing"),
    "trl": Series("TRL", Version("0.7"), "copy the newest matrices/envs/trl-….toml and lock it"),
}


def missing(known: Known, declared: Mapping[str, Declaration], package: str = PACKAGE) -> tuple[Release, ...]:
    """The newest patch of each minor release that no environment pins exactly, oldest first.

    Yanked releases and pre-releases do not count.
    """
    newest: dict[tuple[int, int], Release] = {}
    for release in known.releases.values():
        version = Version(release.version)
        if release.yanked or version.is_prerelease or version < SERIES[package].first:
            continue
        minor = (version.major, version.minor)
        if minor not in newest or version > Version(newest[minor].version):
            newest[minor] = release
    pinned = {Version(one.exact()[package]) for one in declared.values() if package in one.exact()}
    return tuple(newest[minor] for minor in sorted(newest) if Version(newest[minor].version) not in pinned)


def lacking(known: Mapping[str, Known], declared: Mapping[str, Declaration]) -> list[str]:
    """Sentences about releases without an environment, one for each package."""
    found = {package: missing(known[package], declared, package) for package in SERIES if package in known}
    return [_sentence(SERIES[package], releases) for package, releases in found.items() if releases]


def _sentence(series: Series, found: tuple[Release, ...]) -> str:
    names = enumerated((f"{series.name} {one.version} of {one.day}" for one in reversed(found)), _SHOWN)
    return f"no environment for {names}; next: {series.fix}"
