"""Which library causes a deviation: tries mixes of two environments until the trials show it.

Example:
    request = SearchRequest(CellRequest("lokr-alpha-differs@v061:current[cpu]"))
    print(blame(request).sentence)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.core.matrix import CellId
from harness.core.progress import Log, quiet
from harness.deviation.search import delta, pin, sentence
from harness.deviation.search.conclusion import Blame, Cause
from harness.deviation.search.coupling import Ends
from harness.deviation.search.delta import Ask, Candidate
from harness.deviation.search.hunt import Hunt, Result, hunt
from harness.deviation.search.journal import Entry
from harness.deviation.search.pin import Pin
from harness.deviation.search.work import SearchRequest, Work, work
from harness.envs.environment import EnvFailed, Environment


@dataclass(frozen=True)
class Answer:
    """Which libraries cause a deviation, and what that conclusion is based on.

    Attributes:
        good: the environment in which the cell is clean, and how it was specified.
        bad: the environment in which the cell deviates, and how it was specified.
        ends: the packages of both.
        found: the causes.
        pin: the versions that help; None if they were not searched.
        tried: all candidates, in order.
        spent: seconds, environments built, cells run, results taken from the journal.
    """

    cell: CellId
    good: tuple[Environment, str]
    bad: tuple[Environment, str]
    ends: Ends
    found: Blame
    pin: Pin | None
    tried: tuple[Entry, ...]
    spent: Mapping[str, float]
    journal: Path

    @property
    def sentence(self) -> str:
        """The answer: `peft 0.6.1 → 0.21.2 alone causes it`."""
        return sentence.sentence(self.found, self.ends)

    @property
    def notes(self) -> tuple[str, ...]:
        """What limits the answer: packages that had to change together, or further causes."""
        return sentence.notes(self.found, self.ends)

    @property
    def is_answer(self) -> bool:
        """True if a library is named that the deviation needs."""
        return sentence.is_answer(self.found)

    @property
    def culprit(self) -> str:
        """The one package that causes it; empty if there are several or none."""
        named = {package for one in self.found.causes for package in one.suspects}
        return named.pop() if self.is_answer and len(named) == 1 else ""

    def data(self) -> dict[str, Any]:
        """The answer as JSON."""
        ends = self.ends
        return {
            "cell": str(self.cell),
            "sentence": self.sentence,
            "notes": list(self.notes),
            "pin": self.pin.data() if self.pin else None,
            "good": {"name": self.good[0].name, "spec": self.good[1]},
            "bad": {"name": self.bad[0].name, "spec": self.bad[1]},
            "differing": {package: [ends.old.get(package), ends.new.get(package)] for package in ends.differing},
            "culprits": [_cause_data(one, ends) for one in self.found.causes] if not self.found.misfits else [],
            "complete": self.found.complete,
            "tried": [
                {"words": e.words, "result": e.kind, "why": e.why, "verdict": e.verdict, "seconds": e.seconds}
                for e in self.tried
            ],
            "spent": dict(self.spent),
            "journal": str(self.journal),
        }


def blame(request: SearchRequest, log: Log = quiet, *, pins: bool = True) -> Answer:
    """Find the smallest set of version changes between two environments that changes a cell's verdict.

    The answer is also written to `blame/CELL.json` in the reports folder, beside the journal of what was tried. A
    search that was interrupted continues from the journal.

    Args:
        pins: also find the versions that help, and try them.

    Raises:
        UsageError: there is no such cell or environment, or the two environments do not differ.
        Refused: an end is not clean or not deviating as requested, or is flaky.
        HarnessError: an environment, the network or the disk failed.
    """
    with work(request, "blame", log=log) as under_way:
        answer = _answer(under_way, pins)
        under_way.keep(answer.data())
        return answer


def _answer(work: Work, pins: bool) -> Answer:
    question, good, bad, trials = work.question, work.good, work.bad, work.trials
    work.log(f"verifying both ends: {question.id.scenario} under {good.name} and {bad.name}")
    ends = work.ends()
    if (first := next(delta.search(ends), None)) is not None:
        trials.ahead([work.environments.between(first.candidate, work.overlays, bad.python)])
    clean, deviating = trials.verify(good, bad)
    asked, differing = trials.deviation, len(ends.differing)
    work.log(f"{good.name} is clean, {bad.name} deviates ({asked.words}); {differing} packages differ")
    found = _played(work, hunt(ends, asked, clean.seen, deviating.seen))
    helps = _pin(work, ends, found) if pins else None
    return Answer(
        question.id, (good, question.good), (bad, question.bad), ends, found, helps, tuple(trials.tried),
        trials.spent.data(), trials.journal,
    )  # fmt: skip


def _pin(work: Work, ends: Ends, found: Blame) -> Pin | None:
    """The versions that help. A failure of disk or network here does not cost the answer that is known."""
    work.log(sentence.sentence(found, ends))
    try:
        return pin.find(work, ends, found)
    except EnvFailed as error:
        work.log(f"the search for versions that help was given up: {error.found}")
        return None


def _played(work: Work, search: Hunt) -> Blame:
    """Try each candidate that the search asks for, and send it what that showed."""
    try:
        ask = next(search)
        while True:
            ask = search.send(_tried(work, ask))
    except StopIteration as stop:
        found: Blame = stop.value
        return found


def _tried(work: Work, ask: Ask) -> Result:
    python, left, words = work.bad.python, ask.last or f"at most {ask.left} left", ask.candidate.words
    try:
        environment = work.environments.between(ask.candidate, work.overlays, python)
    except EnvFailed as error:
        entry = work.trials.untestable(_key(ask.candidate), words, error)
        work.announce(words, left)
        work.report(entry)
        return Result(entry.seen, {**ask.candidate.versions, **(ask.candidate.pins or {})})
    if (known := work.trials.tried_before(environment)) is not None:
        return Result(known.seen, environment.versions)
    work.announce(words, left)
    work.trials.ahead([work.environments.between(one, work.overlays, python) for one in ask.ahead if one.pins is None])
    entry = work.trials.outcome(environment, words)
    work.report(entry)
    return Result(entry.seen, environment.versions)


def _key(candidate: Candidate) -> str:
    return " ".join(f"{package}=={version}" for package, version in sorted((candidate.pins or {}).items()))


def _cause_data(one: Cause, ends: Ends) -> dict[str, Any]:
    return {
        "packages": {package: [ends.old.get(package), ends.new.get(package)] for package in one.needed},
        "companions": {package: list(along) for package, along in one.companions.items()},
        "not_known": {package: asdict(unknown) for package, unknown in one.unknown.items()},
        "not_needed": list(one.free),
        "deviation": one.deviation,
        "when_the_one_before_is_put_back": one.instead,
        "clean": {"words": one.clean.words, "versions": dict(one.clean.versions)} if one.clean else None,
        "bad": {"words": one.bad.words, "versions": dict(one.bad.versions)},
    }
