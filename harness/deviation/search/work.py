"""What `blame` and `bisect` share: the request, the workers that try candidates, and the files of results."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError, UsageError
from harness.core.files import must_take_files, write_atomically
from harness.core.progress import Log, quiet
from harness.core.scratch import scratch_folder
from harness.core.text import many
from harness.deviation import one_cell
from harness.deviation.one_cell import CellRequest
from harness.deviation.search import question as questions
from harness.deviation.search.candidates import Candidates, ends_of, plain_versions
from harness.deviation.search.coupling import Ends
from harness.deviation.search.journal import Entry, Journal
from harness.deviation.search.question import Question
from harness.deviation.search.trials import Trials
from harness.envs.environment import Environment, Overlay
from harness.runner.how import How
from harness.runner.session import Session
from harness.store.fixtures import Store
from harness.worker.files import read_json


@dataclass(frozen=True)
class SearchRequest:
    """A deviation to explain, and two environments between which the verdict changes.

    Attributes:
        about: the cell. It need not be in a run if `about.cell` is a whole id.
        sound_in: specification of an environment in which the cell is clean; default: the creator's.
        deviates_in: specification of an environment in which the cell deviates; default: the loader's.
        journal: where each candidate's result is appended; default: beside the result.
        replay: a journal whose results are used instead of trying the candidates.
        anew: ignore what the journal already has.
    """

    about: CellRequest
    sound_in: str = ""
    deviates_in: str = ""
    journal: Path | None = None
    replay: Path | None = None
    anew: bool = False


@dataclass
class Work:
    """A search in progress.

    Attributes:
        overlays: version → the source tree that it stands for, if an end is a checkout.
        file: where the result is written.
    """

    request: SearchRequest
    question: Question
    environments: Candidates
    trials: Trials
    good: Environment
    bad: Environment
    overlays: dict[str, Overlay]
    file: Path
    log: Log
    number: int = 0

    def ends(self) -> Ends:
        """The packages of both ends and what they require. Builds both environments."""
        good, bad = (self.environments.build(one.spec) for one in (self.good, self.bad))
        old, overlays = plain_versions(self.good)
        new, more = plain_versions(self.bad)
        self.overlays |= overlays | more
        return ends_of((old, good), (new, bad))

    def extracts(self, package: str) -> bool:
        """True for a consumer's package that is not installed: its releases need an sdist, and no wheel."""
        consumer = self.bad.consumer
        return consumer is not None and bool(consumer.extract) and consumer.package == package

    def announce(self, words: str, left: str) -> None:
        """Log which candidate is tried next."""
        self.number += 1
        self.log(f"candidate {self.number} ({left}): {words}")

    def report(self, entry: Entry) -> None:
        """Log the result of a candidate."""
        reused = entry.environment in self.trials.reused
        self.log(f"  {entry.shown}, {'from the journal' if reused else f'{entry.seconds:.1f} s'}")

    def keep(self, data: dict[str, Any]) -> None:
        """Write the result beside its journal."""
        write_atomically(self.file, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())

    def blamed(self) -> list[dict[str, Any]]:
        """The culprits that `blame` found for this cell before; none if it did not run."""
        try:
            found = read_json(self.file.parent.parent / "blame" / f"{self.question.file_stem}.json", links=True)
            return list(found.get("culprits", []))
        except (OSError, ValueError, AttributeError):
            return []


@contextlib.contextmanager
def work(request: SearchRequest, command: str, suffix: str = "", log: Log = quiet) -> Iterator[Work]:
    """Prepare a search, and end its workers when it is over.

    Args:
        command: `blame` or `bisect`: the folder of results within the reports folder.
        suffix: appended to the name of the result's file.

    Raises:
        UsageError: there is no such cell or environment, or the two environments do not differ.
        HarnessError: an end cannot be resolved, or the disk is full.
    """
    environments = request.about.places.environments_as(Candidates, log)
    request = replace(request, about=_completed(request, environments))
    about = request.about
    question = _question(request, environments)
    good, bad = environments.describe(question.good), environments.describe(question.bad)
    environments.consumer = bad if bad.consumer else None
    if (good.consumer is None) != (bad.consumer is None):
        raise UsageError(
            f"{question.good} and {question.bad} are no releases of one consumer", "two ends that read the same way",
            f"for example --good-env '{(good if good.consumer else bad).spec.partition('==')[0]}==VERSION'",
        )  # fmt: skip
    for end in (good, bad):
        if end.kind == "lock":
            log(f"{end.name}: {end.why}")
    if good.lock_digest and good.lock_digest == bad.lock_digest:
        raise UsageError(
            f"{question.good} and {question.bad} are the same environment",
            "two environments that differ",
            "name others with --good, --bad",
        )
    file = about.places.reports_folder / command / f"{question.file_stem}{suffix}.json"
    must_take_files(file.parent)
    own = file.with_name(f"{question.file_stem}.jsonl")
    journal = Journal(request.journal or own, request.replay, anew=request.anew)
    with _scratch(command) as scratch:
        store = Store(scratch / "fixtures", origin="created") if question.made else about.places.store()
        session = Session(
            environments, store, scratch,
            How(creating=question.made, share=False, forward=True, handler=about.worker_handler), log=quiet,
        )  # fmt: skip
        with Trials(question, session, environments, journal) as trials:
            yield Work(request, question, environments, trials, good, bad, {}, file, log)


def _completed(request: SearchRequest, environments: Candidates) -> CellRequest:
    """The cell: `scenario@creator` is enough where both ends are given, and the scenario where one creator has it."""
    about, text = request.about, request.about.cell
    if not (request.sound_in and request.deviates_in) or ":" in text or about.run:
        return about
    scenario, _, creator = text.partition("@")
    if not creator:
        store = about.places.store()
        creators = [name for name in store.creators() if store.has(name, scenario)]
        if not creators:
            return about
        if len(creators) > 1:
            raise UsageError(
                f"{scenario!r} was saved by {many(len(creators), 'creator')}",
                f"one of {', '.join(creators[:6])}, …", f"for example '{scenario}@{creators[0]}'",
            )  # fmt: skip
        creator = creators[0]
    bad = environments.adopt(environments.describe(request.deviates_in))
    return replace(about, cell=f"{scenario}@{creator}:{bad.name}[cpu]")


def _question(request: SearchRequest, environments: Candidates) -> Question:
    located = one_cell.locate(request.about, environments)
    cell, planned = located.cell, located.planned
    made = cell is not None and cell.fixture_origin == "created"
    made = made and not request.about.places.store(required=False).has(planned.id.creator, planned.id.scenario)
    return questions.about(planned, request.sound_in, request.deviates_in, made=made)


@contextlib.contextmanager
def _scratch(command: str) -> Iterator[Path]:
    """A temporary folder for replays; a disk that is full becomes an error with advice."""
    try:
        with scratch_folder(command) as folder:
            yield folder
    except OSError as error:
        raise HarnessError(
            f"{error.filename or tempfile.gettempdir()}: {error.strerror or error}",
            "writable places for temporary files and for the journal, with a few free megabytes",
            "free some space, or choose other places with TMPDIR and --reports; then run the same command to continue",
        ) from error
