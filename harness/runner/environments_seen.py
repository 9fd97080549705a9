"""What a session has learnt of the environments that it met: how they were built, and what their processes said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core.run import EnvironmentReport
from harness.envs.environment import BuiltEnvironment, EnvFailed
from harness.runner.create import evidence
from harness.store.fixtures import Manifest


@dataclass
class Met:
    """Environments by name, but for `built`, which is by specification."""

    built: dict[str, BuiltEnvironment | EnvFailed] = field(default_factory=dict)
    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What a loader's worker said of itself."""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """One of each creator's."""
    failed: dict[str, str] = field(default_factory=dict)
    """The last words of loaders that did not import."""
    roles: dict[str, set[str]] = field(default_factory=dict)

    def pair(self, creator: str, loader: str, manifest: Manifest) -> None:
        """A fixture of the one is replayed by the other."""
        self.manifests[creator] = manifest
        self.roles.setdefault(creator, set()).add("creator")
        self.roles.setdefault(loader, set()).add("loader")

    def reports(self, names: Iterable[str] | None = None) -> tuple[EnvironmentReport, ...]:
        """What is known of all, or of those of these names that were met."""
        wanted = self.roles.keys() if names is None else self.roles.keys() & set(names)
        return tuple(self._report(name) for name in sorted(wanted))

    def not_built(self) -> tuple[EnvironmentReport, ...]:
        """Environments that could not be had, with the installer's last lines."""
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
            found = dict(facts.get("versions") or built.versions)
            report = _with(
                report, versions=found, lock_digest=built.lock_digest, spec=built.spec, kind=built.kind,
                python=built.python_version, facts=evidence(facts) if facts else report.facts,
            )  # fmt: skip
        return _with(report, failed=self.failed[name]) if name in self.failed else report


def _with(report: EnvironmentReport, **fields: Any) -> EnvironmentReport:
    return report.model_copy(update=fields)
