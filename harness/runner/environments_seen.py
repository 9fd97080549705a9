"""What a session knows of its environments: how they were built, and what their workers said of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core.run import EnvironmentReport
from harness.envs.environment import BuiltEnvironment, EnvFailed
from harness.judge import cell_result
from harness.runner.create import evidence
from harness.runner.workers.gpus import WorkerPool
from harness.runner.workers.pool import WorkerFailed
from harness.store.manifest import Manifest


@dataclass
class EnvironmentsSeen:
    """Environments by name; `built` is by specification."""

    built: dict[str, BuiltEnvironment | EnvFailed] = field(default_factory=dict)
    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each loader's worker said of itself."""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """One fixture's manifest of each creator."""
    failed: dict[str, str] = field(default_factory=dict)
    """The last lines of loaders that did not import."""
    roles: dict[str, set[str]] = field(default_factory=dict)

    def pair(self, creator: str, loader: str, manifest: Manifest) -> None:
        """Record that a loader replays a fixture of a creator."""
        self.manifests[creator] = manifest
        self.roles.setdefault(creator, set()).add("creator")
        self.roles.setdefault(loader, set()).add("loader")

    def facts_of(self, loader: str, pool: WorkerPool) -> Mapping[str, Any]:
        """What a loader's worker says of itself. Kept, so that a report need not wait for one that still imports.

        Raises:
            WorkerFailed: it does not start or does not import.
        """
        try:
            self.facts[loader] = pool.facts()
        except WorkerFailed as error:
            self.failed[loader] = cell_result.last_words(error) or str(error)
            raise
        return self.facts[loader]

    def recall(self, loader: str, facts: Mapping[str, Any]) -> None:
        """Take over what a loader's worker said of itself in an earlier run."""
        if facts:
            self.facts.setdefault(loader, facts)

    def reports(self, names: Iterable[str] | None = None) -> tuple[EnvironmentReport, ...]:
        """Reports on all environments, or on those of these names that were used."""
        wanted = self.roles.keys() if names is None else self.roles.keys() & set(names)
        return tuple(self._report(name) for name in sorted(wanted))

    def not_built(self) -> tuple[EnvironmentReport, ...]:
        """Reports on environments that could not be built, with the installer's last lines."""
        return tuple(
            EnvironmentReport(name=error.name, spec=spec, role=("loader",), failed=error.tail or str(error))
            for spec, error in self.built.items()
            if isinstance(error, EnvFailed)
        )

    def _report(self, name: str) -> EnvironmentReport:
        roles = tuple(sorted(self.roles[name]))
        built = next((b for b in self.built.values() if not isinstance(b, EnvFailed) and b.name == name), None)
        facts = self.facts.get(name, {})
        report = EnvironmentReport(name=name, role=roles)
        if manifest := self.manifests.get(name):
            report = _with(
                report, versions=manifest.versions, lock_digest=manifest.lock_digest, facts=manifest.facts,
                python=str(manifest.facts.get("python", "")), kind="fixture",
            )  # fmt: skip
        if built is not None:
            # a consumer's worker knows no version of what is not installed
            found = dict((facts.get("versions") if built.consumer is None else None) or built.versions)
            report = _with(
                report, versions=found, lock_digest=built.lock_digest, spec=built.spec, kind=built.kind,
                python=built.python_version, facts=evidence(facts) if facts else report.facts,
            )  # fmt: skip
        return _with(report, failed=self.failed[name]) if name in self.failed else report


def _with(report: EnvironmentReport, **fields: Any) -> EnvironmentReport:
    return report.model_copy(update=fields)
