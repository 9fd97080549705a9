"""Which library causes a deviation: tries mixes of two environments until the culprits are known.

Example:
    request = SearchRequest(CellRequest("lokr-alpha-differs@v061:current[cpu]"))
    print(blame(request).sentence)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.matrix import CellId
from harness.core.progress import Log, quiet
from harness.deviation.search import delta, sentence
from harness.deviation.search.coupling import Ends
from harness.deviation.search.delta import Ask, Blame, Candidate, Culprits, Search
from harness.deviation.search.journal import Entry
from harness.deviation.search.outcome import Outcome
from harness.deviation.search.work import SearchRequest, Work, work
from harness.envs.environment import EnvFailed, Environment


@dataclass(frozen=True)
class Answer:
    """Which libraries cause a deviation, and what that conclusion is based on.

    Attributes:
        good: the environment in which the cell is sound, and how it was specified.
        bad: the environment in which the cell deviates, and how it was specified.
        ends: the packages of both.
        found: the sets of culprits.
        tried: all candidates, in order.
        spent: seconds, environments built, cells run, results taken from the journal.
    """

    cell: CellId
    good: tuple[Environment, str]
    bad: tuple[Environment, str]
    ends: Ends
    found: Blame
    tried: tuple[Entry, ...]
    spent: Mapping[str, float]
    journal: Path

    @property
    def sentence(self) -> str:
        """The answer: `peft 0.6.1 → 0.21.2 alone causes it; transformers is innocent`."""
        return sentence.sentence(self.found, self.ends)

    @property
    def notes(self) -> tuple[str, ...]:
        """What limits the answer: packages that had to change together, or could not be tested."""
        return sentence.notes(self.found, self.ends)

    @property
    def culprit(self) -> str:
        """The one package that causes it; empty if there are several or none."""
        sets = self.found.culprits
        return sets[0].packages[0] if len(sets) == 1 and len(sets[0].packages) == 1 else ""

    def data(self) -> dict[str, Any]:
        """The answer as JSON."""
        ends = self.ends
        return {
            "cell": str(self.cell),
            "sentence": self.sentence,
            "notes": list(self.notes),
            "good": {"name": self.good[0].name, "spec": self.good[1]},
            "bad": {"name": self.bad[0].name, "spec": self.bad[1]},
            "differing": {package: [ends.old.get(package), ends.new.get(package)] for package in ends.differing},
            "culprits": [_culprits_data(one, ends) for one in self.found.culprits],
            "complete": self.found.complete,
            "tried": [
                {"words": e.words, "result": e.kind, "why": e.why, "verdict": e.verdict, "seconds": e.seconds}
                for e in self.tried
            ],
            "spent": dict(self.spent),
            "journal": str(self.journal),
        }


def blame(request: SearchRequest, log: Log = quiet) -> Answer:
    """Find the smallest set of version changes between two environments that changes a cell's verdict.

    The answer is also written to `blame/CELL.json` in the reports folder, beside the journal of what was tried. A
    search that was interrupted continues from the journal.

    Raises:
        UsageError: there is no such cell or environment, or the two environments do not differ.
        Refused: an end is not sound or not deviating as requested, or is flaky.
        HarnessError: an environment, the network or the disk failed.
    """
    with work(request, "blame", log=log) as under_way:
        answer = _searched(under_way)
        under_way.keep(answer.data())
        return answer


def _searched(work: Work) -> Answer:
    question, good, bad, trials = work.question, work.good, work.bad, work.trials
    work.log(f"verifying both ends: {question.id.scenario} under {good.name} and {bad.name}")
    ends = work.ends()
    hunt = delta.search(ends)
    ask = next(hunt)
    trials.ahead([work.environments.between(ask.candidate, work.overlays, bad.python)])
    trials.verify(good, bad)
    differing = len(ends.differing)
    work.log(f"{good.name} is sound, {bad.name} deviates ({trials.deviation.words}); {differing} packages differ")
    found = _played(work, hunt, ask)
    return Answer(
        question.id, (good, question.good), (bad, question.bad), ends, found, tuple(trials.tried), trials.spent.data(),
        trials.journal,
    )  # fmt: skip


def _played(work: Work, hunt: Search, ask: Ask) -> Blame:
    """Try each candidate that the search asks for, and send it the outcome."""
    try:
        while True:
            ask = hunt.send(_tried(work, ask))
    except StopIteration as stop:
        found: Blame = stop.value
        return found


def _tried(work: Work, ask: Ask) -> Outcome:
    python, left = work.bad.python, f"at most {ask.left} left"
    try:
        environment = work.environments.between(ask.candidate, work.overlays, python)
    except EnvFailed as error:
        entry = work.trials.untestable(_key(ask.candidate), ask.candidate.words, error)
        work.announce(ask.candidate.words, left)
        work.report(entry)
        return entry.outcome
    if (known := work.trials.known(environment)) is not None and known in work.trials.tried:
        return known.outcome
    work.announce(ask.candidate.words, left)
    work.trials.ahead([work.environments.between(one, work.overlays, python) for one in ask.ahead if one.pins is None])
    entry = work.trials.outcome(environment, ask.candidate.words)
    work.report(entry)
    return entry.outcome


def _key(candidate: Candidate) -> str:
    return " ".join(f"{package}=={version}" for package, version in sorted((candidate.pins or {}).items()))


def _culprits_data(one: Culprits, ends: Ends) -> dict[str, Any]:
    return {
        "packages": {package: [ends.old.get(package), ends.new.get(package)] for package in one.packages},
        "companions": {package: list(along) for package, along in one.companions.items()},
        "sound": {"words": one.sound.words, "versions": dict(one.sound.versions)},
        "bad": {"words": one.bad.words, "versions": dict(one.bad.versions)},
        "still_bad_without": list(one.still_bad_without),
        "tied": dict(one.tied),
    }
