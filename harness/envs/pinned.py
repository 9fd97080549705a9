"""Resolves environments that a spec pins: the day that counts for their other packages, and their lock.

The day is the release day of the package that an environment is about: PEFT's, if PEFT is pinned. A further pin does
not move it, unless it does not work with the packages of that day. Then the day of the youngest pinned release counts.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UsageError
from harness.core.progress import Log
from harness.envs import lock as locks
from harness.envs import rules
from harness.envs import spec as specs
from harness.envs.declaration import Declaration
from harness.envs.environment import EnvFailed
from harness.envs.index import Release, Releases
from harness.envs.installers import RunUv
from harness.envs.lock import Lock
from harness.envs.rules import Rule

_ABOUT = ("peft", "trl", "transformers", "accelerate")
"""The first of these that is pinned decides the day, because it brings the others."""


@dataclass(frozen=True)
class Dated:
    """Pins as the index spells them, with the days that may count for all other packages."""

    pins: specs.Pins
    about: str
    """The pin that decides the day: `peft 0.9.0`."""
    days: tuple[datetime.date, ...]
    """Its release day; then that of the youngest pinned release, if it is later."""
    youngest: str
    """The pin that was released last."""

    def moved(self, day: datetime.date) -> str:
        """A sentence on why a day is not the first; empty if it is."""
        if day == self.days[0]:
            return ""
        return f"{self.youngest} of {day} does not work with the packages of {self.days[0]}, the day of {self.about}"


@dataclass(frozen=True)
class Resolved:
    """A declaration of pins as of a day, with all its packages."""

    declared: Declaration
    packages: Mapping[str, str]
    moved: str = ""
    """Why the day is not that of the package that the environment is about; empty if it is."""


class PinnedLocks:
    """Resolves pins; their locks are kept.

    Args:
        releases: the index, for days and spellings.
        read_rules: returns the rules that hold; raises UsageError.
        cache: the folder for locks.
    """

    def __init__(
        self, releases: Releases, read_rules: Callable[[], Sequence[Rule]], cache: Path, uv: RunUv, log: Log
    ) -> None:
        self._releases = releases
        self._read_rules = read_rules
        self._cache = cache
        self._uv = uv
        self._log = log
        self._said: set[str] = set()

    def dated(self, pins: specs.Pins, template: Declaration) -> Dated:
        """The pins with their days.

        Packages that the template pins have no say in the day, unless nothing else is pinned.

        Raises:
            UsageError: the index has no such release.
            EnvFailed: no index answers.
        """
        held = template.exact()
        asked = {package for package, _ in pins.pins if package not in held} or {package for package, _ in pins.pins}
        found = {package: self._releases.of(package, version) for package, version in pins.pins if package in asked}
        spelled = [(package, found[package].version if package in found else text) for package, text in pins.pins]
        youngest = max(found, key=lambda package: found[package].date)
        about = next((package for package in _ABOUT if package in found), youngest)
        days = tuple(dict.fromkeys((found[about].date, found[youngest].date)))
        return Dated(specs.Pins(tuple(spelled)), _said(about, found), days, _said(youngest, found))

    def lock(self, pins: specs.Pins, template: Declaration, why: str) -> tuple[str, Declaration, Lock]:
        """The name of pins, the declaration that they were resolved from, and their lock, which is kept.

        Raises:
            UsageError: the index has no such release, or the rules cannot be read.
            EnvFailed: nothing goes with the pins, or no index answers.
        """
        dated, applying = self.dated(pins, template), self._read_rules()
        governed = self.governed(template)
        wanted = [governed.with_pins(dict(dated.pins.pins), day, why) for day in dated.days]
        name = dated.pins.name
        paths = [self._path(name, one, applying) for one in wanted]
        for declared, path in zip(wanted, paths, strict=True):
            if path.exists():
                self._say(dated.moved(_day(declared)))
                return name, declared, locks.load(path, name)
        found = self.resolve(dated, lambda day: wanted[dated.days.index(day)], name)
        path = paths[dated.days.index(_day(found.declared))]
        locks.write(path, locks.render(name, found.declared, found.packages, "made on the fly"))
        return name, found.declared, Lock(found.packages, found.declared.digest())

    def governed(self, template: Declaration) -> Declaration:
        """A template without the requirements that rules add where they are needed."""
        return rules.governed(self._read_rules(), template)

    def resolve(self, dated: Dated, declare: Callable[[datetime.date], Declaration], name: str) -> Resolved:
        """The packages of pins as of the first of their days that has some, with what the rules add.

        Args:
            declare: the declaration as of a day.

        Raises:
            UsageError: the rules cannot be read.
            EnvFailed: nothing goes with the pins.
        """
        applying = self._read_rules()
        for day in dated.days[:-1]:
            try:
                return self._as_of(name, declare(day), applying)
            except EnvFailed:
                continue  # the later day is tried
        later = dated.days[-1]
        found = self._as_of(name, declare(later), applying)
        self._say(dated.moved(later))
        return Resolved(found.declared, found.packages, dated.moved(later))

    def _as_of(self, name: str, declared: Declaration, applying: Sequence[Rule]) -> Resolved:
        self._log(f"resolving {name} as of {declared.released}")
        packages = locks.resolve(name, declared, self._uv)
        ruled = rules.applied(applying, declared, packages)
        return Resolved(ruled, packages if ruled is declared else locks.resolve(name, ruled, self._uv))

    def _path(self, name: str, declared: Declaration, applying: Sequence[Rule]) -> Path:
        decides = f"{declared.digest()}\n{rules.digest(applying)}"
        return self._cache / f"{name}-{hashlib.sha256(decides.encode()).hexdigest()[:12]}.txt"

    def _say(self, moved: str) -> None:
        if moved and moved not in self._said:
            self._said.add(moved)
            self._log(f"{moved}; all others are as of the later day")

    def refuse_unfit(self, package: str, version: str, python: str) -> None:
        """Refuse a release that cannot be a creator of the matrix.

        Raises:
            UsageError: it is yanked, or has no wheel for this Python.
        """
        release = self._releases.of(package, version, anew=True)
        if release.yanked:
            raise UsageError(
                f"{package} {version} is yanked", "a release that is not yanked", "use the previous or next one"
            )
        if not release.fits(python):
            raise UsageError(
                f"{package} {version} has no wheel for Python {python} here",
                "a release with a wheel",
                "use the previous or next one",
            )


def _said(package: str, found: Mapping[str, Release]) -> str:
    return f"{package} {found[package].version}"


def _day(declared: Declaration) -> datetime.date:
    assert declared.released is not None
    return declared.released
