"""Environments that a search composes: a mix of two others, another release of one package, a commit."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError
from harness.deviation.search.coupling import LIKELY, Ends
from harness.deviation.search.delta import Candidate
from harness.envs import lock, missing_releases, source_tree
from harness.envs.declaration import Declaration
from harness.envs.environment import BuiltEnvironment, Consumer, EnvFailed, Environment, Overlay
from harness.envs.environments import Environments
from harness.envs.spec import Git
from harness.worker.files import parse_json

Packages = tuple[tuple[str, str], ...]
"""Packages with versions, sorted."""
_OUTAGE = re.compile(
    r"no space left on device|disk quota exceeded|os error 28\b|error sending request|failed to fetch|dns error|"
    r"connection (?:refused|reset|timed out)|network is unreachable|temporary failure in name resolution|"
    r"operation timed out|request timed out|could not connect|HTTP status server error|read-only file system|"
    r"cannot allocate memory|permission denied",
    re.IGNORECASE,
)
_NEEDS = """
import importlib.metadata, json, re
found = {}
for one in importlib.metadata.distributions():
    if one.metadata["Name"]:
        found.setdefault(re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(), list(one.requires or []))
print("\\n" + json.dumps(found))
"""
_TOOLS = frozenset({"pip", "wheel", "uv"})
"""Packages that a user's own interpreter may have and no lock has."""


def is_outage(error: EnvFailed) -> bool:
    """True if the disk or the network failed, which says nothing about the versions."""
    said = f"{error.found}\n{error.tail}"
    return bool(_OUTAGE.search(said)) and "404 Not Found" not in said


class Candidates(Environments):
    """The declared environments, and those that a search composes."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._made: dict[str, Environment] = {}
        self.consumer: Environment | None = None
        """The consumer's environment that composed ones take after, if the search is about one."""
        self._resolutions: dict[tuple[Packages, Packages], dict[str, str] | EnvFailed] = {}

    def describe(self, spec: str) -> Environment:
        """An environment; a composed one is found by its name."""
        return self._made.get(spec) or super().describe(spec)

    def adopt(self, environment: Environment) -> Environment:
        """Register a composed environment, so that it can be built by its name."""
        return self._made.setdefault(environment.name, environment)

    def between(self, candidate: Candidate, overlays: Mapping[str, Overlay], python: str) -> Environment:
        """The environment of a candidate.

        Args:
            overlays: version, as `plain_versions` spells it → the source tree that it stands for.

        Raises:
            EnvFailed: it cannot be resolved, or the index cannot be reached.
        """
        versions = dict(candidate.versions)
        if candidate.pins is not None:
            versions = self.resolved(candidate.pins, versions, overlays)
        return self.of_versions(versions, overlays, candidate.words, python)

    def of_versions(
        self, versions: Mapping[str, str], overlays: Mapping[str, Overlay], why: str, python: str
    ) -> Environment:
        """An environment with exactly these packages."""
        overlay = next((overlays[version] for version in versions.values() if version in overlays), None)
        digest = lock.digest_of(versions, *([f"tree sha256:{overlay.digest}"] if overlay else []))
        consumer = None
        if self.consumer is not None and self.consumer.consumer is not None:
            consumer, digest = self._release(self.consumer.consumer, versions, f"{digest} {self.consumer.lock_digest}")
        name = f"try-{digest[:10]}"
        made = Environment(
            name, name, "pins", digest, why, python, dict(versions), overlay=overlay, tried_first=False,
            consumer=consumer,
        )  # fmt: skip
        return self.adopt(made)

    def _release(self, consumer: Consumer, versions: Mapping[str, str], digest: str) -> tuple[Consumer, str]:
        """A consumer with the release that these packages have, and a digest of both."""
        if consumer.extract:
            sdist = self.releases.sdist_digest(consumer.package, versions[consumer.package])
            consumer, digest = replace(consumer, sdist=sdist), f"{digest} {sdist}"
        return consumer, hashlib.sha256(digest.encode()).hexdigest()

    def resolved(
        self, pins: Mapping[str, str], preferred: Mapping[str, str], overlays: Mapping[str, Overlay] | None = None
    ) -> dict[str, str]:
        """All packages with some pinned, and the others at their preferred versions where possible.

        Raises:
            EnvFailed: there is no such set of packages, or the index cannot be reached.
        """
        overlays = overlays or {}
        kept = {package: version for package, version in preferred.items() if version not in overlays}
        exact = {package: version for package, version in pins.items() if version not in overlays}
        if "torch" in kept:  # pinned, never preferred: a preference names a build (+cpu), which depends on the machine
            exact.setdefault("torch", kept["torch"])
        for package in exact:
            kept.pop(package, None)
        own = self.consumer.consumer if self.consumer else None
        if own is not None and own.extract:  # it is not installed, so nothing is resolved for it
            version = exact.pop(own.package, None) or kept.pop(own.package)
            found = self._resolved(tuple(sorted(exact.items())), tuple(sorted(kept.items())))
            return {**found, own.package: version}
        found = self._resolved(tuple(sorted(exact.items())), tuple(sorted(kept.items())))
        return found | {package: version for package, version in {**preferred, **pins}.items() if version in overlays}

    def _resolved(self, exact: Packages, kept: Packages) -> dict[str, str]:
        known = self._resolutions
        if (exact, kept) not in known:
            words = ", ".join(f"{package} {version}" for package, version in exact)
            self._log(f"resolving {words}")
            # packages that nothing requires any more are kept: their presence may be what matters
            extra = {package: "present in the environment that this one is made from" for package, _ in kept}
            declared = Declaration(why=words, python=self._template().python, pins=dict(exact), extra=extra)
            try:
                known[exact, kept] = lock.resolve(words, declared, self._uv, dict(kept))
            except EnvFailed as error:
                known[exact, kept] = error
        found = known[exact, kept]
        if isinstance(found, EnvFailed):
            raise found
        return dict(found)

    def commit(self, repository: Path, commit: str) -> Overlay:
        """A commit of a local clone as a source tree. The clone's work tree is not touched.

        Raises:
            EnvFailed: git cannot check it out.
        """
        git = Git(repository.resolve().as_uri(), commit, "")
        tree, full = source_tree.fetch(f"git+{git.url}@{commit}", git, self.cache / "git")
        package, version = source_tree.package_of(tree)
        return Overlay(tree, package, version, source_tree.digest(tree), f"{repository}@{full[:12]}")


