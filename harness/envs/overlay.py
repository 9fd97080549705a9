"""Environments in which a source tree or a release replaces one package of a lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from harness.core.errors import UsageError
from harness.core.progress import Log
from harness.envs import lock, source_tree
from harness.envs import spec as specs
from harness.envs.environment import Environment, Overlay


class Overlays:
    """Describes such environments.

    Args:
        cache: the folder for trees that come from git.
        plain: the default base environment; overlays on it do not name their base.
        sdist_digest: SHA-256 of the sdist of a package's version.
    """

    def __init__(self, cache: Path, log: Log, plain: str, sdist_digest: Callable[[str, str], str]) -> None:
        self._sdist_digest = sdist_digest
        self._cache = cache
        self._log = log
        self._plain = plain
        self._trees: dict[str, tuple[Path, str]] = {}

    def of(self, spec: str, above: specs.Checkout | specs.Git | specs.Pins, base: Environment) -> Environment:
        """The environment that a spec describes.

        Args:
            above: replaces packages of the base. Pinned releases must exist on the index.

        Raises:
            UsageError: it holds no project, or its files cannot be read.
            EnvFailed: it cannot be fetched.
        """
        match above:
            case specs.Checkout(path):
                return self._tree(spec, "checkout", path, str(path), _digest(spec, path), base)
            case specs.Git() as git:
                return self._from_git(spec, git, base)
            case specs.Pins(pins):
                return self._releases(spec, dict(pins), above.name, base)

    def _from_git(self, spec: str, git: specs.Git, base: Environment) -> Environment:
        text = spec.partition(" over ")[0]
        if text not in self._trees:  # one commit for the whole run, even if the branch moves
            self._log(f"fetching {text}")
            self._trees[text] = source_tree.fetch(text, git, self._cache)
        tree, commit = self._trees[text]
        if not specs.is_project(tree):
            raise UsageError(f"{spec!r}: no Python project at {commit[:12]}", "pyproject.toml or setup.py", specs.FORMS)
        return self._tree(spec, "git", tree, f"{git.url}@{commit}", source_tree.digest(tree), base)

    def _tree(self, spec: str, kind: str, tree: Path, source: str, digest: str, base: Environment) -> Environment:
        package, version = source_tree.package_of(tree)
        return replace(
            base,
            name=f"{kind}-{package}-{digest[:8]}{self._over(base)}",
            spec=spec,
            kind=kind,
            why=f"{package} from {source} over {base.name}",
            lock_digest=lock.digest_of(base.versions, f"{package} @ tree sha256:{digest}"),
            versions={**base.versions, **({package: version} if version else {})},
            overlay=Overlay(tree, package, version, digest, source, base),
            tried_first=False,  # a checkout is built often, and a worker imports it at once
        )

    def _releases(self, spec: str, pins: Mapping[str, str], name: str, base: Environment) -> Environment:
        versions = {**base.versions, **pins}
        consumer, more = base.consumer, list[str]()
        if consumer and consumer.extract:
            digest = self._sdist_digest(consumer.package, versions[consumer.package])
            consumer, more = replace(consumer, sdist=digest), [f"{consumer.package} sdist {digest}"]
        if consumer:
            more.append(f"over {base.lock_digest}")  # its driver counts too
        return replace(
            base,
            consumer=consumer,
            name=f"{name}-over-{base.name}",
            spec=spec,
            kind="pins",
            why=f"{', '.join(f'{package} {version}' for package, version in pins.items())} over {base.name}",
            lock_digest=lock.digest_of(versions, *more),
            versions=versions,
            on_demand=False,
        )

    def _over(self, base: Environment) -> str:
        return "" if base.name == self._plain else f"-over-{base.name}"


def _digest(spec: str, tree: Path) -> str:
    try:
        return source_tree.digest(tree)
    except OSError as error:
        raise UsageError(
            f"{spec!r}: {error}", "a checkout whose files can be read", "check their permissions"
        ) from error
