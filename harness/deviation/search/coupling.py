"""Which versions go together: what the packages of two environments require of each other (pure).

Of two environments every package that differs can be taken at its old version or at its new one. Not every such mix
can be installed: a release of Transformers needs the tokenizers of its time. What the packages' own metadata says of
that is read as implications between (package, side) pairs, so that a mix which can't work is mended, or never tried.
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
"""The packages that are at their new version; all others are at their old one."""

LIKELY = ("peft", "transformers", "trl", "bitsandbytes", "accelerate", "torch", "diffusers", "torchao")
"""What may turn an adapter's verdict, the likeliest first: each is tried by itself."""
ACTORS = (*LIKELY, "safetensors", "tokenizers", "huggingface-hub", "numpy")
"""What computes or loads something of an adapter; any other package is named after them."""


def rank(package: str) -> tuple[int, str]:
    """Where a package stands among those that may be to blame."""
    return (ACTORS.index(package) if package in ACTORS else len(ACTORS), package)


def other(side: Side) -> Side:
    """The other side."""
    return "new" if side == "old" else "old"


@dataclass(frozen=True)
class Ends:
    """Two environments between which a verdict turns.

    Attributes:
        old: package → version of the one.
        new: of the other.
        old_needs: package → its requirements there, as its metadata states them.
        new_needs: of the other.
    """

    old: Mapping[str, str]
    new: Mapping[str, str]
    old_needs: Mapping[str, Sequence[str]]
    new_needs: Mapping[str, Sequence[str]]

    @cached_property
    def differing(self) -> tuple[str, ...]:
        """The packages whose version differs (or that one of the two lacks), the likeliest culprit first."""
        every = {*self.old, *self.new}
        return tuple(sorted((p for p in every if self.old.get(p) != self.new.get(p)), key=rank))

    @cached_property
    def likely(self) -> tuple[str, ...]:
        """Those of them that are tried by themselves."""
        return tuple(package for package in self.differing if package in LIKELY)

    def version(self, package: str, side: Side) -> str | None:
        """A package's version on a side; None where that side lacks it."""
        return (self.old if side == "old" else self.new).get(package)

    def versions(self, mix: Mix) -> dict[str, str]:
        """All packages of a mix with their versions."""
        found = {p: self.version(p, "new" if p in mix else "old") for p in {*self.old, *self.new}}
        return {package: version for package, version in sorted(found.items()) if version is not None}

    def moved(self, mix: Mix, must: Mapping[str, Side]) -> Mix | None:
        """The mix with some packages put on a side, and all that has to go along; None where that can't be.

        Args:
            mix: one that goes together.
        """
        taken = self._closure(must.items())
        if any((package, other(side)) in taken for package, side in taken):
            return None
        forced = dict(taken)
        return frozenset(p for p in self.differing if forced.get(p, "new" if p in mix else "old") == "new")

    def companions(self, package: str, side: Side) -> frozenset[str]:
        """What has to be on that side too where a package is."""
        return frozenset(p for p, at in self._closure([(package, side)]) if at == side and p != package)

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
        """What each (package, side) forces; with each implication its contrapositive."""
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
    """What a package needs here, whatever extras are asked for; what can't be read says nothing."""
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
