"""Which versions work together: the requirements between the packages of two environments (pure).

In a mix of two environments every package that differs has its old or its new version. Not every mix can be installed:
a release of Transformers needs matching tokenizers. The requirements in the packages' metadata become implications
between (package, side) pairs, so that a mix that cannot work is completed or never tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.core.versions import version_of

Side = Literal["old", "new"]
Mix = frozenset[str]
"""The packages that have their new version; all others have their old one."""

LIKELY = ("peft", "transformers", "trl", "bitsandbytes", "accelerate", "torch", "diffusers", "torchao")
"""The likeliest culprits, the likeliest first; each is tried by itself."""
ACTORS = (*LIKELY, "safetensors", "tokenizers", "huggingface-hub", "numpy")
"""Packages that compute or load something of an adapter; they are listed before all others."""


def rank(package: str) -> tuple[int, str]:
    """Sort key: the likeliest culprits first."""
    return (ACTORS.index(package) if package in ACTORS else len(ACTORS), package)


def other(side: Side) -> Side:
    """The other side."""
    return "new" if side == "old" else "old"


@dataclass(frozen=True)
class Ends:
    """The packages of two environments between which a verdict changes.

    Attributes:
        old: package → version in one environment.
        new: package → version in the other.
        old_needs: package → its requirements in the old environment, from its metadata.
        new_needs: likewise in the new one.
    """

    old: Mapping[str, str]
    new: Mapping[str, str]
    old_needs: Mapping[str, Sequence[str]]
    new_needs: Mapping[str, Sequence[str]]

    @cached_property
    def differing(self) -> tuple[str, ...]:
        """Packages whose version differs or that one side lacks, the likeliest culprit first."""
        every = {*self.old, *self.new}
        return tuple(sorted((p for p in every if self.old.get(p) != self.new.get(p)), key=rank))

    @cached_property
    def likely(self) -> tuple[str, ...]:
        """The differing packages that are tried by themselves."""
        return tuple(package for package in self.differing if package in LIKELY)

    def version(self, package: str, side: Side) -> str | None:
        """A package's version on a side; None if it is absent there."""
        return (self.old if side == "old" else self.new).get(package)

    def versions(self, mix: Mix) -> dict[str, str]:
        """The packages of a mix and their versions."""
        found = {p: self.version(p, "new" if p in mix else "old") for p in {*self.old, *self.new}}
        return {package: version for package, version in sorted(found.items()) if version is not None}

    def with_sides(self, mix: Mix, must: Mapping[str, Side]) -> Mix | None:
        """The mix after setting some packages to a side, and everything that this implies; None if it is impossible.

        Args:
            mix: a consistent mix.
            must: package → side.
        """
        taken = self._closure(must.items())
        if any((package, other(side)) in taken for package, side in taken):
            return None
        forced = dict(taken)
        return frozenset(p for p in self.differing if forced.get(p, "new" if p in mix else "old") == "new")

    def companions(self, package: str) -> frozenset[str]:
        """Packages that must have their new version with the new version of a package."""
        return frozenset(p for p, at in self._closure([(package, "new")]) if at == "new" and p != package)

    def _closure(self, literals: Iterable[tuple[str, Side]]) -> set[tuple[str, Side]]:
        taken: set[tuple[str, Side]] = set()
        waiting = list(literals)
        while waiting:
            literal = waiting.pop()
            if literal not in taken:
                taken.add(literal)
                waiting += self._implied.get(literal, ())
        return taken

    @cached_property
    def _implied(self) -> Mapping[tuple[str, Side], Sequence[tuple[str, Side]]]:
        """What each (package, side) implies, including contrapositives."""
        found: dict[tuple[str, Side], list[tuple[str, Side]]] = {}
        differing = set(self.differing)
        sides: tuple[Side, Side] = ("old", "new")
        for package in self.differing:
            for side in sides:
                needs = (self.old_needs if side == "old" else self.new_needs).get(package, ())
                if self.version(package, side) is None:
                    continue
                for name, specifier in _requirements(needs):
                    fitting = [at for at in sides if _fits(self.version(name, at), specifier)]
                    if name in differing and fitting != [] and fitting != list(sides):
                        found.setdefault((package, side), []).append((name, fitting[0]))
                        found.setdefault((name, other(fitting[0])), []).append((package, other(side)))
        return found


def _requirements(texts: Iterable[str]) -> Iterable[tuple[str, Requirement]]:
    """Requirements that apply here without extras. Unreadable ones are ignored."""
    for text in texts:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield canonicalize_name(one.name), one


def _fits(version: str | None, requirement: Requirement) -> bool:
    if version is None:
        return False
    known = version_of(version)
    return known is None or requirement.specifier.contains(known, prereleases=True)
