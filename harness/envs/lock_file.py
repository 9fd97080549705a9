"""Reads a user's own lock: `pip freeze`, a requirements file with `==`, the output of `uv pip compile`, a pylock.toml.

A lock says which packages an environment has. What cannot be installed from its line alone, such as a checkout, is an
error if it may matter for an adapter; otherwise the package is left out, and `LockFile.notes` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.core import toml_files
from harness.core.errors import UsageError
from harness.core.files import read_text
from harness.core.text import listed
from harness.core.versions import version_of
from harness.envs import lock as locks
from harness.envs.environment import Environment

SUFFIXES = (".txt", ".toml", ".lock")
_MATTERS = frozenset({
    "peft", "transformers", "trl", "bitsandbytes", "accelerate", "torch", "diffusers", "torchao", "safetensors",
    "tokenizers", "huggingface-hub", "numpy",
})  # fmt: skip
"""Packages that compute or load something of an adapter: they are never left out."""
_OF_TORCH = re.compile(r"^(nvidia-.+|triton|pytorch-triton.*)$")
"""Packages that belong to one build of Torch. They are installed with the build that this machine's index has."""
_PYTHON = (
    re.compile(r"^#.*--python-version[= ](3\.\d+)", re.MULTILINE),
    re.compile(r"^#.*\bwith Python (3\.\d+)", re.MULTILINE),
    re.compile(r"^# Python (3\.\d+);", re.MULTILINE),
)
"""Where the head of a lock says which Python it is for: uv, pip-compile, this program."""
_PASSED_OVER = (
    "-i ", "--index-url", "--extra-index-url", "-f ", "--find-links", "--trusted-host", "--pre", "--no-binary",
    "--only-binary", "--prefer-binary", "--no-index", "--require-hashes", "--use-feature",
)  # fmt: skip
"""Options that say where packages come from. This machine's own configuration counts instead."""
_EXPORT = "export it: uv export --frozen --no-hashes --no-emit-project -o lock.txt"


@dataclass
class LockFile:
    """The packages of a lock.

    Attributes:
        python: the Python version that it says it is for; empty if it says none.
        notes: what was left out or changed.
    """

    packages: dict[str, str] = field(default_factory=dict)
    python: str = ""
    notes: list[str] = field(default_factory=list)


def read(path: Path, python: str) -> LockFile:
    """The lock in a file.

    Args:
        python: the version of Python that markers are evaluated for, unless the lock says one.

    Raises:
        UsageError: there is no such file, or a line does not pin a version; with file and line.
    """
    try:
        text = read_text(path).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "a lock file in UTF-8", "check the path") from error
    if path.suffix == ".txt":
        return _Lines(path, text, python).read()
    data = toml_files.read(path)
    if "lock-version" not in data or not isinstance(data.get("packages"), list):
        what = "is a uv.lock, which holds several environments" if "package" in data else "is not a lock"
        raise UsageError(f"{path} {what}", "a requirements file with ==, or a pylock.toml", _EXPORT)
    return _pylock(path, data, python)


def environment(spec: str, path: Path, python: str) -> Environment:
    """The environment that a lock describes.

    Args:
        python: the version of Python for a lock that says none.

    Raises:
        UsageError: as `read`.
    """
    lock = read(path, python)
    if "peft" not in lock.packages:
        raise UsageError(f"{path} has no peft", "the packages of an environment that loads adapters", "check the path")
    digest = locks.digest_of(lock.packages)
    name = f"lock_{re.sub(r'[^A-Za-z0-9.]+', '_', path.stem)}_{digest[:8]}"
    used = lock.python or python
    notes = lock.notes + ([] if lock.python else [f"it does not say its Python: {used} is used"])
    why = "; ".join([f"{len(lock.packages)} packages of {path.name}", *notes])
    return Environment(name, spec, "lock", digest, why, used, lock.packages)


