"""The versions that help: which `pip install` makes the cell clean again, tried in the bad environment.

The newest release of the one library that helps is found by bisecting its releases. If no single pin helps, the old
versions of all libraries that have to be put back are tried together.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.core.errors import UsageError
from harness.core.text import listed
from harness.core.versions import version_of
from harness.deviation.search import rows
from harness.deviation.search.candidates import Held, plain_versions
from harness.deviation.search.conclusion import Blame
from harness.deviation.search.coupling import LIKELY, Ends
from harness.deviation.search.hunt import MOST_SUSPECTS
from harness.deviation.search.journal import Entry
from harness.deviation.search.turning_point import Line, border
from harness.deviation.search.work import Work
from harness.envs.environment import EnvFailed, Environment
from harness.envs.index import Known

MOST_TRIES = 9
"""How many releases are tried. Eight tries are enough for 256 releases that can all be tested."""
_WHOLE = frozenset({"torch"})
"""Libraries whose releases are too large to try several."""


@dataclass(frozen=True)
class Pin:
    """The versions that help.

    Attributes:
        requirements: for pip; empty if no pin helps.
        verified: what was tried, and what the cell showed; for requirements that were tried.
        also: another requirement that helps by itself → likewise.
        failed: what was tried and does not help → why.
    """

    requirements: tuple[str, ...]
    verified: str
    also: Mapping[str, str]
    failed: Mapping[str, str]

    @property
    def command(self) -> str:
        """`pip install 'transformers<5.9'`; empty if no pin helps."""
        return shlex.join(["pip", "install", *self.requirements]) if self.requirements else ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The answer in words."""
        said = [f"{self.command} helps: {self.verified}"] if self.command else []
        said += [f"{shlex.join(['pip', 'install', one])} helps too: {why}" for one, why in self.also.items()]
        said += [f"{shlex.join(['pip', 'install', *one.split()])} was tried: {why}" for one, why in self.failed.items()]
        if len(self.requirements) > 1:
            said.insert(0, "no single pin helps")
        return tuple(said if self.command else ["no pin that helps was found", *said])

    def data(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "requirements": list(self.requirements), "command": self.command}


def find(work: Work, ends: Ends, found: Blame) -> Pin | None:
    """The versions that help, each tried in the bad environment. None if no library is known to be needed."""
    if not found.causes or found.misfits:
        return None
    search = _Pins(work, ends)
    together = list(dict.fromkeys(package for one in found.causes for package in one.put_right))
    if len(together) > MOST_SUSPECTS:
        return None
    for package in together:
        if (requirement := search.newest(package)) is not None:
            rest = together if len(found.causes) == 1 else ()
            also = {one: why for other in rest if other != package for one, why in search.old([other]).items()}
            return Pin((requirement,), search.verified, also, search.failed)
    if len(together) > 1:
        for requirements, why in search.old(together).items():
            return Pin(tuple(requirements.split()), why, {}, search.failed)
    return Pin((), "", {}, search.failed)


class _Pins:
    """Tries pins in the bad environment."""

    def __init__(self, work: Work, ends: Ends) -> None:
        self.work = work
        self.ends = ends
        versions, overlays = plain_versions(work.bad)
        self.held = Held(f"all else as in {work.bad.name}", versions, overlays, work.bad.python)
        self.failed: dict[str, str] = {}
        self.verified = ""
        self._deviates = False

    def old(self, packages: Sequence[str]) -> dict[str, str]:
        """The old versions of some packages, if they help: `peft==0.6.1 trl==0.8.1` → what was tried."""
        pins = {package: self.ends.version(package, "old") or "" for package in packages}
        if not all(version_of(version) for version in pins.values()):
            return {}
        entry = self._tried([f"{package} {version}" for package, version in pins.items()], lambda: self._with(pins))
        self._deviates = entry.kind in ("bad", "other")
        said = " ".join(f"{package}=={version}" for package, version in pins.items())
        if entry.kind != "good":
            self.failed[said] = entry.shown
            return {}
        return {said: f"the cell is {entry.shown} with {listed(_named(pins))}"}

    def newest(self, package: str) -> str | None:
        """The newest release of a package that helps, as a requirement; None if none does."""
        helps = self.old([package])
        old, new = (version_of(self.ends.version(package, side) or "") for side in ("old", "new"))
        exact = next(iter(helps), None)
        self.verified = helps[exact] if exact else ""
        hopeless = exact is None and self._deviates  # then no release in between is better than the oldest
        if old is None or new is None or old > new or package in _WHOLE or hopeless:
            return exact
        try:
            row = rows.releases_between(
                self._known(package), package, str(old), str(new), self.work.bad.python,
                extracted=self.work.extracts(package),
            )  # fmt: skip
        except (UsageError, EnvFailed) as error:
            self.work.log(f"newer releases of {package} are not tried: {error.found}")
            return exact
        names = [f"{package} {one.version}" for one in row.releases]
        line = Line(names, lambda point: self._with({package: row.releases[point].version}))
        self.work.log(f"looking for the newest {package} that helps: {len(names) - 2} releases between")
        found = border(self.work, line, ("good", "bad"), MOST_TRIES, any_deviation=True)
        before, after = (row.releases[point].version for point in (found.before, found.after))
        if found.before == 0 and exact is None:
            return None
        if found.before > 0:
            self.failed = {}
            self.verified = f"the cell is {line.entries[found.before].shown} with {package} {before}"
        return f"{package}<{after}" if found.exact else f"{package}=={before}"

    def _with(self, pins: Mapping[str, str]) -> Environment:
        """The bad environment with some packages pinned, as an installer would change it."""
        held, environments = self.held, self.work.environments
        likely = {name: held.versions[name] for name in LIKELY if name in held.versions and name not in pins}
        kept = {name: value for name, value in held.versions.items() if name not in pins}
        versions = environments.resolved({**likely, **pins}, kept, held.overlays)
        words = f"{listed(_named(pins))}, {held.words}"
        return environments.of_versions(versions, held.overlays, words, held.python)

    def _known(self, package: str) -> Known:
        releases = self.work.environments.releases
        try:
            return releases.ask(package)
        except EnvFailed:
            if not (known := releases.kept(package)).releases:
                raise
            return known

    def _tried(self, named: Sequence[str], make: Any) -> Entry:
        words = f"{listed(named)}, {self.held.words}"
        self.work.announce(words, "a pin")
        try:
            entry = self.work.trials.outcome(make(), words)
        except EnvFailed as error:
            entry = self.work.trials.untestable(words, words, error)
        self.work.report(entry)
        return entry


def _named(pins: Mapping[str, str]) -> list[str]:
    return [f"{package} {version}" for package, version in pins.items()]
