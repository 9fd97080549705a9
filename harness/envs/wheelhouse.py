"""Wheelhouses: all wheels of an environment in a folder, from which a machine without network builds it.

    FOLDER/wheelhouse.json      what it is for: environment, lock, Python, each wheel's size and SHA-256
    FOLDER/requirements.txt     the same for pip, with hashes
    FOLDER/install.py           checks the wheels and makes a virtual environment of them; needs nothing but Python
    FOLDER/wheels/*.whl

`harness.envs.wheelhouse_pack` makes one. Here is what one says, and whether that still holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pydantic
from packaging.utils import canonicalize_name

from harness.core.errors import UsageError
from harness.core.model import Model
from harness.envs import lock as locks
from harness.envs.environment import EnvFailed, Environment

FORMAT = 1
MANIFEST = "wheelhouse.json"
WHEELS = "wheels"
_CHUNK = 1 << 20


class Wheel(Model):
    """One wheel of it."""

    file: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl$")
    package: str
    version: str
    """With the local part: `2.13.0+cpu`."""
    size: int
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")

    def __str__(self) -> str:
        return f"{self.size} bytes with SHA-256 {self.sha256}"


class Wheelhouse(Model):
    """What a wheelhouse says of itself."""

    format: Literal[1] = 1
    name: str
    spec: str
    why: str = ""
    python: str = pydantic.Field(pattern=r"^3\.\d+$")
    platforms: tuple[str, ...] = ()
    """The platforms that wheels were asked for; empty for the one on which it was packed."""
    packed_on: str = ""
    lock: dict[str, str]
    """Package → version, as locked: without local versions."""
    lock_digest: str
    wheels: tuple[Wheel, ...]

    @pydantic.model_validator(mode="after")
    def _whole(self) -> Wheelhouse:
        there = {canonicalize_name(wheel.package) for wheel in self.wheels}
        if missing := sorted(set(self.lock) - there):
            raise ValueError(f"it lists no wheel of {', '.join(missing)}")
        if locks.digest_of(self.lock) != self.lock_digest:
            raise ValueError("lock_digest is not that of its lock")
        return self

    def environment(self) -> Environment:
        """The environment that is built from it, where nothing else declares it."""
        return Environment(self.name, self.spec, "named", self.lock_digest, self.why, self.python, dict(self.lock))


def read(folder: Path) -> Wheelhouse:
    """What a wheelhouse says of itself.

    Raises:
        UsageError: there is none, it is damaged, or of a format that this version does not read.
    """
    path = folder / MANIFEST
    again = "pack it anew: `peft-regress env pack NAME`"
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{folder} is no wheelhouse: no {MANIFEST} in it", "what `env pack` wrote", again) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}", "a whole manifest", again) from error
    if isinstance(data, dict) and data.get("format") != FORMAT:
        newer = "use the version of peft-regress that packed it"
        raise UsageError(f"{path}: wheelhouse format {data.get('format')!r}", f"format {FORMAT}", newer)
    try:
        return Wheelhouse.model_validate(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: {where or 'manifest'}: {first['msg']}", "a manifest as packed", again) from error


def checked(folder: Path, environment: Environment | None = None) -> tuple[Wheelhouse, list[Path]]:
    """The wheelhouse and the paths of its wheels, each of the size and SHA-256 that it should have.

    Args:
        environment: what it is to be for; none where it says so itself.

    Raises:
        UsageError: it is no wheelhouse.
        EnvFailed: it is of another lock, or a wheel is missing or damaged: which.
    """
    house = read(folder)
    if environment is not None and house.lock_digest != environment.lock_digest:
        raise EnvFailed(
            environment.name, "build", f"{folder} was packed of another lock: {_apart(environment, house)}",
            f"a wheelhouse of {environment.name} as it is locked here",
            f"pack it anew where there is a network: `peft-regress env pack {environment.spec}`",
        )  # fmt: skip
    wrong = {wheel.file: problem for wheel in house.wheels if (problem := _problem(folder, wheel))}
    if wrong:
        raise EnvFailed(
            house.name, "build", f"{folder}: {'; '.join(f'{file} {problem}' for file, problem in wrong.items())}",
            f"all {len(house.wheels)} wheels as they were packed",
            "copy what is named here again from where it was packed, or pack it anew",
        )  # fmt: skip
    return house, [folder / WHEELS / wheel.file for wheel in house.wheels]


def _apart(environment: Environment, house: Wheelhouse) -> str:
    here: Mapping[str, str] = environment.versions
    differing = [name for name in sorted({*here, *house.lock}) if here.get(name) != house.lock.get(name)]
    said = [f"{name} {house.lock.get(name, 'not')} packed, {here.get(name, 'not')} locked" for name in differing[:3]]
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return "; ".join(said) + more if said else "another source tree over it"


def _problem(folder: Path, wheel: Wheel) -> str:
    path = folder / WHEELS / wheel.file
    try:
        size = path.stat().st_size
        if size != wheel.size:
            return f"has {size} bytes and not {wheel.size}: it is cut short or altered"
        found = sha256_of(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return "" if found == wheel.sha256 else f"has another SHA-256 than it was packed with ({found[:12]}…): altered"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, however large."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            whole.update(chunk)
    return whole.hexdigest()
