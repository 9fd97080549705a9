"""Describes, locks, builds, lists and removes environments, each named by a spec."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.core import data
from harness.core.errors import HarnessError, UsageError
from harness.core.progress import Log, quiet
from harness.envs import build as envbuild
from harness.envs import cached, declared, index, installed, lock_file, rules
from harness.envs import lock as locks
from harness.envs import spec as specs
from harness.envs.declaration import Declaration
from harness.envs.draft import Draft
from harness.envs.environment import BuiltEnvironment, EnvFailed, Environment, EnvStatus, refuse_too_old
from harness.envs.facts import facts
from harness.envs.index import Fetch, Releases
from harness.envs.installed import Verified
from harness.envs.installers import RunUv, Uv
from harness.envs.overlay import Overlays
from harness.envs.pinned import PinnedLocks
from harness.envs.rules import Rule
from harness.worker import in_use

_CONSUMERS = "consumers"
CURRENT = "current"
"""The base of checkouts, and the template of environments that a spec pins."""


class Environments:
    """All environments: the declared ones, and those that a spec pins.

    Args:
        matrices: the folder whose `envs/` declares them; new declarations are written there.
        cache: the folder for builds; default: `data.cache()`.
        fallback: another matrices folder, for names that the first lacks.
        uv: runs uv; default: the real one.
        fetch: gets an index's page; default: over the network.
    """

    def __init__(
        self,
        matrices: Path,
        cache: Path | None = None,
        log: Log = quiet,
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
        """The releases on the package index."""
        self._builder = envbuild.Builder(self.cache / "envs", self._uv, log, self.releases.sdist)
        self._pins = PinnedLocks(self.releases, self._rules, self.cache / "locks", self._uv, log)
        self._overlays = Overlays(self.cache / "git", log, CURRENT, self.releases.sdist_digest)

    # --- describing

    def names(self) -> list[str]:
        """Names of the declared environments."""
        return sorted({path.stem for folder in self._folders for path in folder.glob("*.toml")})

    def consumers(self) -> list[str]:
        """Specs of the declared consumers: `consumer:llama.cpp`."""
        found = {path.stem for folder in self._folders for path in (folder.parent / _CONSUMERS).glob("*.toml")}
        return [f"{specs.CONSUMER}{name}" for name in sorted(found)]

    def declaration(self, name: str) -> Declaration | None:
        """The declaration of a name; None if there is none, or it cannot be read."""
        with contextlib.suppress(HarnessError):
            return declared.load(self._declaration_path(name))
        return None

    def declarations(self) -> dict[str, Declaration]:
        """All declarations that can be read, by name."""
        found = {name: self.declaration(name) for name in self.names()}
        return {name: one for name, one in found.items() if one is not None}

    def status(self) -> list[EnvStatus]:
        """The state of each declared environment. Builds nothing; a broken declaration affects only its own entry."""
        names = (*self.names(), *self.consumers())
        return [declared.status(self._declaration_path(name), name, self._builder.built) for name in names]

    def describe(self, spec: str) -> Environment:
        """Describe an environment without building it. Pins are resolved, unless their lock is cached.

        Raises:
            UsageError: the spec has none of the forms, or names something that does not exist or is too old.
            EnvFailed: no lock, a stale lock, packages that do not resolve, or a git URL that cannot be fetched.
        """
        described = self._described(spec)
        refuse_too_old(spec, described.versions)
        return described

    def _described(self, spec: str) -> Environment:
        match specs.parse(spec, self.names()):
            case specs.Named(name):
                return self._named(name, spec)
            case specs.Consumer() as consumer:
                return self._consumer(spec, consumer)
            case specs.Pins() as pins:
                refuse_too_old(spec, dict(pins.pins))  # before anything is resolved
                return self._pinned(pins, spec)
            case specs.Checkout() | specs.Git() as above:
                self._template()
                return self._overlays.of(spec, above, self._named(CURRENT, CURRENT))
            case specs.Over(above, base):
                if isinstance(above, specs.Pins):
                    refuse_too_old(spec, dict(above.pins))
                    above = self._spelled(above)
                return self._overlays.of(spec, above, self.describe(base))
            case specs.Interpreter(python):
                return self._interpreter(spec, python)
            case specs.UserLock(path):
                return lock_file.environment(spec, path, self._template().python)

    def makes_fixtures_on_demand(self, name: str) -> bool:
        """True for a declared environment whose fixtures are created on demand instead of committed."""
        return declared.load(self._declaration_path(name)).fixtures == "on-demand"

    def locked_versions(self, spec: str) -> Mapping[str, str]:
        """Package versions of an environment, without building it. An interpreter is asked for its own."""
        return self.describe(spec).versions

    # --- building

    def build(self, spec: str) -> BuiltEnvironment:
        """Build the environment if it is not built.

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

    def rebuild(self, spec: str) -> BuiltEnvironment:
        """Build the environment again, also if it is built.

        Raises:
            EnvFailed: another process uses it; and as `build`.
        """
        if not self.discard(spec):
            raise EnvFailed(
                spec, "build", "another process uses it", "an environment that nobody uses",
                "wait until the other run has ended; then rebuild it",
            )  # fmt: skip
        return self.build(spec)

    def verify(self, specs: Sequence[str] = ()) -> Iterator[Verified]:
        """Read every file of built environments, and compare them with what was installed.

        Args:
            specs: which; default: all in the cache.

        Raises:
            UsageError: a spec is wrong.
            EnvFailed: a spec has no lock, does not resolve, or is not built.
        """
        asked = {self._builder.directory(self.describe(spec)): spec for spec in specs}
        built = {path: str(stamp.get("spec")) for path, stamp in self._cached() if stamp}
        if missing := [spec for path, spec in asked.items() if path not in built]:
            raise EnvFailed(
                missing[0], "build", "it is not built", "a built environment",
                f"peft-regress env build {shlex.quote(missing[0])}",
            )  # fmt: skip
        for path, spec in (asked or built).items():
            if in_use.hold(str(path)) != in_use.BUSY:  # else another process builds or deletes it
                self._log(f"reading {path.name}")
                yield installed.verify(path, spec)
                in_use.release(str(path))

    def built(self, environment: Environment) -> BuiltEnvironment | None:
        """The environment if it is built and no interpreter, else None. Builds nothing."""
        return None if environment.interpreter else self._builder.built(environment)

    def is_unchanged(self, built: BuiltEnvironment) -> bool:
        """True if none of the files of a built environment has changed since it was built."""
        return not installed.changes(built.python.parent.parent)

    def is_built(self, environment: Environment) -> bool:
        """True if it is built, or is an interpreter."""
        return environment.interpreter is not None or self._builder.built(environment) is not None

    def site_packages(self, name: str) -> Path | None:
        """The folder of a declared environment's packages; None if it is not built."""
        built = self._builder.built(self._named(name, name))
        return next(built.python.parent.parent.glob("lib/python*/site-packages"), None) if built else None

    def build_packed(self, environment: Environment, wheels: Path) -> BuiltEnvironment:
        """Build the environment from a wheelhouse if it is not built. Asks no index."""
        return self._builder.build(environment, wheels)

    def lock(self, name: str, *, upgrade: bool = True) -> Path:
        """Resolve a declared environment and write its lock.

        Args:
            upgrade: resolve everything again; else keep the versions that still fit.
        """
        path = self._declaration_path(name)
        data.refuse_packaged(path.parent)
        asked = declared.load(path)
        lock = declared.lock_path(path)
        kept = None if upgrade else declared.locked_packages(lock)
        self._log(f"resolving {name}")
        packages = locks.resolve(name, asked, self._uv, kept)
        sdists = {}
        if package := asked.extracted:
            packages[package] = asked.pins[package]
            sdists[package] = self.releases.sdist_digest(package, packages[package])
        locks.write(lock, locks.render(name, asked, packages, f"made by `peft-regress env lock {name}`", sdists))
        return lock

    def draft(self, requirement: str) -> Draft:
        """Resolve an environment for a PEFT release (`peft==0.9.0`) as of its release date. Writes nothing.

        Further pins (`peft==0.13.2,transformers==4.36.2`) become part of its name.

        Raises:
            UsageError: the release does not exist, is yanked, has no wheel for this Python, or is declared already.
            EnvFailed: it does not resolve, or no index answers.
        """
        pins = specs.parse_pins(requirement)
        if "peft" not in dict(pins.pins):
            raise UsageError(
                f"{requirement!r} does not pin PEFT", "peft==VERSION, and optionally more pins", "add peft==…"
            )
        refuse_too_old(requirement, dict(pins.pins))
        data.refuse_packaged(self._folders[0])
        template = self._template()
        for package, version in pins.pins:
            self._pins.refuse_unfit(package, version, template.python)
        dated, template = self._pins.dated(pins, template), self._pins.governed(template)
        draft = Draft.of(dated.pins, template, dated.days[0], self._folders[0])
        draft.refuse_declared()
        found = self._pins.resolve(
            dated, lambda day: Draft.of(dated.pins, template, day, draft.folder).declared, draft.name
        )
        return replace(draft, declared=found.declared, packages=found.packages)

    def beside(self, matrices: Path) -> Environments:
        """The environments of another folder, with the same cache, uv and index."""
        return Environments(matrices, self.cache, self._log, uv=self._uv, fetch=self._fetch)

    # --- cleaning up

    def remove(self, spec: str) -> list[Path]:
        """Delete all builds of a spec, of any lock and state; returns their directories."""
        match specs.parse(spec, self.names()):
            case specs.Named(name):
                gone = self._builds_of(name)
            case specs.Consumer():
                gone = self._builds_of(self.describe(spec).name)
            case specs.Pins() as pins:
                gone = self._builds_of(pins.name)
                for lock in (self.cache / "locks").glob(f"{pins.name}-*.txt"):
                    lock.unlink()
            case specs.Over() | specs.UserLock():
                gone = self._builds_of(self.describe(spec).name)
            case specs.Checkout(checkout):
                gone = [path for path, stamp in self._cached() if cached.tree(stamp).get("path") == str(checkout)]
            case specs.Git(url=url):
                gone = [
                    path for path, stamp in self._cached() if cached.tree(stamp).get("source", "").startswith(f"{url}@")
                ]
            case specs.Interpreter():
                raise UsageError(
                    f"{spec!r} is an interpreter, not a build", "an environment in the cache", "nothing to do"
                )
        return [path for path in gone if cached.delete(path, self._log)]

    def _builds_of(self, name: str) -> list[Path]:
        return [path for path, _ in self._cached() if path.name[:-13] == name]

    def discard(self, spec: str) -> bool:
        """Delete the build of an environment's present lock; False if another process uses it."""
        directory = self._builder.directory(self.describe(spec))
        return not directory.exists() or cached.delete(directory, self._log)

    def gc(self, *, dry_run: bool) -> list[Path]:
        """Delete incomplete builds, and those that no declaration, lock or checkout needs. Returns their folders.

        A build that another process builds or uses is kept.

        Args:
            dry_run: delete nothing.
        """
        needed = set(self._needed())
        unused = [path for path, stamp in self._cached() if not stamp or not (path in needed or cached.is_still(stamp))]
        trees = [path for path in (self.cache / "git").glob("*") if path.is_dir()]
        if dry_run:
            return unused + trees
        return [path for path in unused + trees if cached.delete(path, self._log)]

    # --- helpers

    def _named(self, name: str, spec: str) -> Environment:
        return declared.read(self._declaration_path(name), name, spec)

    def _consumer(self, spec: str, asked: specs.Consumer) -> Environment:
        locked = self._named(f"{specs.CONSUMER}{asked.name}", spec)
        if not asked.version or locked.consumer is None:
            return locked
        release = self._overlays.of(
            spec, self._spelled(specs.Pins(((locked.consumer.package, asked.version),))), locked
        )
        return replace(release, name=f"{locked.name}-{asked.version}")

    def _declaration_path(self, name: str) -> Path:
        if name.startswith(specs.CONSUMER):
            return self._consumer_path(name.removeprefix(specs.CONSUMER))
        for folder in self._folders:
            if (folder / f"{name}.toml").is_file():
                return folder / f"{name}.toml"
        specs.parse(name, self.names())  # raises with names that are close
        raise UsageError(
            f"{name!r} is not a declared environment", "a declared name", f"one of {', '.join(self.names())}"
        )

    def _consumer_path(self, name: str) -> Path:
        for folder in self._folders:
            if (path := folder.parent / _CONSUMERS / f"{name}.toml").is_file():
                return path
        known = ", ".join(self.consumers()) or "none is declared"
        raise UsageError(f"no consumer {name!r}", f"matrices/{_CONSUMERS}/{name}.toml", f"consumers: {known}")

    def _template(self) -> Declaration:
        if CURRENT not in self.names():
            raise UsageError(
                f"no environment {CURRENT!r}", "environments that a spec pins are based on it",
                f"create {self._folders[0] / CURRENT}.toml, or pass a declared name",
            )  # fmt: skip
        return declared.load(self._declaration_path(CURRENT))

    def _rules(self) -> tuple[Rule, ...]:
        """The rules that are declared beside the template."""
        return rules.load(self._declaration_path(CURRENT).parent.parent)

    def _pinned(self, pins: specs.Pins, spec: str) -> Environment:
        name, made, lock = self._pins.lock(pins, self._template(), f"{spec}, everything else as of its release")
        return declared.of(name, spec, "pins", made, lock)

    def _spelled(self, pins: specs.Pins) -> specs.Pins:
        """Pins as the index spells them; an unknown release is an error now, before anything is installed."""
        spelled = dict(pins.pins)
        for package, text in pins.pins:
            with contextlib.suppress(EnvFailed):  # no release day is needed here, so the index need not have one
                spelled[package] = self.releases.of(package, text).version
        return specs.Pins(tuple(spelled.items()))

    def _interpreter(self, spec: str, python: Path) -> Environment:
        name = f"python-{hashlib.sha256(str(python).encode()).hexdigest()[:8]}"
        found = facts(name, python, isolated=False)
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

    def _needed(self) -> Iterator[Path]:
        """Directories of the environments that are locked: declared ones, and those whose lock is cached."""
        for name in (*self.names(), *self.consumers()):
            try:
                yield self._builder.directory(self._named(name, name))
            except HarnessError:
                continue  # not locked, so nothing in the cache is built from its lock
        python = self._template().python if CURRENT in self.names() else ""
        for path in (self.cache / "locks").glob("*.txt") if python else ():
            name = path.stem[:-13]
            lock = locks.load(path, name)
            yield self._builder.directory(Environment(name, name, "pins", lock.digest(), "", python, lock.packages))

    def _cached(self) -> list[tuple[Path, Mapping[str, object]]]:
        return cached.builds(self.cache / "envs")
