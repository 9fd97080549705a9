"""Tries candidates: builds the environment of each and replays the one cell there."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from harness.core.errors import HarnessError
from harness.core.matrix import CellId
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.deviation.search.candidates import is_outage
from harness.deviation.search.journal import Entry, Journal
from harness.deviation.search.outcome import Deviation, Outcome
from harness.deviation.search.question import Question
from harness.envs.environment import BuiltEnvironment, EnvFailed, Environment
from harness.envs.environments import Environments
from harness.runner.plan import Planned
from harness.runner.session import Session
from harness.runner.workers.process import worker_digest

_STOPS = (Verdict.NO_FIXTURE, Verdict.BAD_FIXTURE, Verdict.NO_DEVICE)
"""What no other candidate would mend."""


class Refused(HarnessError):
    """The question can't be answered as it is asked: an end that is not what it was said to be, flaky ends."""


@dataclass
class Spent:
    """What a search has cost."""

    cells: int = 0
    built: int = 0
    remembered: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started

    def data(self) -> dict[str, float]:
        """For a program."""
        return {
            "seconds": round(self.seconds, 1),
            "environments_built": self.built,
            "cells": self.cells,
            "remembered": self.remembered,
        }


class Trials:
    """Tries environments on one cell, and keeps what came of it. A context manager; leaving it ends all workers.

    Args:
        session: checks cells; closed at the end.
        environments: builds them; those made up are adopted by it.
        journal: what was tried before, and where that is added.
        log: is told each step.
    """

    def __init__(
        self, question: Question, session: Session, environments: Environments, journal: Journal,
        log: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.question = question
        self.spent = Spent()
        self.tried: list[Entry] = []
        self._session = session
        self._environments = environments
        self._journal = journal
        self._log = log
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
        """Where what was tried is kept."""
        return self._journal.path

    @property
    def deviation(self) -> Deviation:
        """What is asked about; known once the bad end was tried."""
        assert self._deviation is not None, "the ends come first"
        return self._deviation

    # -- ends -------------------------------------------------------------------------------------------------------

    def deviates(self, bad: Environment) -> Cell:
        """The bad end, tried twice: from it is known what is asked about.

        Raises:
            Refused: it does not deviate, can't be tested, or two tries disagree.
        """
        (cells,) = self._twice(bad)
        return self._deviating(bad, cells)

    def verify(self, good: Environment, bad: Environment) -> tuple[Cell, Cell]:
        """Both ends, each tried twice.

        Raises:
            Refused: an end is not as it was said to be, can't be tested, or two tries of one disagree.
        """
        sound, deviating = self._twice(good, bad)
        self._deviating(bad, deviating)
        self._refuse_flaky(good, sound)
        outcome = self.deviation.outcome(sound[0])
        if outcome.kind != "good":
            what = "deviates in the same way" if outcome.kind == "bad" else "tells nothing"
            raise Refused(
                f"the good end {what}: {self.question.id.scenario} under {good.name}: {outcome.why}",
                "a good end in which the cell is sound", "name one with --good; `show` tells how the cell deviates",
            )  # fmt: skip
        self._keep(good, "the good end", outcome, sound[0].duration_s)
        return sound[0], deviating[0]

    def _deviating(self, bad: Environment, cells: Sequence[Cell]) -> Cell:
        self._refuse_flaky(bad, cells)
        first = cells[0]
        if not first.verdict.is_deviation:
            raise Refused(
                f"{self.question.id.scenario} by {self.question.id.creator} does not deviate under {bad.name}: "
                f"{first.verdict}" + (f" ({first.reason})" if first.reason else ""),
                "a bad end in which it deviates", "name one with --bad, or check the cell again",
            )  # fmt: skip
        self._deviation = Deviation.of(first)
        self._keep(bad, "the bad end", self._deviation.outcome(first), first.duration_s)
        return first

    def _twice(self, *ends: Environment) -> list[list[Cell]]:
        """Two results of each end; their workers import side by side."""
        for environment in ends:
            self._build(environment)
        pairs = [[self._planned(environment, suffix) for suffix in ("", " again")] for environment in ends]
        self._session.start([cell for pair in pairs for cell in pair])
        found = [[self._told(self._session.result(cell)) for cell in pair] for pair in pairs]
        self.spent.cells += sum(map(len, found))
        return found

    def _refuse_flaky(self, end: Environment, cells: Sequence[Cell]) -> None:
        one, other = cells
        if one.verdict is not other.verdict or Verdict.UNSTABLE in (one.verdict, other.verdict):
            raise Refused(
                f"{self.question.id.scenario} is flaky under {end.name}: {one.verdict}, then {other.verdict}",
                "the same verdict each time", "find out why first: `peft-regress show` tells what disagrees",
            )  # fmt: skip

    # -- candidates -------------------------------------------------------------------------------------------------

    def outcome(self, environment: Environment, words: str) -> Entry:
        """What a candidate says; remembered where it was tried before for the same question.

        Raises:
            HarnessError: something failed that has nothing to do with the candidate: the disk, the network, a fixture.
        """
        if (known := self.known(environment)) is not None:
            self.spent.remembered += known not in self.tried
            self._note(known)
            return known
        begun = time.monotonic()
        before = self.spent.built
        outcome = self._outcome(environment)
        return self._keep(environment, words, outcome, time.monotonic() - begun, self.spent.built > before)

    def untestable(self, key: str, words: str, error: EnvFailed) -> Entry:
        """Keep that a candidate has no environment.

        Raises:
            EnvFailed: it is an outage, which says nothing of the candidate.
        """
        if is_outage(error):
            raise error
        outcome = Outcome("untestable", _short(error))
        return self._add(self._entry(key, words, outcome, 0.0, built=False))

    def ahead(self, environments: Sequence[Environment]) -> None:
        """Build what may be asked for next, and begin the first of it: there is more than one core.

        What fails is told when it is asked for.
        """
        for place, environment in enumerate(environments):
            if environment.name not in self._ahead and not self.known(environment):
                self._ahead[environment.name] = self._builder.submit(self._begin, environment, starts=place == 0)

    def known(self, environment: Environment) -> Entry | None:
        """What was found of a candidate before for this question; None before the question is known."""
        return self._journal.known(self.digest, _key(environment)) if self._deviation else None

    @property
    def digest(self) -> str:
        """Of what is asked: entries of a journal are of no use for another question."""
        if not self._digest:
            store, cell = self._session.store, self.question.id
            fixture = "" if self.question.made else store.manifest(cell.creator, cell.scenario).weights_digest
            said = "|".join([str(cell), fixture, worker_digest(), *self.deviation.main])
            self._digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        return self._digest

    def _outcome(self, environment: Environment) -> Outcome:
        try:
            self._build(environment)
        except EnvFailed as error:
            if is_outage(error):
                raise
            return Outcome("untestable", _short(error))
        cell = self._told(self._session.result(self._planned(environment)))
        self.spent.cells += 1
        return self.deviation.outcome(cell)

    def _told(self, cell: Cell) -> Cell:
        if cell.verdict in _STOPS or (cell.verdict is Verdict.NOT_COMPARABLE and "itself failed" in cell.reason):
            raise Refused(f"{cell.id}: {cell.verdict}: {cell.reason}", "a cell that can be checked", "mend this first")
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

    # -- what was tried ---------------------------------------------------------------------------------------------

    def _keep(
        self, environment: Environment, words: str, outcome: Outcome, seconds: float, built: bool = False
    ) -> Entry:
        return self._add(self._entry(_key(environment), words, outcome, seconds, built=built))

    def _add(self, entry: Entry) -> Entry:
        self._journal.add(entry)
        self._note(entry)
        return entry

    def _entry(self, key: str, words: str, outcome: Outcome, seconds: float, *, built: bool) -> Entry:
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        return Entry(self.digest, key, words, outcome.kind, outcome.why, outcome.verdict, round(seconds, 2), built, day)

    def _note(self, entry: Entry) -> None:
        if entry not in self.tried:
            self.tried.append(entry)


def _key(environment: Environment) -> str:
    """What a candidate is in a journal: its packages, or an interpreter's place."""
    return environment.lock_digest or environment.name


def _short(error: EnvFailed) -> str:
    if error.stage == "resolve":
        return f"no set of packages has {error.name}"
    said = error.tail.strip().splitlines()
    found = error.found.partition("\n")[0].partition(": ")[2] or error.found
    return f"{found}: {said[-1].strip()}" if said else found