@dataclass(frozen=True)
class Held:
    """All other packages as in one environment; those that conflict with the tried version are resolved anew."""

    words: str
    versions: Mapping[str, str]
    overlays: Mapping[str, Overlay]
    python: str

    def environment(self, environments: Candidates, package: str, version: str) -> Environment:
        """The environment with a version of the package.

        Raises:
            EnvFailed: no set of packages contains it, or the index cannot be reached.
        """
        versions = dict(self.versions)
        if versions.get(package) != version:
            pins = {name: versions[name] for name in LIKELY if name in versions and name != package}
            kept = {name: value for name, value in versions.items() if name != package}
            versions = environments.resolved({**pins, package: version}, kept, self.overlays)
        return environments.of_versions(versions, self.overlays, f"{package} {version}, {self.words}", self.python)

    def commit(self, environments: Candidates, overlay: Overlay) -> Environment:
        """The environment with a source tree instead of a release of the package."""
        label = f"{overlay.version or 'unknown'} ({overlay.source})"
        versions = {**self.versions, overlay.package: label}
        return environments.of_versions(
            versions, {**self.overlays, label: overlay}, f"{overlay.source}, {self.words}", self.python
        )


@dataclass(frozen=True)
class PeriodTrue:
    """All other packages as of the release's day, or as in a declared environment that pins that release."""

    words: str = "with the packages of its release day"

    def environment(self, environments: Candidates, package: str, version: str) -> Environment:
        """The environment with a version of the package.

        Raises:
            EnvFailed: it cannot be resolved, or the index cannot be reached.
        """
        for name in self._declared(environments, version) if package == missing_releases.PACKAGE else ():
            try:
                return environments.describe(name)
            except HarnessError:
                continue  # not locked: the release is resolved instead
        return environments.describe(f"{package}=={version}")

    def _declared(self, environments: Candidates, version: str) -> list[str]:
        """The environments that are declared for a release of PEFT; of other packages they have an arbitrary one."""
        fitting = [
            name
            for name, one in environments.declarations().items()
            if one.exact().get(missing_releases.PACKAGE) == version and not (one.on_demand or one.families)
        ]
        return sorted(fitting, key=lambda name: (len(name), name))


def plain_versions(environment: Environment) -> tuple[dict[str, str], dict[str, Overlay]]:
    """An environment's packages without local version parts (`+cpu`), and the source tree that a version stands for."""
    versions = {p: v.partition("+")[0] for p, v in environment.versions.items() if p not in _TOOLS}
    if (overlay := environment.overlay) is None:
        return versions, {}
    label = f"{overlay.version or 'of unknown version'} ({environment.name})"
    return {**versions, overlay.package: label}, {label: overlay}


def ends_of(old: tuple[Mapping[str, str], BuiltEnvironment], new: tuple[Mapping[str, str], BuiltEnvironment]) -> Ends:
    """The packages of two environments, and their requirements."""
    return Ends(old[0], new[0], needs_of(old[1].python), needs_of(new[1].python))


def needs_of(python: Path) -> dict[str, Sequence[str]]:
    """Package → its requirements, from the metadata in an environment.

    Raises:
        EnvFailed: the interpreter does not run.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _NEEDS], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=True, timeout=120,
        )  # fmt: skip
        found: dict[str, Sequence[str]] = parse_json(done.stdout.rstrip().rpartition("\n")[2])
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise EnvFailed(
            str(python), "import", f"its packages cannot be listed: {error}", "a Python", "check that it is one"
        ) from error
    return found
