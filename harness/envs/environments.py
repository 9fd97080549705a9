"""Environments by what the user writes: described, locked, built, listed and cleaned up."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import filelock

from harness.core import data
from harness.core.errors import HarnessError, UsageError
from harness.envs import build as envbuild
from harness.envs import declaration, index, source_tree
from harness.envs import lock as locks
from harness.envs import spec as specs
from harness.envs.declaration import Declaration
from harness.envs.draft import Draft
from harness.envs.environment import BuiltEnvironment, EnvFailed, Environment, EnvStatus, Log
from harness.envs.index import Fetch, Releases
from harness.envs.installers import RunUv, Uv
from harness.envs.lock import Lock
from harness.envs.overlay import Overlays

__all__ = ["BuiltEnvironment", "EnvFailed", "EnvStatus", "Environment", "Environments"]

CURRENT = "current"
"""The environment that checkouts are installed over, and whose held packages those made on the fly hold too."""


def _quiet(line: str) -> None:
    """Say nothing."""


class Environments:
    """All environments: the declared ones, and those that a spec makes on the fly.

    Args:
        matrices: the folder whose `envs/` declares them; new ones are written there.
        cache: where they are built; by default as `harness.core.data` says.
        log: is told each step that takes time.
        fallback: another matrices folder, for names that the first has not.
        uv: runs uv; by default the real one.
        fetch: gets what an index says of a package; by default over the network.
    """

    def __init__(
        self,
        matrices: Path,
        cache: Path | None = None,
        log: Log = _quiet,
        *,
        fallback: Path | None = None,
        uv: RunUv | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self._folders = [folder / "envs" for folder in (matrices, fallback) if folder is not None]
        self.cache = cache or data.cache()
        self._log = log
        real = Uv(self.cache / "uv", os.environ)
        self._uv = uv or real
        self._fetch = fetch = fetch or index.fetcher(lambda: real.environ)
        self.releases = Releases(lambda: real.settings.indexes(), self.cache / "releases", fetch)
        """What the registry has."""
        self._builder = envbuild.Builder(self.cache / "envs", self._uv, log)
        self._overlays = Overlays(self.cache / "git", log, CURRENT)

    # --- what there is

    def names(self) -> list[str]:
        """Names of the declared environments."""
        return sorted({path.stem for folder in self._folders for path in folder.glob("*.toml")})

    def declaration(self, name: str) -> Declaration | None:
        """What is declared under a name; None where nothing is, or where it can't be read."""
        with contextlib.suppress(HarnessError):
            return declaration.load(self._declaration_path(name))
        return None

    def declarations(self) -> dict[str, Declaration]:
        """What is declared, by name; without what can't be read."""
        found = {name: self.declaration(name) for name in self.names()}
        return {name: declared for name, declared in found.items() if declared is not None}

    def status(self) -> list[EnvStatus]:
        """What can be said of each declared environment without building one; a bad declaration spoils only itself."""
        return [self._status(name) for name in self.names()]

    def describe(self, spec: str) -> Environment:
        """What an environment is, without building it. One given as pins is locked now, unless its lock is cached.

        Raises:
            UsageError: the spec is of none of the forms, or names what is not there.
            EnvFailed: no lock, a stale one, packages that do not resolve, or a git URL that can't be fetched.
        """
        match specs.parse(spec, self.names()):
            case specs.Named(name):
                return self._named(name, spec)
            case specs.Pins() as pins:
                return self._pinned(pins, spec)
            case specs.Checkout() | specs.Git() as above:
                self._template()
                return self._overlays.of(spec, above, self._named(CURRENT, spec))
            case specs.Over(above, base):
                above = self._spelled(above) if isinstance(above, specs.Pins) else above
                return self._overlays.of(spec, above, self.describe(base))
            case specs.Interpreter(python):
                return self._interpreter(spec, python)

    def makes_fixtures_on_demand(self, name: str) -> bool:
        """True for a declared environment whose fixtures are not committed but made when they are needed."""
        return declaration.load(self._declaration_path(name)).fixtures == "on-demand"

    def locked_versions(self, spec: str) -> Mapping[str, str]:
        """Package versions of an environment, without building it; an interpreter is asked for its own."""
        return self.describe(spec).versions

    # --- making

    def build(self, spec: str) -> BuiltEnvironment:
        """The environment, built if it is not.

        Raises:
            UsageError: the spec is wrong.
            EnvFailed: it does not lock, resolve, build or import.
        """
        environment = self.describe(spec)
        if environment.interpreter is not None:
            return BuiltEnvironment(
                environment.name, spec, environment.kind, environment.interpreter, "", environment.versions,
                environment.python, untouched=True,
            )  # fmt: skip
        return self._builder.build(environment)

    def is_built(self, environment: Environment) -> bool:
        """True where nothing has to be built to have it."""
        return environment.interpreter is not None or self._builder.built(environment) is not None

    def build_packed(self, environment: Environment, wheels: Path) -> BuiltEnvironment:
        """The environment, built from a wheelhouse if it is not built yet. Asks no index."""
        return self._builder.build(environment, wheels)

    def lock(self, name: str, *, upgrade: bool = True) -> Path:
        """Resolve a declared environment and write its lock.

        Args:
            upgrade: resolve everything anew, else keep what still fits.
        """
        path = self._declaration_path(name)
        data.refuse_packaged(path.parent)
        declared = declaration.load(path)
        lock = _lock_path(path)
        kept = None if upgrade else _packages(lock)
        self._log(f"resolving {name}")
        packages = locks.resolve(name, declared, self._uv, kept)
        locks.write(lock, locks.render(name, declared, packages, f"made by `peft-regress env lock {name}`"))
        return lock

    def draft(self, requirement: str) -> Draft:
        """An environment for a release of PEFT, given as `peft==0.9.0`, as of the day of its release: resolved only.

        Further pins (`peft==0.13.2,transformers==4.36.2`) are held to; the name tells of them.

        Raises:
            UsageError: no such release, a yanked one, none for this Python, or the environment is declared already.
            EnvFailed: it does not resolve, or no index can tell.
        """
        pins = specs.parse_pins(requirement)
        if "peft" not in dict(pins.pins):
            raise UsageError(f"{requirement!r} pins no PEFT", "peft==VERSION, and more pins if need be", "add peft==…")
        data.refuse_packaged(self._folders[0])
        template = self._template()
        for package, version in pins.pins:
            self._refuse_unfit(package, version, template.python)
        pins, day = self._dated(pins)
        draft = Draft.of(pins, template, day, self._folders[0])
        draft.refuse_declared()
        self._log(f"resolving {draft.name} as of {day}")
        return replace(draft, packages=locks.resolve(draft.name, draft.declared, self._uv))

    def beside(self, matrices: Path) -> Environments:
        """The environments of another folder, with the same cache and the same ways to get at things."""
        return Environments(matrices, self.cache, self._log, uv=self._uv, fetch=self._fetch)

    # --- cleaning up

    def remove(self, spec: str) -> list[Path]:
        """Delete what was built for a spec, of whatever lock or state; returns the directories."""
        match specs.parse(spec, self.names()):
            case specs.Named(name):
                gone = [path for path, _ in self._cached() if path.name[:-13] == name]
            case specs.Pins() as pins:
                gone = [path for path, _ in self._cached() if path.name[:-13] == pins.name]
                for lock in (self.cache / "locks").glob(f"{pins.name}-*.txt"):
                    lock.unlink()
            case specs.Over():
                name = self.describe(spec).name
                gone = [path for path, _ in self._cached() if path.name[:-13] == name]
            case specs.Checkout(checkout):
                gone = [path for path, stamp in self._cached() if _tree(stamp).get("path") == str(checkout)]
            case specs.Git(url=url):
                gone = [path for path, stamp in self._cached() if _tree(stamp).get("source", "").startswith(f"{url}@")]
            case specs.Interpreter():
                raise UsageError(f"{spec!r} was not built by us", "an environment in the cache", "nothing to do")
        return [path for path in gone if self._delete(path)]

    def discard(self, spec: str) -> None:
        """Delete what is built of an environment as it is locked now, and nothing of another lock."""
        directory = self._builder.directory(self.describe(spec))
        if directory.exists():
            self._delete(directory)

    def gc(self, *, dry_run: bool) -> list[Path]:
        """Delete cached environments that no declaration, lock or checkout stands for any more, and half-built ones.

        One that another process builds at the moment is left alone.

        Args:
            dry_run: delete nothing.

        Returns:
            What was deleted, or would be.
        """
        needed = set(self._needed())
        unused = [path for path, stamp in self._cached() if not stamp or not (path in needed or _still(stamp))]
        trees = [path for path in (self.cache / "git").glob("*") if path.is_dir()]
        if dry_run:
            return unused + trees
        for tree in trees:
            shutil.rmtree(tree, ignore_errors=True)
        return [path for path in unused if self._delete(path)] + trees

    # --- within

    def _named(self, name: str, spec: str) -> Environment:
        path = self._declaration_path(name)
        declared = declaration.load(path)
        return _environment(name, spec, "named", declared, locks.read(_lock_path(path), name, declared))

    def _declaration_path(self, name: str) -> Path:
        for folder in self._folders:
            if (folder / f"{name}.toml").is_file():
                return folder / f"{name}.toml"
        specs.parse(name, self.names())  # raises with names that are close
        raise UsageError(f"{name!r} is not a declared environment", "a name", f"one of {', '.join(self.names())}")

    def _template(self) -> Declaration:
        if CURRENT not in self.names():
            raise UsageError(
                f"no environment {CURRENT!r} in {self._folders[0]}", "one: what is made on the fly takes after it",
                f"declare {CURRENT}.toml there, or use a declared name",
            )  # fmt: skip
        return declaration.load(self._declaration_path(CURRENT))

    def _dated(self, pins: specs.Pins) -> tuple[specs.Pins, datetime.date]:
        """The pins as the index spells them, and the day on which the youngest was released.

        What is held whatever the day says nothing about it, unless nothing else is pinned.
        """
        held = self._template().exact()
        asked = {package for package, _ in pins.pins if package not in held} or {package for package, _ in pins.pins}
        found = {package: self.releases.of(package, version) for package, version in pins.pins if package in asked}
        spelled = [(package, found[package].version if package in found else text) for package, text in pins.pins]
        return specs.Pins(tuple(spelled)), max(release.date for release in found.values())

    def _pinned(self, pins: specs.Pins, spec: str) -> Environment:
        pins, day = self._dated(pins)
        declared = self._template().with_pins(dict(pins.pins), day, f"{spec}, everything else as of its release")
        path = self.cache / "locks" / f"{pins.name}-{declared.digest()[:12]}.txt"
        if not path.exists():
            self._log(f"resolving {pins.name} as of {declared.released}")
            packages = locks.resolve(pins.name, declared, self._uv)
            locks.write(path, locks.render(pins.name, declared, packages, "made on the fly"))
        return _environment(pins.name, spec, "pins", declared, locks.read(path, pins.name, declared))

    def _spelled(self, pins: specs.Pins) -> specs.Pins:
        """Pins as the index spells them; one that it does not have is told now, and not by an installer."""
        spelled = dict(pins.pins)
        for package, text in pins.pins:
            with contextlib.suppress(EnvFailed):  # no day is needed here, and so no index that tells one
                spelled[package] = self.releases.of(package, text).version
        return specs.Pins(tuple(spelled.items()))

    def _interpreter(self, spec: str, python: Path) -> Environment:
        name = f"python-{hashlib.sha256(str(python).encode()).hexdigest()[:8]}"
        found = envbuild.facts(name, python, isolated=False)
        return Environment(
            name,
            spec,
            "interpreter",
            "",
            f"{python}, untouched",
            found.python_version,
            found.versions,
            interpreter=python,
        )

    def _status(self, name: str) -> EnvStatus:
        status = EnvStatus(name)
        try:
            path = self._declaration_path(name)
            declared = declaration.load(path)
            status = EnvStatus(name, declared.why, declared.python, declared.pins, declared.on_demand)
            lock = _lock_path(path)
            if not lock.exists():
                return status
            stale = locks.parse(lock.read_text(encoding="utf-8"), name, lock).declaration != declared.digest()
            status = replace(status, locked=True, stale=stale)
            built = None if stale else self._builder.built(self._named(name, name))
            return replace(status, built=built.python.parent.parent if built else None)
        except HarnessError as error:
            return replace(status, problem=str(error))

    def _refuse_unfit(self, package: str, version: str, python: str) -> None:
        release = self.releases.of(package, version, anew=True)
        if release.yanked:
            raise UsageError(f"{package} {version} was yanked", "a release that stands", "take its neighbour")
        if not release.fits(python):
            raise UsageError(
                f"{package} {version} has no wheel for Python {python} here",
                "a release with a wheel",
                "take its neighbour",
            )

    def _needed(self) -> Iterator[Path]:
        """Directories of environments that are declared and locked, and of those whose lock is cached."""
        for name in self.names():
            try:
                yield self._builder.directory(self._named(name, name))
            except HarnessError:
                continue  # not locked, so that nothing in the cache is built from its lock
        python = self._template().python if CURRENT in self.names() else ""
        for path in (self.cache / "locks").glob("*.txt") if python else ():
            name = path.stem[:-13]
            lock = locks.parse(path.read_text(encoding="utf-8"), name, path)
            yield self._builder.directory(Environment(name, name, "pins", lock.digest(), "", python, lock.packages))

    def _cached(self) -> list[tuple[Path, Mapping[str, object]]]:
        """Every environment in the cache with its stamp; a half-built one has an empty one."""
        root = self.cache / "envs"
        folders = [path for path in sorted(root.glob("*")) if path.is_dir()] if root.is_dir() else []
        return [(path, envbuild.read_stamp(path) or {}) for path in folders]

    def _delete(self, directory: Path) -> bool:
        """Delete an environment, unless a process is building it."""
        try:
            with filelock.FileLock(envbuild.lock_path(directory), timeout=0):
                envbuild.remove(directory)
        except filelock.Timeout:
            self._log(f"left alone, because a process builds it: {directory}")
            return False
        return True


def _environment(name: str, spec: str, kind: str, declared: Declaration, lock: Lock) -> Environment:
    return Environment(
        name, spec, kind, lock.digest(), declared.why, declared.python, lock.packages, declared.on_demand
    )


def _lock_path(declaration_path: Path) -> Path:
    return declaration_path.parent / "locks" / f"{declaration_path.stem}.txt"


def _packages(lock: Path) -> dict[str, str] | None:
    return locks.packages_in(lock.read_text(encoding="utf-8")) if lock.exists() else None


def _tree(stamp: Mapping[str, object]) -> Mapping[str, str]:
    tree = stamp.get("tree")
    return tree if isinstance(tree, dict) else {}


def _still(stamp: Mapping[str, object]) -> bool:
    """True for a checkout's environment where the checkout is there with the very content that was built."""
    tree = _tree(stamp)
    path = Path(tree.get("path", ""))
    return stamp.get("kind") == "checkout" and path.is_dir() and source_tree.digest(path) == tree.get("digest")