class _Lines:
    """A lock of requirement lines."""

    def __init__(self, path: Path, text: str, python: str) -> None:
        self.path = path
        self.text = text
        said = next((found[1] for pattern in _PYTHON if (found := pattern.search(text))), "")
        self.python = said or python
        self.lock = LockFile(python=said)
        self._lines: dict[str, int] = {}
        self._of_torch: list[str] = []

    def read(self) -> LockFile:
        for number, line in _joined(self.text):
            self._add(number, line)
        if not self.lock.packages:
            raise UsageError(f"{self.path} pins no package", "lines such as peft==0.13.2", "check the path")
        _note_builds(self.lock, self._of_torch)
        return self.lock

    def _add(self, number: int, line: str) -> None:
        if line.startswith(_PASSED_OVER):
            return
        if line.startswith(("-r", "-c", "--requirement", "--constraint")):
            raise self._wrong(number, f"{line!r} names another file", "one file with all packages", _EXPORT)
        if line.startswith(("-e", "--editable", ".", "/", "git+", "http:", "https:", "file:")):
            self._leave_out(number, line, _name_in(line))
            return
        try:
            one = Requirement(line)
        except InvalidRequirement as error:
            raise self._wrong(number, f"{line!r} is not a requirement", "package==version", "correct it") from error
        name = canonicalize_name(one.name)
        if one.marker is not None and not _applies(one.marker, self.python):
            return
        if one.url:
            self._leave_out(number, line, name)
        else:
            self._pin(number, name, one)

    def _pin(self, number: int, name: str, one: Requirement) -> None:
        pins = [each.version for each in one.specifier if each.operator in ("==", "===")]
        if len(pins) != 1 or len(one.specifier) != 1 or (version := version_of(pins[0])) is None:
            raise self._wrong(
                number, f"{str(one)!r} does not pin a version", f"{name}==VERSION",
                "make a lock: pip freeze, or uv pip compile",
            )  # fmt: skip
        if _OF_TORCH.match(name):
            self._of_torch.append(name)
            return
        before = self.lock.packages.get(name)
        if before not in (None, str(version)):
            raise self._wrong(
                number, f"{name} {version}, and line {self._lines[name]} has {name} {before}", "each package once",
                "keep the one that is installed",
            )  # fmt: skip
        self.lock.packages[name] = str(version)
        self._lines[name] = number

    def _leave_out(self, number: int, line: str, name: str) -> None:
        if not name or name in _MATTERS:
            raise self._wrong(
                number, f"{line!r} has no version" + ("" if name else ", and does not say which package it is"),
                f"{name or 'package'}==VERSION", "replace it by the release that it is, or remove the line",
            )  # fmt: skip
        self.lock.notes.append(f"{self.path.name}, line {number}: {name} is left out, because it is no release")

    def _wrong(self, number: int, found: str, expected: str, next_step: str) -> UsageError:
        return UsageError(f"{self.path}, line {number}: {found}", expected, next_step)


def _pylock(path: Path, data: Mapping[str, Any], python: str) -> LockFile:
    """A lock in the standard format (PEP 751)."""
    lock, of_torch = LockFile(), []
    for place, one in enumerate(data["packages"], start=1):
        name = canonicalize_name(str(one.get("name", "")))
        if "marker" in one and not _applies(_marker(path, place, str(one["marker"])), python):
            continue
        version = version_of(str(one.get("version", "")))
        if _OF_TORCH.match(name):
            of_torch.append(name)
        elif version is None and (name in _MATTERS or not name):
            raise UsageError(
                f"{path}, package {place}: {name or 'it'} has no version", "a release", "replace it by a release"
            )
        elif version is None:
            lock.notes.append(f"{path.name}: {name} is left out, because it is no release")
        else:
            lock.packages[name] = str(version)
    if not lock.packages:
        raise UsageError(f"{path} pins no package", "[[packages]] with name and version", "check the path")
    _note_builds(lock, of_torch)
    return lock


def _note_builds(lock: LockFile, of_torch: Sequence[str]) -> None:
    """Remove local versions such as `+cu121`, which only one index has."""
    local = {name: version for name, version in lock.packages.items() if "+" in version}
    lock.packages |= {name: version.partition("+")[0] for name, version in local.items()}
    if local:
        named = listed(f"{name} {version}" for name, version in sorted(local.items()))
        lock.notes.append(f"{named}: this machine's build of that version is used")
    if of_torch:
        shown = listed([*sorted(of_torch)[:3], *(["others"] if len(of_torch) > 3 else [])])
        lock.notes.append(f"{shown} belong to a build of Torch: what this machine's build needs is installed instead")


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their number, without comments and hashes; a line that ends in `\\` continues."""
    start, parts = 0, list[str]()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        start = start if parts else number
        parts.append(line.removesuffix("\\").strip())
        if line.endswith("\\"):
            continue
        whole = re.sub(r"\s--hash[= ]\S+", "", " ".join(parts)).strip()
        parts = []
        if whole:
            yield start, whole


def _name_in(line: str) -> str:
    """The package of an editable or direct line: after `#egg=`, or before ` @ `; empty if it does not say."""
    found = re.search(r"#egg=([A-Za-z0-9._-]+)", line)
    if found:
        return canonicalize_name(found[1])
    last = line.split("#")[0].split("@")[0].rstrip("/").rpartition("/")[2].removesuffix(".git")
    wheel = re.match(r"([A-Za-z0-9._]+)-\d[^-]*-.*\.whl$", last)
    return canonicalize_name(wheel[1] if wheel else last) if re.fullmatch(r"[A-Za-z0-9._-]+", last) else ""


def _marker(path: Path, place: int, text: str) -> Marker:
    try:
        return Marker(text)
    except InvalidMarker as error:
        raise UsageError(f"{path}, package {place}: {text!r} is not a marker", "a marker", "make it again") from error


def _applies(marker: Marker, python: str) -> bool:
    return marker.evaluate({"python_version": python, "python_full_version": f"{python}.0", "extra": ""})
