"""The types of this room: described and built environments, and their failure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.versions import version_of

_TAIL_LINES = 15
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded|os error 28\b", re.IGNORECASE)


class EnvFailed(HarnessError):
    """An environment does not lock, resolve, build or import. It has a verdict of its own and is never a regression.

    Args:
        name: the environment's name, or the spec if it has no name yet.
        stage: "lock" (no lock, or a stale one), "resolve", "build", "import" or "changed" (after it was built).
        tail: the tool's last lines, without passwords.
    """

    exit_code = ExitCode.CANNOT_TELL

    def __init__(
        self, name: str, stage: str, found: str, expected: str = "", next_step: str = "", *, tail: str = ""
    ) -> None:
        self.name = name
        self.stage = stage
        self.tail = last_lines(tail)
        if _DISK_FULL.search(found) or _DISK_FULL.search(self.tail):
            next_step = "free some space, or set PEFT_REGRESS_CACHE to a folder on another disk; then run it again"
        super().__init__(f"environment {name}: {found}", expected, next_step)

    def __str__(self) -> str:
        said = "".join(f"\n  | {line}" for line in self.tail.splitlines())
        return super().__str__() + said


OLDEST_PEFT = Version("0.3")
"""Older releases have no names for adapters, which everything here relies on: the worker, and every scenario."""


def refuse_too_old(spec: str, versions: Mapping[str, str]) -> None:
    """Refuse an environment whose PEFT is older than what the worker can run.

    Args:
        versions: canonical package name → version.

    Raises:
        UsageError: it is.
    """
    found = version_of(versions.get("peft", ""))
    if found is not None and Version(found.base_version) < OLDEST_PEFT:
        raise UsageError(
            f"{spec!r}: PEFT {found} is too old", f"PEFT {OLDEST_PEFT} or later: older releases do not name adapters",
            f"use peft=={OLDEST_PEFT}.0 or later",
        )  # fmt: skip


def last_lines(text: str) -> str:
    """The last lines of an installer's output, without its warnings and without the passwords in addresses."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("warning:")]
    return _CREDENTIALS.sub("***@", "\n".join(lines[-_TAIL_LINES:]))


@dataclass(frozen=True)
class Overlay:
    """A source tree whose package replaces that of a lock."""

    tree: Path
    package: str
    """Canonical name of the package that it builds."""
    version: str | None
    """As its files say without running them; None if they do not."""
    digest: str
    """SHA-256 of the tree's content."""
    source: str
    """The checkout's path, or the git URL with the commit."""
    base: Environment | None = None
    """The environment whose other packages are used; None if all others are installed from the lock."""
    files: tuple[str, ...] = ()
    """Names of the tree's files, if it was sent from another machine; else they are listed."""


@dataclass(frozen=True)
class Consumer:
    """A library other than PEFT that reads what PEFT saves, in an environment of its own."""

    name: str
    """As declared: `llama.cpp`."""
    driver: str
    """A module of `harness/worker/consume/`, or the path of a Python file."""
    package: str
    """The package that it is about; its releases are the consumer's."""
    extract: tuple[str, ...] = ()
    """If given, the package is not installed. These files of its sdist (globs) are in the environment."""
    sdist: str = ""
    """SHA-256 of that sdist."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """Glob of a scenario's names → why it cannot read such scenarios."""


@dataclass(frozen=True)
class Environment:
    """A description of an environment, which may not be built."""

    name: str
    """Short, safe in file names, equal for equal content: `v061`, `peft-0.9.0`, `checkout-peft-1a2b3c4d`."""
    spec: str
    """What the user wrote."""
    kind: str
    """`named`, `pins`, `checkout`, `git`, `lock`, `consumer` or `interpreter`."""
    lock_digest: str
    """SHA-256 of the lock's package lines and of the overlay's tree; empty for an interpreter."""
    why: str
    python: str = ""
    """The declared Python version, `3.11`; an interpreter's own."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Canonical package name → version: as locked; as installed for an interpreter."""
    on_demand: bool = False
    """Built only if it is named."""
    overlay: Overlay | None = None
    interpreter: Path | None = None
    tried_first: bool = True
    """Import the libraries after building; False if a worker does so anyway."""
    consumer: Consumer | None = None
    """Set if it has no PEFT, and reads adapters by a driver."""

    def requirement_lines(self) -> list[str]:
        """The packages to install from the lock, as `name==version`."""
        return [f"{package}=={version}" for package, version in sorted(self.locked().items())]

    def locked(self) -> dict[str, str]:
        """The lock's packages, without the one that the overlay replaces, or of which files are extracted."""
        left_out = {self.overlay.package} if self.overlay else set[str]()
        if self.consumer and self.consumer.extract:
            left_out.add(self.consumer.package)
        return {package: version for package, version in self.versions.items() if package not in left_out}


@dataclass(frozen=True)
class BuiltEnvironment:
    """An environment with an interpreter to run."""

    name: str
    spec: str
    kind: str
    python: Path
    lock_digest: str
    versions: Mapping[str, str]
    """Canonical package name → installed version."""
    python_version: str
    untouched: bool
    """True for `python:…`: we installed nothing there."""
    consumer: Consumer | None = None
    """As its description has it."""


@dataclass(frozen=True)
class EnvStatus:
    """The state of a declared environment, as `env list` prints it."""

    name: str
    why: str = ""
    python: str = ""
    pins: Mapping[str, str] = field(default_factory=dict)
    on_demand: bool = False
    locked: bool = False
    stale: bool = False
    """The declaration changed after the lock was made."""
    built: Path | None = None
    """Its directory in the cache, if it is built."""
    problem: str = ""
    """Why its state is unknown; empty if it is known."""
