"""A new environment: its pins are resolved, but nothing is written yet."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.errors import UsageError
from harness.envs import declaration, spec
from harness.envs import lock as locks
from harness.envs.declaration import Declaration


@dataclass(frozen=True)
class Draft:
    """A declaration with its lock, and the folder for both."""

    name: str
    """`v090` for PEFT 0.9.0; `v0132-transformers4362` with a second pin."""
    pins: Mapping[str, str]
    """The requested pins, as the index spells them."""
    declared: Declaration
    folder: Path
    """The folder of declarations."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Canonical name → version, as resolved."""

    @classmethod
    def of(cls, pins: spec.Pins, template: Declaration, day: datetime.date, folder: Path) -> Draft:
        """A declaration of pins as of a day, otherwise like the template. Not resolved yet."""
        listed = " and ".join(f"{package} {version}" for package, version in pins.pins)
        declared = template.with_pins(dict(pins.pins), day, f"{listed}, with the libraries of its day.")
        return cls(_short_name(pins), dict(pins.pins), declared, folder)

    @property
    def requirement(self) -> str:
        """As `env add` takes it: `peft==0.13.2,transformers==4.36.2`."""
        return ",".join(f"{package}=={version}" for package, version in self.pins.items())

    @property
    def path(self) -> Path:
        """The declaration's file."""
        return self.folder / f"{self.name}.toml"

    @property
    def lock(self) -> Path:
        """The lock's file."""
        return self.folder / "locks" / f"{self.name}.txt"

    def refuse_declared(self) -> None:
        """Raise UsageError if an environment of this name is declared already."""
        if self.path.exists():
            lock = "" if self.lock.exists() else f"peft-regress env lock {self.name}; then "
            raise UsageError(
                f"{self.name} is declared already: {self.path}",
                "a release that is not declared",
                f"use it: {lock}peft-regress create {self.name}",
            )

    def write(self, folder: Path | None = None) -> None:
        """Write the lock, then the declaration; both or neither.

        Args:
            folder: write them here instead.
        """
        made = self if folder is None else Draft(self.name, self.pins, self.declared, folder, self.packages)
        again = f"made by `peft-regress env lock {self.name}`"
        try:
            locks.write(made.lock, locks.render(self.name, self.declared, self.packages, again))
            locks.write(made.path, declaration.render(self.declared))
        except BaseException:
            made.path.unlink(missing_ok=True)
            made.lock.unlink(missing_ok=True)
            raise


def _short_name(pins: spec.Pins) -> str:
    short = [(package, version.replace(".", "").replace("+", "-").replace("!", "-")) for package, version in pins.pins]
    return "-".join(f"v{version}" if package == "peft" else f"{package}{version}" for package, version in short)
