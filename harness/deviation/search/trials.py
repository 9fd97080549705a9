"""Tries candidates: builds the environment of each and replays the cell in it."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from harness.core.errors import HarnessError
from harness.core.matrix import CellId
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.deviation.search.candidates import is_outage
from harness.deviation.search.journal import Entry, Journal
from harness.deviation.search.outcome import Deviation, Outcome, Seen
from harness.deviation.search.question import Question
from harness.envs.environment import BuiltEnvironment, EnvFailed, Environment
from harness.envs.environments import Environments
from harness.judge import cell_result
from harness.runner.plan import Planned
from harness.runner.session import Session
from harness.runner.workers.process import worker_digest

_STOPS = (Verdict.NO_FIXTURE, Verdict.BAD_FIXTURE, Verdict.NO_DEVICE)
"""Verdicts that no other candidate would change."""


class Refused(HarnessError):
    """The question cannot be answered: an end is not what it should be, or is flaky."""


@dataclass
class Spent:
    """The cost of a search."""

    cells: int = 0
    built: int = 0
    remembered: int = 0
    started: float = field(default_factory=time.monotonic)

    def data(self) -> dict[str, float]:
        """As JSON."""
        seconds = round(time.monotonic() - self.started, 1)
        return {
            "seconds": seconds, "environments_built": self.built, "cells": self.cells, "remembered": self.remembered,
        }  # fmt: skip


class Trials:
    """Tries environments on one cell and records the outcomes. A context manager; leaving it ends all workers.

    Args:
        session: checks the cells; it is closed at the end.
        environments: builds the candidates.
        journal: outcomes of earlier searches; new outcomes are appended.
    """

    def __init__(self, question: Question, session: Session, environments: Environments, journal: Journal) -> None:
        self.question = question
        self.spent = Spent()
        self.tried: list[Entry] = []
        self.reused: set[str] = set()
        """The candidates whose results the journal had."""
        self._session = session
        self._environments = environments
        self._journal = journal
        self._deviation: Deviation | None = None
        self._builder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._ahead: dict[str, Future[None]] = {}
        self._digest = ""

    def __enter__(self) -> Trials:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._builder.shutdown(wait=False, cancel_futures=True)
        with self._session:
            self._session.cancel()
        self._builder.shutdown(wait=True, cancel_futures=True)

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self._journal.path

    @property
    def deviation(self) -> Deviation:
        """The deviation in question. Known only after the bad end was tried."""
        assert self._deviation is not None, "try the bad end first"
        return self._deviation

    # -- ends -------------------------------------------------------------------------------------------------------

    def deviates(self, bad: Environment) -> Entry:
        """Try the bad end twice; its main finding becomes the deviation in question.

        Raises:
            Refused: it does not deviate, cannot be tested, or the two tries disagree.
        """
        (seen,) = self._ends({"the bad end": bad})
        entry = self._deviating(bad, seen)
        self._deviation = self.deviation.accepting_lesser()
        return entry

    def verify(self, good: Environment, bad: Environment) -> tuple[Entry, Entry]:
        """Try both ends, each twice. An end that the journal has is not tried again.

        Raises:
            Refused: an end is not what it should be, cannot be tested, or two tries of it disagree.
        """
        clean, deviating = self._ends({"the good end": good, "the bad end": bad})
        self._deviating(bad, deviating)
        if not self.deviation.leaves(clean):
            outcome = self.deviation.outcome(clean)
            what = {"bad": "deviates in the same way", "other": "deviates otherwise"}.get(outcome.kind, "has no result")
            raise Refused(
                f"the good end {what}: {self.question.id.scenario} under {good.name}: {outcome.why}",
                "a good end in which the cell does not deviate",
                "name another with --good; `peft-regress show` says how the cell deviates",
            )  # fmt: skip
        self._deviation = self.deviation.accepting(clean)
        return self._judged_end(good), self._judged_end(bad)

    def _deviating(self, bad: Environment, seen: Seen) -> Entry:
        if not seen.deviates:
            raise Refused(
                f"{self.question.id.scenario} by {self.question.id.creator} does not deviate under {bad.name}: "
                f"{seen.words}",
                "a bad end in which it deviates", "name another with --bad, or check the cell again",
            )  # fmt: skip
        self._deviation = Deviation.of(seen)
        return self._judged_end(bad)

    def _judged_end(self, end: Environment) -> Entry:
        entry = self.known(end)
        assert entry is not None, f"{end.name} was tried"
        self._note(entry)
        return entry

    def _ends(self, ends: Mapping[str, Environment]) -> list[Seen]:
        """What the ends show. Those that the journal lacks are tried; so is an interpreter, which may have changed."""
        found: dict[str, Seen] = {}
        for words, one in ends.items():
            entry = self._journal.known(self.digest, _key(one))
            if entry and entry.times > 1 and one.interpreter is None:
                found[words] = entry.seen
        self.spent.remembered += len(found)
        missing = {words: one for words, one in ends.items() if words not in found}
        for (words, one), cells in zip(missing.items(), self._twice(*missing.values()), strict=True):
            self._refuse_flaky(one, cells)
            found[words] = Seen.of(cells[0])
            entry = self._entry(_key(one), words, found[words], cells[0].duration_s, built=False)
            self._journal.add(replace(entry, times=2))
        return [found[words] for words in ends]

    def _twice(self, *ends: Environment) -> list[list[Cell]]:
        """Two results for each end. Their workers start in parallel."""
        if not ends:
            return []
        for environment in ends:
            self._build(environment)
        pairs = [[self._planned(environment, suffix) for suffix in ("", " again")] for environment in ends]
        self._session.start([cell for pair in pairs for cell in pair])
        found = [[self._checked(self._session.result(cell)) for cell in pair] for pair in pairs]
        self.spent.cells += sum(map(len, found))
        return found

    def _refuse_flaky(self, end: Environment, cells: Sequence[Cell]) -> None:
        one, other = cells
        if one.verdict is not other.verdict or Verdict.UNSTABLE in (one.verdict, other.verdict):
            raise Refused(
                f"{self.question.id.scenario} is flaky under {end.name}: {one.verdict}, then {other.verdict}",
                "the same verdict each time", "find the cause first: `peft-regress show` says what disagrees",
            )  # fmt: skip

    # -- candidates -------------------------------------------------------------------------------------------------

    def outcome(self, environment: Environment, words: str) -> Entry:
        """Try a candidate; the journal's outcome is reused if there is one for the same question.

        Raises:
            HarnessError: the disk, the network or the fixture failed, which says nothing about the candidate.
        """
        if (known := self.known(environment)) is not None:
            self.spent.remembered += self.tried_before(environment) is None
            self.reused.add(known.environment)
            self._note(known)
            return known
        begun = time.monotonic()
        before = self.spent.built
        seen = self._seen(environment)
        seconds, built = time.monotonic() - begun, self.spent.built > before
        return self._add(self._entry(_key(environment), words, seen, seconds, built=built))

    def untestable(self, key: str, words: str, error: EnvFailed) -> Entry:
        """Record that a candidate's environment cannot be resolved.

        Raises:
            EnvFailed: the disk or the network failed, which says nothing about the candidate.
        """
        if is_outage(error):
            raise error
        return self._add(self._entry(key, words, Seen.untestable(_short(error)), 0.0, built=False))

    def ahead(self, environments: Sequence[Environment]) -> None:
        """Build environments that may be needed next, in the background, and start a worker in the first of them.

        A failure is reported when the environment is needed.
        """
        for place, environment in enumerate(environments):
            if environment.name not in self._ahead and not self.known(environment):
                self._ahead[environment.name] = self._builder.submit(self._begin, environment, starts=place == 0)

    def tried_before(self, environment: Environment) -> Entry | None:
        """The entry of a candidate that this search has tried already; None if it has not."""
        return next((one for one in self.tried if one.environment == _key(environment)), None)

    def known(self, environment: Environment) -> Entry | None:
        """The journal's entry of a candidate; None if there is none, or before the bad end was tried."""
        entry = self._journal.known(self.digest, _key(environment)) if self._deviation else None
        return self._judged(entry) if entry else None

    @property
    def digest(self) -> str:
        """Digest of the question. A journal's entries for another question are ignored."""
        if not self._digest:
            store, cell = self._session.store, self.question.id
            fixture = "" if self.question.made else store.manifest(cell.creator, cell.scenario).weights_digest
            self._digest = hashlib.sha256(f"{cell}|{fixture}|{worker_digest()}".encode()).hexdigest()[:16]
        return self._digest

    def _seen(self, environment: Environment) -> Seen:
        try:
            self._build(environment)
        except EnvFailed as error:
            if is_outage(error):
                raise
            return Seen.untestable(_short(error))
        cell = self._checked(self._session.result(self._planned(environment)))
        self.spent.cells += 1
        return Seen.of(cell)

    def _checked(self, cell: Cell) -> Cell:
        if cell.verdict in _STOPS or cell_result.is_own_failure(cell):
            raise Refused(f"{cell.id}: {cell.verdict}: {cell.reason}", "a cell that can be checked", "fix this first")
        return cell

    def _planned(self, environment: Environment, suffix: str = "") -> Planned:
        cell = self.question.id
        identity = CellId(cell.scenario, cell.creator, f"{environment.name}{suffix}", cell.device, cell.settings)
        return Planned(identity, self.question.declared, self.question.creator, environment.spec)

    def _build(self, environment: Environment) -> BuiltEnvironment:
        if (future := self._ahead.pop(environment.name, None)) is not None and not future.cancel():
            future.result()
        with self._counted(environment):
            return self._environments.build(environment.spec)

    def _begin(self, environment: Environment, *, starts: bool) -> None:
        with contextlib.suppress(HarnessError, RuntimeError):  # RuntimeError: the session ends
            with self._counted(environment):
                self._environments.build(environment.spec)
            if starts:
                self._session.start([self._planned(environment)])

    @contextlib.contextmanager
    def _counted(self, environment: Environment) -> Iterator[None]:
        was_there = self._environments.is_built(environment)
        yield
        self.spent.built += not was_there

    # -- the record -------------------------------------------------------------------------------------------------

    def _add(self, entry: Entry) -> Entry:
        self._journal.add(entry)
        self._note(entry)
        return entry

    def _entry(self, key: str, words: str, seen: Seen, seconds: float, *, built: bool) -> Entry:
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        outcome = self.deviation.outcome(seen) if self._deviation else Outcome("untestable", seen.words, seen.verdict)
        return Entry(
            self.digest, key, words, outcome.kind, outcome.why, outcome.verdict, round(seconds, 2), built, seen, day
        )  # fmt: skip

    def _judged(self, entry: Entry) -> Entry:
        """An entry, judged by the deviation in question."""
        outcome = self.deviation.outcome(entry.seen)
        return replace(entry, kind=outcome.kind, why=outcome.why, verdict=outcome.verdict)

    def _note(self, entry: Entry) -> None:
        if all(entry.environment != one.environment for one in self.tried):
            self.tried.append(entry)


def _key(environment: Environment) -> str:
    """A candidate's key in a journal: its packages, or the path of an interpreter."""
    return environment.lock_digest or environment.name


def _short(error: EnvFailed) -> str:
    if error.stage == "resolve":
        return f"no set of packages has {error.name}"
    said = error.tail.strip().splitlines()
    found = error.found.partition("\n")[0].partition(": ")[2] or error.found
    return f"{found}: {said[-1].strip()}" if said else found
