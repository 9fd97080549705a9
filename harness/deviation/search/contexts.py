"""The packages around the one that is bisected: held as they are in an environment, or those of each release's time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.core.errors import HarnessError
from harness.deviation.search.candidates import Candidates
from harness.deviation.search.coupling import LIKELY
from harness.envs import missing_releases
from harness.envs.environment import Environment, Overlay

PERIOD_TRUE = "period-true"


@dataclass(frozen=True)
class Held:
    """All other packages as they are somewhere; what can't stay so with a version is resolved around it."""

    words: str
    versions: Mapping[str, str]
    overlays: Mapping[str, Overlay]
    python: str

    def environment(self, environments: Candidates, package: str, version: str) -> Environment:
        """The environment with a version of the package in it.

        Raises:
            EnvFailed: no set of packages has it, or the registry can't be reached.
        """
        versions = dict(self.versions)
        if versions.get(package) != version:
            pins = {name: versions[name] for name in LIKELY if name in versions and name != package}
            kept = {name: value for name, value in versions.items() if name != package}
            versions = environments.resolved({**pins, package: version}, kept, self.overlays)
        return environments.of_versions(versions, self.overlays, f"{package} {version}, {self.words}", self.python)

    def commit(self, environments: Candidates, overlay: Overlay) -> Environment:
        """The environment with a source tree in place of the package."""
        label = f"{overlay.version or 'unknown'} ({overlay.source})"
        versions = {**self.versions, overlay.package: label}
        return environments.of_versions(
            versions, {**self.overlays, label: overlay}, f"{overlay.source}, {self.words}", self.python
        )


@dataclass(frozen=True)
class PeriodTrue:
    """All other packages as of the day of the release; of a declared environment where one pins just that release."""

    words: str = "with the packages of its time"

    def environment(self, environments: Candidates, package: str, version: str) -> Environment:
        """The environment with a version of the package in it.

        Raises:
            EnvFailed: nothing resolves, or the registry can't be reached.
        """
        declared = environments.declarations()
        fitting = [
            name
            for name, one in declared.items()
            if package
            == missing_releases.PACKAGE  # which a declared environment is about; of others it has just some release
            and one.exact().get(package) == version
            and not (one.on_demand or one.families)
        ]
        for name in sorted(fitting, key=lambda name: (len(name), name)):
            try:
                return environments.describe(name)
            except HarnessError:
                continue  # not locked: its own release's pins are resolved instead
        return environments.describe(f"{package}=={version}")
