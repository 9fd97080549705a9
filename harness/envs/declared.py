"""Environments as their files declare and lock them: `matrices/envs/NAME.toml`, `matrices/consumers/NAME.toml`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.core.errors import HarnessError, UsageError
from harness.core.files import read_text
from harness.envs import declaration
from harness.envs import lock as locks
from harness.envs.declaration import Declaration
from harness.envs.environment import BuiltEnvironment, Consumer, EnvFailed, Environment, EnvStatus
from harness.envs.lock import Lock

Built = Callable[[Environment], BuiltEnvironment | None]


def load(path: Path) -> Declaration:
    """The declaration in a file of one of the two folders.

    Raises:
        UsageError: it cannot be read, or is in the wrong folder.
    """
    declared = declaration.load(path)
    belongs = path.parent.name == "consumers"
    if belongs != (declared.consumer is not None):
        raise UsageError(
            f"{path} has {'no' if belongs else 'a'} [consumer]", "consumers in matrices/consumers/, with [consumer]",
            "add it" if belongs else "move the file there",
        )  # fmt: skip
    return declared


def read(path: Path, name: str, spec: str) -> Environment:
    """The environment of a declaration, as it is locked.

    Raises:
        UsageError: the declaration cannot be read.
        EnvFailed: it has no lock, or a stale one.
    """
    declared = load(path)
    lock = locks.read(lock_path(path), name, declared)
    if declared.consumer is None:
        return of(name, spec, "named", declared, lock)
    return _consumer(path, name, spec, declared, lock)


def of(name: str, spec: str, kind: str, declared: Declaration, lock: Lock) -> Environment:
    """The environment of a declaration and its lock."""
    return Environment(
        name, spec, kind, lock.digest(), declared.why, declared.python, lock.packages, declared.on_demand
    )


def _consumer(path: Path, name: str, spec: str, declared: Declaration, lock: Lock) -> Environment:
    table = declared.consumer
    assert table is not None
    driver, digest = table.driver, lock.digest()
    if driver.endswith(".py"):  # it decides what is observed, as the lock does
        driver = str((path.parent / driver).resolve())
        try:
            own = hashlib.sha256(Path(driver).read_bytes()).hexdigest()
        except OSError as error:
            raise UsageError(f"{path}: {error}", "the driver's file beside it", "fix `driver`") from error
        digest = hashlib.sha256(f"{digest} {own}".encode()).hexdigest()
    sdist = lock.sdists.get(table.package, "")
    if bool(sdist) != bool(table.extract):
        raise EnvFailed(name, "lock", f"{lock_path(path)} has no digest of the sdist of {table.package}", "a lock with it", f"peft-regress env lock {name}")  # noqa: E501  # fmt: skip
    consumer = Consumer(path.stem, driver, table.package, tuple(table.extract), sdist, table.lacks)
    described = of(name.replace(":", "-"), spec, "consumer", declared, lock)
    return replace(described, lock_digest=digest, consumer=consumer)


def status(path: Path, name: str, built: Built) -> EnvStatus:
    """The state of a declared environment."""
    found = EnvStatus(name)
    try:
        declared = load(path)
        found = EnvStatus(name, declared.why, declared.python, declared.pins, declared.on_demand)
        lock = lock_path(path)
        if not lock.exists():
            return found
        stale = locks.load(lock, name).declaration != declared.digest()
        found = replace(found, locked=True, stale=stale)
        there = None if stale else built(read(path, name, name))
        return replace(found, built=there.python.parent.parent if there else None)
    except HarnessError as error:
        return replace(found, problem=str(error))


def lock_path(declaration_path: Path) -> Path:
    """Where the lock of a declaration is."""
    return declaration_path.parent / "locks" / f"{declaration_path.stem}.txt"


def locked_packages(lock: Path) -> dict[str, str] | None:
    """The packages of a lock; None if there is none."""
    return locks.packages_in(read_text(lock)) if lock.exists() else None
