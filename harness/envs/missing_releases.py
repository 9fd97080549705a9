"""Compares the matrix with the package index: which PEFT releases have no declared environment."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterable, Mapping

from packaging.version import Version

from harness.core.errors import HarnessError
from harness.core.text import clip, enumerated
from harness.envs.declaration import NEWEST, Declaration
from harness.envs.environment import EnvFailed
from harness.envs.environments import CURRENT, Environments
from harness.envs.index import Known, Release

PACKAGE = "peft"
FIRST = Version("0.3")
"""The oldest release in the matrix. Older ones lack features that scenarios need."""
FIX = "peft-regress env add --missing"
_SHOWN = 4


def missing(known: Known, declared: Mapping[str, Declaration]) -> tuple[Release, ...]:
    """The newest patch of each minor release that no environment pins exactly, oldest first.

    Yanked releases and pre-releases do not count.
    """
    newest: dict[tuple[int, int], Release] = {}
    for release in known.releases.values():
        version = Version(release.version)
        if release.yanked or version.is_prerelease or version < FIRST:
            continue
        minor = (version.major, version.minor)
        if minor not in newest or version > Version(newest[minor].version):
            newest[minor] = release
    pinned = {Version(version) for version in _pinned(declared)}
    return tuple(newest[minor] for minor in sorted(newest) if Version(newest[minor].version) not in pinned)


def _pinned(declared: Mapping[str, Declaration]) -> Iterable[str]:
    return (one.exact()[PACKAGE] for one in declared.values() if PACKAGE in one.exact())


def notice(known: Known, declared: Mapping[str, Declaration], newest: str, today: str, why: str = "") -> str:
    """A sentence about what the matrix lacks; empty if it lacks nothing.

    Args:
        newest: the PEFT version of `current`; empty if it does not follow the newest.
        today: a date in ISO format; the sentence names the day of an older answer.
        why: why the index could not be asked now; empty if it was.
    """
    if not known.day:
        return f"could not check whether PEFT has newer releases than the matrix: {why}"
    said = [*_lacking(missing(known, declared)), *_outrun(known, newest)]
    if why and not said:
        return f"could not check whether PEFT has newer releases than the matrix (on {known.day} it had not): {why}"
    if not said:
        return ""
    of_when = f" (according to the index on {known.day}{f'; now: {why}' if why else ''})" if known.day != today else ""
    return f"the matrix is behind the package index: {'; '.join(said)}{of_when}"


def _lacking(found: tuple[Release, ...]) -> list[str]:
    if not found:
        return []
    names = enumerated((f"PEFT {one.version} of {one.day}" for one in reversed(found)), _SHOWN)
    return [f"no environment for {names}; next: {FIX}"]


def _outrun(known: Known, newest: str) -> list[str]:
    latest = known.newest
    if not newest or not latest or Version(newest) >= Version(latest):
        return []
    return [f"{CURRENT} is locked at PEFT {newest}, the newest is {latest}; next: peft-regress env lock {CURRENT}"]


class Lookout:
    """Asks the package index in the background, without delaying the check.

    Args:
        environments: their index is asked, and compared with their declarations.
        limit_s: seconds that the index has for its answer.
        patience_s: `notices` waits at most this many seconds.
    """

    def __init__(self, environments: Environments, *, limit_s: float = 5.0, patience_s: float = 0.5) -> None:
        self._environments = environments
        self._limit_s = limit_s
        self._patience_s = patience_s
        self._why = ""
        self._known: Known | None = None
        self._today = datetime.datetime.now(datetime.UTC).date().isoformat()
        self._started = time.monotonic()
        # a daemon: an index that never answers must not keep the process alive
        self._thread = threading.Thread(target=self._look, name="lookout", daemon=True)
        self._thread.start()

    def notices(self) -> tuple[str, ...]:
        """What the matrix lacks, as far as it is known by now; empty if nothing."""
        left = self._started + self._limit_s - time.monotonic()
        self._thread.join(max(0.0, min(self._patience_s, left)))
        known, why = self._known, self._why
        if known is None:
            known = self._environments.releases.kept(PACKAGE)
            why = why or f"the index did not answer within {time.monotonic() - self._started:.1f} s"
        try:
            said = notice(known, self._environments.declarations(), self._newest(), self._today, why)
        except (HarnessError, ValueError) as error:
            said = f"could not check whether PEFT has newer releases than the matrix: {_short(error)}"
        return (said,) if said else ()

    def _look(self) -> None:
        try:
            known = self._environments.releases.kept(PACKAGE)
            self._known = known if known.day == self._today else self._environments.releases.ask(PACKAGE)
        except Exception as error:  # noqa: BLE001 - no error here may affect the check
            self._why = _short(error)

    def _newest(self) -> str:
        declared = self._environments.declarations().get(CURRENT)
        if declared is None or declared.pins.get(PACKAGE) != NEWEST:
            return ""
        try:
            return self._environments.locked_versions(CURRENT).get(PACKAGE, "")
        except HarnessError:
            return ""  # not locked, or stale: the check reports that itself


def _short(error: Exception) -> str:
    """The error in one short line: the first of what the index answered, if it answered."""
    said = error.tail if isinstance(error, EnvFailed) else ""
    lines = (said or str(error)).strip().splitlines()
    return clip(lines[0] if lines else type(error).__name__, 160)
