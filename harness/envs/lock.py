"""Locks: their text format, and resolving them from a declaration with uv."""

from __future__ import annotations

import datetime
import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from harness.core.errors import HarnessError
from harness.core.files import read_text, write_atomically
from harness.core.scratch import scratch_folder
from harness.envs.declaration import Declaration
from harness.envs.environment import EnvFailed
from harness.envs.installers import RunUv

_DECLARATION = re.compile(r"^# declaration: sha256:(?P<digest>[0-9a-f]{64})$", re.MULTILINE)
_PACKAGE = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+_-]+)\s*(?:[;#].*)?$")
_SDIST = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==\S+\s+# sdist sha256:(?P<digest>[0-9a-f]{64})\b", re.MULTILINE)
_NEVER = "python_version < '3'"
_FAR = "9999-01-01T00:00:00Z"


@dataclass(frozen=True)
class Lock:
    """Every package of an environment with its version."""

    packages: Mapping[str, str]
    declaration: str
    """Digest of the declaration that it was resolved from."""
    sdists: Mapping[str, str] = field(default_factory=dict)
    """Package → SHA-256 of its sdist, for a package that is not installed: files are extracted from it."""

    def digest(self) -> str:
        """SHA-256 of the package lines, without comments, and of the sdists' digests."""
        return digest_of(self.packages, *(f"{name} sdist {digest}" for name, digest in sorted(self.sdists.items())))


def digest_of(packages: Mapping[str, str], *more: str) -> str:
    """SHA-256 of package lines, followed by further lines."""
    lines = [f"{package}=={version}" for package, version in sorted(packages.items())]
    return hashlib.sha256("\n".join([*lines, *more]).encode()).hexdigest()


def render(
    name: str, declaration: Declaration, packages: Mapping[str, str], declared_in: str,
    sdists: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """The text of a lock. It never holds an address or a path of the machine that made it.

    Args:
        declared_in: how to make it again, for the first line.
        sdists: package → SHA-256 of its sdist, for those that are not installed.
    """
    said = {package: f"  # sdist sha256:{digest}, not installed" for package, digest in (sdists or {}).items()}
    day = f"as of {declaration.released}" if declaration.released else "the newest that go together"
    held = ", ".join(sorted(set(declaration.exceptions) | set(declaration.exact())))
    return "\n".join(
        [
            f"# Environment {name}: {declared_in}. Not to be edited.",
            f"# Python {declaration.python}; {day}" + (f"; but for {held}." if declaration.released else "."),
            f"# declaration: sha256:{declaration.digest()}",
            *(f"{package}=={version}{said.get(package, '')}" for package, version in sorted(packages.items())),
            "",
        ]
    )


def parse(text: str, name: str, path: Path) -> Lock:
    """Read a lock.

    Raises:
        EnvFailed: it has no declaration digest, or a line other than `package==version`.
    """
    found = _DECLARATION.search(text)
    packages = packages_in(text)
    if found is None or packages is None or not packages:
        raise EnvFailed(
            name,
            "lock",
            f"{path} is not a lock",
            "a digest of the declaration, then package==version lines",
            _again(name),
        )
    sdists = {str(canonicalize_name(one["name"])): str(one["digest"]) for one in _SDIST.finditer(text)}
    return Lock(packages, found["digest"], sdists)


def packages_in(text: str) -> dict[str, str] | None:
    """The packages in lines `package==version`, without local versions; None if a line has another form.

    A local version (`2.13.0+cpu`) would tie the lock to one machine's index; `==2.13.0` also matches it.
    """
    packages: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _PACKAGE.match(line)
        if match is None:
            return None
        packages[canonicalize_name(match["name"])] = match["version"].partition("+")[0]
    return packages


def read(path: Path, name: str, declaration: Declaration) -> Lock:
    """The lock in a file.

    Raises:
        EnvFailed: there is none, it is not a lock, or its declaration changed since.
    """
    lock = load(path, name)
    if lock.declaration != declaration.digest():
        raise EnvFailed(
            name, "lock", f"stale lock: {path.name} was made from another declaration", "a lock of the present one",
            _again(name),
        )  # fmt: skip
    return lock


def load(path: Path, name: str) -> Lock:
    """The lock in a file, whatever it was made from.

    Raises:
        EnvFailed: there is none, or it is not a lock.
    """
    try:
        return parse(read_text(path), name, path)
    except FileNotFoundError:
        raise EnvFailed(name, "lock", f"not locked: {path} does not exist", "a lock", _again(name)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EnvFailed(name, "lock", f"{path} cannot be read: {error}", "a lock", _again(name)) from error


def _again(name: str) -> str:
    return f"peft-regress env lock {name}"


def resolve(
    name: str, declaration: Declaration, uv: RunUv, preferred: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Resolve all packages of an environment for this platform.

    Args:
        preferred: versions to keep if they still fit; default: resolve everything again.

    Raises:
        EnvFailed: no set of packages satisfies the declaration, or the index cannot be reached.
    """
    with scratch_folder("lock") as folder:
        wanted, answer = folder / "requirements.in", folder / "requirements.txt"
        wanted.write_text("\n".join(declaration.requirements()) + "\n", encoding="utf-8")
        if preferred:  # uv keeps the versions in its output file
            answer.write_text("".join(f"{item}=={version}\n" for item, version in preferred.items()), encoding="utf-8")
        command = arguments(declaration, wanted.name, answer.name)
        if declaration.without:
            # a requirement of no platform replaces those of the other packages
            (folder / "without.txt").write_text("".join(f"{one}; {_NEVER}\n" for one in declaration.without), "utf-8")
            command += ["--override", "without.txt"]
        outcome = uv(command, folder)
        packages = packages_in(answer.read_text(encoding="utf-8")) if outcome.code == 0 and answer.exists() else None
    if not packages:
        raise EnvFailed(
            name, "resolve", f"{', '.join(declaration.requirements())} does not resolve", _expected(declaration),
            "read uv's last lines below; then fix the declaration or pip's index",
            tail=outcome.said,
        )  # fmt: skip
    return packages


def _expected(declaration: Declaration) -> str:
    day = f" as of {declaration.released}" if declaration.released else ""
    return f"compatible packages for Python {declaration.python}{day}"


def arguments(declaration: Declaration, wanted: str, answer: str) -> list[str]:
    """uv's arguments for resolving a declaration."""
    command = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", declaration.python]
    command += ["--output-file", answer]
    if sys.version_info[:2] == tuple(int(part) for part in declaration.python.split(".")):
        command += ["--python", sys.executable]
    if declaration.released:
        command += ["--exclude-newer", end_of(declaration.released)]
        exempt = {package: end_of(it.until) if it.until else _FAR for package, it in declaration.exceptions.items()}
        # Pinned packages need no date.
        for package, until in sorted((exempt | dict.fromkeys(declaration.exact(), _FAR)).items()):
            command += ["--exclude-newer-package", f"{package}={until}"]
    return [*command, wanted]


def end_of(day: datetime.date) -> str:
    """The end of a day in UTC, in uv's format. uv would read a bare date as local time."""
    return f"{day + datetime.timedelta(days=1)}T00:00:00Z"


def write(path: Path, text: str) -> None:
    """Write a file completely or not at all.

    Raises:
        HarnessError: the disk is full, or the folder cannot be written.
    """
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise HarnessError(
            f"cannot write {path}: {error}",
            "a folder with write access on a disk with free space",
            "fix that, then run it again",
        ) from error
