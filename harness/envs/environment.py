"""The vocabulary of environments: what is described, what is built, what failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.errors import ExitCode, HarnessError

Log = Callable[[str], None]
"""Takes one line about what is being done; the command line shows it on stderr."""

_TAIL_LINES = 15
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded|os error 28\b", re.IGNORECASE)


class EnvFailed(HarnessError):
    """An environment does not lock, resolve, build or import: a verdict of its own, never a regression.

    Args:
        name: of the environment, or what the user wrote where it has no name yet.
        stage: "lock" (no lock, or one that its declaration left behind), "resolve", "build" or "import".
        tail: the last lines that the tool said, without passwords.
    """

    exit_code = ExitCode.CANNOT_TELL

    def __init__(
        self, name: str, stage: str, found: str, expected: str = "", next_step: str = "", *, tail: str = ""
    ) -> None:
        self.name = name
        self.stage = stage
        self.tail = last_lines(tail)
        if _DISK_FULL.search(found) or _DISK_FULL.search(self.tail):
            next_step = "free some space, or put the cache on another disk with PEFT_REGRESS_CACHE; then run it again"
        super().__init__(f"environment {name}: {found}", expected, next_step)

    def __str__(self) -> str:
        said = "".join(f"\n  | {line}" for line in self.tail.splitlines())
        return super().__str__() + said


def last_lines(text: str) -> str:
    """The last lines of an installer's output, without its warnings and without the passwords in addresses."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("warning:")]
    return _CREDENTIALS.sub("***@", "\n".join(lines[-_TAIL_LINES:]))


@dataclass(frozen=True)
class Overlay:
    """A source tree whose package goes over a lock's packages."""

    tree: Path
    package: str
    """Canonical name of the package that it builds."""
    version: str | None
    """As its files say it without running them; None where they don't."""
    digest: str
    """SHA-256 of the tree's content."""
    source: str
    """The checkout's path, or the git URL with the commit."""


@dataclass(frozen=True)
class Environment:
    """An environment that is described, and perhaps not built."""

    name: str
    """Short, safe in file names, the same for the same content: `v061`, `peft-0.9.0`, `checkout-peft-1a2b3c4d`."""
    spec: str
    """What the user wrote."""
    kind: str
    """`named`, `pins`, `checkout`, `git` or `interpreter`."""
    lock_digest: str
    """SHA-256 of the lock's package lines and of the tree over them; empty for an interpreter."""
    why: str
    python: str = ""
    """The Python version asked for, `3.11`; for an interpreter the one that it has."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Canonical package name to version: as locked; for an interpreter as found in it."""
    on_demand: bool = False
    """Built only when it is asked for by name."""
    overlay: Overlay | None = None
    interpreter: Path | None = None
    tried_first: bool = True
    """False where the build need not import its libraries to see that they import: the worker will."""

    def requirement_lines(self) -> list[str]:
        """What is installed from the lock, one requirement a line."""
        return [f"{package}=={version}" for package, version in sorted(self.locked().items())]

    def locked(self) -> dict[str, str]:
        """The lock's packages, without the one that the tree replaces."""
        replaced = self.overlay.package if self.overlay else None
        return {package: version for package, version in self.versions.items() if package != replaced}


@dataclass(frozen=True)
class BuiltEnvironment:
    """An environment with an interpreter that can be run."""

    name: str
    spec: str
    kind: str
    python: Path
    lock_digest: str
    versions: Mapping[str, str]
    """Canonical package name to the version found in it."""
    python_version: str
    untouched: bool
    """True for `python:…`: nothing was installed there by us."""


@dataclass(frozen=True)
class EnvStatus:
    """What `env list` says of a declared environment."""

    name: str
    why: str = ""
    python: str = ""
    pins: Mapping[str, str] = field(default_factory=dict)
    on_demand: bool = False
    locked: bool = False
    stale: bool = False
    """The declaration changed after the lock was made."""
    built: Path | None = None
    """Its directory in the cache, where it is built."""
    problem: str = ""
    """Why nothing more can be said of it; empty where all is well."""
