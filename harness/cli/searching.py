"""What `blame` and `bisect` share: the question, the session that tries candidates, and how they tell of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import common, one_cell
from harness.core.errors import HarnessError, UsageError
from harness.core.files import write_atomically
from harness.deviation.search import question as questions
from harness.deviation.search.candidates import Candidates, ends_of, plain_versions
from harness.deviation.search.coupling import Ends
from harness.deviation.search.journal import Entry, Journal
from harness.deviation.search.question import Question
from harness.deviation.search.trials import Trials
from harness.envs.environment import Environment, Overlay
from harness.report import terminal
from harness.runner import plan
from harness.runner.session import Session
from harness.store.fixtures import Store


@dataclass
class Work:
    """A search under way.

    Attributes:
        overlays: version → the source tree that stands for it, where an end is a checkout.
        file: where its result goes; the journal lies beside it.
    """

    arguments: argparse.Namespace
    question: Question
    environments: Candidates
    trials: Trials
    good: Environment
    bad: Environment
    overlays: dict[str, Overlay]
    file: Path
    number: int = 0

    def ends(self) -> Ends:
        """What the two ends have, and what their packages require; both are built."""
        good, bad = (self.environments.build(one.spec) for one in (self.good, self.bad))
        old, overlays = plain_versions(self.good)
        new, more = plain_versions(self.bad)
        self.overlays |= overlays | more
        return ends_of((old, good), (new, bad))

    def tell(self, words: str, left: str) -> None:
        """Say which candidate is tried now."""
        self.number += 1
        if not self.arguments.quiet:
            common.say(f"candidate {self.number} ({left}): {words}")

    def told(self, entry: Entry) -> None:
        """Say what came of it."""
        if not self.arguments.quiet:
            common.say(f"  {shown(entry)}, {entry.seconds:.1f} s")


WORDS = {"good": "sound", "bad": "deviates", "other": "deviates otherwise", "untestable": "untestable"}


def shown(one: Entry) -> str:
    """What came of a candidate, for a person."""
    why = one.why.removeprefix("deviates otherwise: ") if one.kind == "other" else one.why
    return WORDS[one.kind] + (f" ({why})" if why else "")


@contextlib.contextmanager
def work(arguments: argparse.Namespace, command: str, suffix: str = "") -> Iterator[Work]:
    """Everything that a search needs, and its end.

    Raises:
        UsageError: no such cell, or an environment that is none.
        HarnessError: an end does not lock or resolve.
    """
    log = _quiet if arguments.quiet else common.say
    environments = plan.environments_as(Candidates, common.path(arguments.matrices), log)
    cell, _, _, planned = one_cell.located(arguments, environments)
    stored = common.store_of(arguments)
    made = cell is not None and cell.fixture_origin == "created" and not stored.has(cell.creator, cell.scenario)
    made = made and planned.creator_spec not in environments.names()
    question = questions.about(planned, arguments.sound_in or "", arguments.deviates_in or "", made=made)
    good, bad = environments.describe(question.good), environments.describe(question.bad)
    if good.lock_digest and good.lock_digest == bad.lock_digest:
        raise UsageError(
            f"{question.good} and {question.bad} are the same environment",
            "two that differ",
            "name others with --good, --bad",
        )
    file = common.reports_folder(arguments) / command / f"{question.file_stem}{suffix}.json"
    replayed = Path(arguments.replay) if arguments.replay else None
    own = file.with_name(f"{question.file_stem}.jsonl")
    journal = Journal(common.path(arguments.log) or own, replayed, anew=arguments.anew)
    with _scratch(command) as scratch:
        store = Store(scratch / "fixtures", origin="created") if question.made else stored
        session = Session(
            environments, store, scratch, jobs=common.cores(), creating=question.made, share=False, log=_quiet,
            handler=common.path(arguments.worker_handler),
        )  # fmt: skip
        with Trials(question, session, environments, journal, common.say) as trials:
            yield Work(arguments, question, environments, trials, good, bad, {}, file)


@contextlib.contextmanager
def _scratch(command: str) -> Iterator[Path]:
    """A folder for what is replayed; says what to do where the disk does not take it, or the result."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"peft-regress-{command}-") as folder:
            yield Path(folder)
    except OSError as error:
        raise HarnessError(
            f"{error.filename or tempfile.gettempdir()}: {error.strerror or error}",
            "places for scratch files and for the journal that can be written, with room for some megabytes",
            "free some space, or name others with TMPDIR and --reports; the same command goes on",
        ) from error


def write(file: Path, data: dict[str, Any]) -> None:
    """Keep a result beside its journal."""
    write_atomically(file, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def read(file: Path) -> dict[str, Any] | None:
    """A result that was kept; None where there is none that can be read."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def tell_spent(data: Mapping[str, Any]) -> None:
    """Say what a search has cost, and where its journal is."""
    spent = data["spent"]
    common.say(
        f"{spent['seconds']} s; {spent['environments_built']} environments built, {spent['cells']} cells run, "
        f"{spent['remembered']} remembered; journal: {data['journal']}"
    )


def table(rows: list[Entry]) -> None:
    """Print what was tried."""
    painter = terminal.Painter(common.console())
    cells = [(row.words, shown(row), f"{row.seconds:.1f}") for row in rows]
    painter.table("Tried", ("candidate", "result", "seconds"), cells, right=(2,))


def points(rows: list[dict[str, Any]]) -> None:
    """Print what was tried of a row of releases or commits."""
    painter = terminal.Painter(common.console())
    cells = [(row["name"], row["day"], WORDS[row["result"]], row["why"]) for row in rows]
    painter.table("Tried", ("point", "day", "result", "verdict"), cells)


def _quiet(line: str) -> None:
    """Say nothing."""
