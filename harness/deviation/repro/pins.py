"""The two requirement files: all packages of an environment, pinned, without an index's address (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.core.versions import package_order, version_of

_TOOLS = frozenset({"pip", "setuptools", "wheel", "uv"})


@dataclass(frozen=True)
class Pinned:
    """An environment, described so that a reader can build it.

    Attributes:
        python: its Python version, `3.11.7` or `3.11`.
        source: package → a requirement instead of a pin: `peft @ git+https://…@commit`, `-e /path/to/peft`.
        notes: comments in the file.
    """

    versions: Mapping[str, str]
    python: str
    source: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def short_python(self) -> str:
        """`3.11`."""
        return ".".join(self.python.split(".")[:2]) or "3.11"

    def text(self) -> str:
        """The file's content."""
        notes = [f"# {note}" for note in self.notes]
        pins = [
            self.source.get(package) or _pin(package, version)
            for package, version in sorted(self.versions.items())
            if package not in _TOOLS or package in self.source
        ]
        others = [line for package, line in sorted(self.source.items()) if package not in self.versions]
        return "\n".join([*notes, *pins, *others]) + "\n"


def _pin(package: str, version: str) -> str:
    if _is_development(version):
        return f"# {package} {version} is not a release: install the source that it was built from"
    return f"{package}=={_public(version)}"


def _is_development(version: str) -> bool:
    known = version_of(version)
    return known is not None and known.is_devrelease


def _public(version: str) -> str:
    """Without the local part (`+cpu`): every index has `2.13.0`, and it matches all builds."""
    known = version_of(version)
    return known.public if known else version


def differing(before: Pinned, after: Pinned) -> list[tuple[str, str, str]]:
    """(package, version before, version after) of all packages that differ, the most important first."""
    names = sorted({*before.versions, *after.versions} - _TOOLS, key=package_order)
    rows = [(name, before.versions.get(name, "–"), after.versions.get(name, "–")) for name in names]
    return [row for row in rows if row[1] != row[2]]
