"""Versions: how they are read and ordered, and conditions on them (`peft>=0.6,<0.7, transformers>=4.40`)."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

FIRST_PACKAGES = ("peft", "transformers", "torch", "accelerate", "bitsandbytes", "trl", "safetensors", "numpy")
"""The packages that are listed first wherever an environment's packages are shown."""

_PIECE = re.compile(r"^\s*(?P<name>[A-Za-z][A-Za-z0-9._-]*?)?\s*(?P<spec>(?:[<>=!~]=?|===).+)?\s*$")


@dataclass(frozen=True)
class Condition:
    """A conjunction of version specifiers, by package."""

    text: str
    parts: tuple[tuple[str, SpecifierSet], ...]

    @functools.cached_property
    def by_package(self) -> tuple[tuple[str, Condition], ...]:
        """What it asks of each package, as a condition of its own."""
        return tuple((name, Condition(f"{name}{part}", ((name, part),))) for name, part in self.parts)

    def unmet(self, versions: Mapping[str, str]) -> str:
        """What of the condition does not hold, as a sentence; empty where all of it holds.

        A development version counts as the release that it leads to (`0.22.0.dev0` meets `>=0.22`): whoever checks a
        checkout means the code that is in it.
        """
        for name, specifiers in self.parts:
            version = versions.get(name)
            if version is None:
                return f"needs {name}{specifiers}, and {name} is not in the environment"
            if not specifiers.contains(_release(version), prereleases=True):
                return f"needs {name}{specifiers}, has {name} {version}"
        return ""

    def holds(self, versions: Mapping[str, str]) -> bool:
        """True where every package is there in a version that its specifiers admit."""
        return not self.unmet(versions)


def version_of(text: str) -> Version | None:
    """The version that a text states; None where it states none."""
    try:
        return Version(text)
    except ValueError:  # InvalidVersion is one; a number of thousands of digits is another
        return None


def release_order(release: str, name: str = "") -> tuple[int, Version, str]:
    """Sort key: by release, then by name. A release that is not known comes last."""
    version = version_of(release)
    return (0, version, name) if version else (1, Version("0"), name)


def package_order(name: str) -> tuple[int, str]:
    """Sort key: the packages that matter most come first, the others by name."""
    return (FIRST_PACKAGES.index(name) if name in FIRST_PACKAGES else len(FIRST_PACKAGES), name)


def _release(version: str) -> Version:
    return Version((version_of(version) or Version("0")).base_version)


def parse(text: str) -> Condition:
    """Read `peft>=0.6,<0.7, transformers>=4.40`; a piece without a name continues the package before it.

    Raises:
        ValueError: not of that form.
    """
    specifiers: dict[str, list[str]] = {}
    current = ""
    for piece in text.split(","):
        match = _PIECE.match(piece)
        if not match or not (match["name"] or match["spec"]):
            raise ValueError(f"{text!r} is no condition; write for example 'peft>=0.6,<0.7' or 'transformers>=5'")
        current = canonicalize_name(match["name"]) if match["name"] else current
        if not current:
            raise ValueError(f"{text!r} names no package; write for example 'peft>=0.6,<0.7'")
        specifiers.setdefault(current, []).extend([match["spec"].strip()] if match["spec"] else [])
    try:
        parts = tuple((name, SpecifierSet(",".join(pieces))) for name, pieces in specifiers.items())
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is no condition: {error}") from error
    return Condition(text, parts)
