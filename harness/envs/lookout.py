"""Asks the package index in the background whether it has newer releases than the matrix."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Mapping

from harness.core.errors import HarnessError
from harness.core.text import clip
from harness.envs import missing_releases, newer_releases
from harness.envs.declaration import Declaration
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.envs.index import Known
from harness.envs.newer_releases import Following

_COULD_NOT = "could not check whether the package index has newer releases than the matrix"


def notice(
    known: Mapping[str, Known], declared: Mapping[str, Declaration], locked: list[Following], today: str, why: str = ""
) -> str:
    """A sentence about what the matrix lacks; empty if it lacks nothing.

    Args:
        known: the index's answers by package.
        locked: the environments that follow the newest releases.
        today: a date in ISO format; the sentence names the day of an older answer.
        why: why the index could not be asked now; empty if it was.
    """
    if not known:
        return f"{_COULD_NOT}: {why}"
    oldest = min(one.day for one in known.values())
    said = [*missing_releases.lacking(known, declared), *newer_releases.outrun(known, locked)]
    if not said:
        return f"{_COULD_NOT} (on {oldest} it had none): {why}" if why else ""
    of_when = f" (according to the index on {oldest}{f'; now: {why}' if why else ''})" if oldest != today else ""
    return f"the matrix is behind the package index: {'; '.join(said)}{of_when}"


class Lookout:
    """Asks the package index in the background, without delaying the check. Answers are kept for the day.

    Args:
        environments: their index is asked, and compared with their declarations and locks.
        limit_s: seconds that the index has for its answers.
        patience_s: `notices` waits at most this many seconds.
    """

    def __init__(self, environments: Environments, *, limit_s: float = 5.0, patience_s: float = 0.5) -> None:
        self._environments = environments
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._why = ""
        self._known: dict[str, Known] = {}
        self._following: list[Following] | None = None
        self._today = datetime.datetime.now(datetime.UTC).date().isoformat()
        self._started = time.monotonic()
        # a daemon: an index that never answers must not keep the process alive
        self._thread = threading.Thread(target=self._look, name="lookout", daemon=True)
        self._thread.start()

    def notices(self) -> tuple[str, ...]:
        """What the matrix lacks, as far as it is known by now; empty if nothing."""
        left = self._started + self._limit_s - time.monotonic()
        self._thread.join(max(0.0, min(self._patience_s, left)))
        try:
            said = self._said()
        except (HarnessError, ValueError) as error:
            said = f"{_COULD_NOT}: {_short(error)}"
        return (said,) if said else ()

    def _said(self) -> str:
        known, why, following = dict(self._known), self._why, self._following or []
        silent = [package for package in _packages(self._environments, following) if package not in known]
        if missing_releases.PACKAGE in silent and not why:
            why = f"the index did not answer within {time.monotonic() - self._started:.1f} s"
        kept = {package: self._environments.releases.kept(package) for package in silent}
        known |= {package: one for package, one in kept.items() if one.day}
        return notice(known, self._environments.declarations(), following, self._today, why)

    def _look(self) -> None:
        try:
            series = _packages(self._environments, [])  # first, because they need no lock to be read
            for package in series:
                self._ask(package)
            self._following = newer_releases.following(self._environments)
            for package in _packages(self._environments, self._following)[len(series) :]:
                self._ask(package)
        except Exception as error:  # noqa: BLE001 - no error here may affect the check
            self._why = self._why or _short(error)

    def _ask(self, package: str) -> None:
        try:
            known = self._environments.releases.kept(package)
            self._known[package] = known if known.day == self._today else self._environments.releases.ask(package)
        except Exception as error:  # noqa: BLE001 - the other packages are asked about all the same
            self._why = self._why or _short(error)


def _packages(environments: Environments, following: list[Following]) -> list[str]:
    """The packages to ask about: PEFT, and those that the declared environments pin or follow."""
    pinned = {package for declared in environments.declarations().values() for package in declared.exact()}
    series = [one for one in missing_releases.SERIES if one == missing_releases.PACKAGE or one in pinned]
    return list(dict.fromkeys([*series, *(package for one in following for package in one.versions)]))


def _short(error: Exception) -> str:
    """The error in one short line: the first of what the index answered, if it answered."""
    said = error.tail if isinstance(error, EnvFailed) else ""
    lines = (said or str(error)).strip().splitlines()
    return clip(lines[0] if lines else type(error).__name__, 160)
