"""`triage`: walk through what deviates in a run and nobody has decided about; accept it, or draft entries."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.cli import accept, common
from harness.cli.parser import options_of
from harness.core import files, run_file
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.run import ExpectationProblem, Run
from harness.core.text import many
from harness.deviation import blame_notes, one_cell, triage
from harness.deviation.accept import entries as accepting
from harness.deviation.accept import expiry, proposal
from harness.deviation.accept.entries import Said
from harness.deviation.accept.file import Snapshot
from harness.deviation.one_cell import CellRequest
from harness.deviation.search import blame
from harness.deviation.search.work import SearchRequest
from harness.deviation.triage import Item
from harness.judge import causes
from harness.judge import expectations as expect
from harness.judge.causes import Cause

Blame = Callable[[str], str]
"""Cell → the sentence that says which library causes its deviation. May take minutes."""


def triage_(arguments: argparse.Namespace) -> int:
    """Walk through a run's unexplained deviations on a terminal, or write drafts."""
    desk = Desk(arguments)
    if arguments.blame:
        desk.ask_blame(lambda cell: blame.blame(SearchRequest(_request(arguments, cell))).sentence)
    format_ = "toml" if arguments.draft else arguments.format
    if arguments.json or format_ or arguments.output or not on_terminal():
        return _written(desk, arguments, format_ or "toml")
    try:
        return desk.walk()
    except (KeyboardInterrupt, EOFError) as end:
        common.say("\npeft-regress: stopped; what was accepted is kept")
        return ExitCode.INTERRUPTED if isinstance(end, KeyboardInterrupt) else ExitCode.CLEAN


def _request(arguments: argparse.Namespace, cell: str = "") -> CellRequest:
    return options_of(CellRequest, vars(arguments) | {"cell": cell})


def on_terminal() -> bool:
    """True where somebody can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


class Desk:
    """A run, the file of expectations as it is now, and what was put aside."""

    def __init__(self, arguments: argparse.Namespace, today: datetime.date | None = None) -> None:
        self.arguments = arguments
        self.today = today or datetime.date.today()
        self.found = run_file.load(one_cell.run_folder(_request(arguments).places, _request(arguments).run))
        self.file = Snapshot.of(accept.expectations_file(arguments))
        self.sentences = blame_notes.known(common.reports_folder(arguments))
        self.aside: set[Any] = set()
        self.accepted = self.mended = 0
        self._of: Snapshot | None = None

    @property
    def run(self) -> Run:
        """The run with the expectations of now."""
        return self._known()[0]

    def items(self) -> tuple[Item, ...]:
        """What is to be decided about."""
        return self._known()[1]

    def _known(self) -> tuple[Run, tuple[Item, ...]]:
        """Both, as they are until the file or the sentences change: a large run takes seconds."""
        if self._of is not self.file:
            run = accepting.applied(self.found, self.file.expectations, self.today)
            chosen = self.arguments.range
            self._kept = run, triage.items(run, self.file.expectations, self.today, chosen, self.sentences)
            self._of = self.file
        return self._kept

    def ask_blame(self, blame: Blame) -> None:
        """Have the representative of each cause without a sentence looked at; one that fails is told, and left."""
        for cause in causes.unexpected(self.run):
            cell = cause.representative.id
            if blame_notes.of(cause.cells, self.sentences):
                continue
            common.say(f"blame: {cell}")
            try:
                self.sentences[cell] = blame(cell)
            except HarnessError as error:
                common.say(f"blame could not tell of {cell}: {error}")
        self._of = None

    # -- on a terminal ------------------------------------------------------------------------------------------------

    def walk(self) -> int:
        """What is expired first, which may settle causes; then the causes, then what else does not hold."""
        total = len(causes.unexpected(self.run))
        common.out(f"run {self.found.id}: {many(total, 'cause')} without an expectation")
        done = self._problems("expired") and self._causes() and self._problems("stale", "mismatch")
        return self._end(stopped=not done)

    def _causes(self) -> bool:
        """False to stop."""
        place, total = 0, len(causes.unexpected(self.run))
        while (item := self._next()) is not None:
            place += 1
            common.out("\n" + triage.text(item, f"{place} of {max(total, place)}"))
            if not self._decide(item):
                return False
        return True

    def _problems(self, *kinds: str) -> bool:
        """False to stop."""
        while (problem := self._next_problem(kinds)) is not None:
            common.out("\n" + triage.problem_text(self.run, problem, "does not hold"))
            if not self._mend(problem):
                return False
        return True

    def _next(self) -> Item | None:
        return next((item for item in self.items() if self._key(item.cause) not in self.aside), None)

    def _key(self, cause: Cause) -> tuple[str, ...]:
        return ("cause", *cause.signature)

    def _next_problem(self, kinds: Sequence[str]) -> ExpectationProblem | None:
        problems = [one for one in self.run.expectation_problems if one.problem in kinds]
        return next((one for one in problems if (one.problem, one.id) not in self.aside), None)

    def _decide(self, item: Item) -> bool:
        """False to stop."""
        while True:
            answer = choose("[a]ccept, [s]kip, [d]etails, [q]uit", "asdq")
            if answer == "d":
                common.out(triage.details(item))
                continue
            if answer == "a" and not self._accept(item):
                continue
            if answer == "s":
                self.aside.add(self._key(item.cause))
            return answer != "q"

    def _accept(self, item: Item) -> bool:
        """Ask for what only a person knows, and write it; False where it came to nothing."""
        said = self._asked(item)
        if said is None:
            return False
        try:
            run = self.run
            proposed = proposal.propose(run, item.cause.cells, said, self.file, self.today)
            common.out("\n".join(proposed.entries).rstrip())
            for note in proposed.notes:
                common.out(f"note: {note}")
            entries = many(len(proposed.entries), "entry", "entries")
            if choose(f"write {entries} to {self.file.path}? [y]es, [n]o", "yn") == "n":
                return False
            self.file = self.file.write(proposed.text)
        except HarnessError as error:
            self._say(error)
            return False
        self.accepted += len(item.cause.cells)
        common.out(f"written; {accept.left(self.run, self.found.id)}")
        return True

    def _asked(self, item: Item) -> Said | None:
        like = next((one.expectation.issue for one in item.like if one.same), "")
        issue = asked("issue (empty: back)", like, _address)
        if not issue:
            return None
        expires = asked("expires", str(expiry.after(self.today)), lambda text: str(expiry.parse(text, self.today)))
        reason = asked("reason (empty: back)", item.sentence, str)
        if not reason:
            return None
        id_ = asked("id", str(item.drafts[0]["id"]), str)
        ranges = () if item.notes else tuple(self.arguments.range)
        return Said(issue, reason, datetime.date.fromisoformat(expires), id_, ranges=ranges)

    def _mend(self, problem: ExpectationProblem) -> bool:
        """False to stop."""
        answer = choose("[r]emove it, re[n]ew it, [s]kip, [q]uit", "rnsq")
        if answer in "sq":
            self.aside.add((problem.problem, problem.id))
            return answer == "s"
        try:
            if answer == "r":
                text = self.file.without(problem.id)
            else:
                day = asked("expires", str(expiry.after(self.today)), lambda text: str(expiry.parse(text, self.today)))
                text = self.file.renewed(problem.id, datetime.date.fromisoformat(day))
            self.file = self.file.write(text)
            self.mended += 1
        except HarnessError as error:
            self._say(error)
        return True

    def _say(self, error: HarnessError) -> None:
        """Tell an error, and go on from the file as it is now: somebody may have changed it."""
        common.out(f"\n{error}")
        self.file = Snapshot.of(self.file.path)

    def _end(self, stopped: bool) -> int:
        done = f"{many(self.accepted, 'cell')} accepted, {many(self.mended, 'entry', 'entries')} renewed or removed"
        common.out(
            f"\n{done}, {len(self.aside)} skipped{', stopped' * stopped}; {accept.left(self.run, self.found.id)}"
        )
        if self.accepted or self.mended:
            common.out("next: `git diff`; `peft-regress docs` writes docs/known-breaks.md anew; commit both")
        return ExitCode.CLEAN


def choose(question: str, letters: str) -> str:
    """One of the letters."""
    while True:
        answer = input(f"{question}: ").strip().lower()[:1]
        if answer and answer in letters:
            return answer


def asked(question: str, default: str, check: Callable[[str], str]) -> str:
    """An answer that the check takes; the default where nothing is typed."""
    shown = f" [{default}]" if default else ""
    while True:
        answer = input(f"{question}{shown}: ").strip() or default
        try:
            return check(answer) if answer else ""
        except UsageError as error:
            common.out(f"  {error}")


def _address(text: str) -> str:
    if not expect.is_address(text):
        raise UsageError(f"{text!r} is no https address", "https://github.com/huggingface/peft/issues/NUMBER", "again")
    return text


# -- drafts -----------------------------------------------------------------------------------------------------------


def _written(desk: Desk, arguments: argparse.Namespace, format_: str) -> int:
    run, found = desk.run, desk.items()
    if arguments.json:
        problems = [one.model_dump(mode="json") | {"do": triage.remedy(run, one)} for one in run.expectation_problems]
        common.out_json({"run": run.id, "causes": [item.data() for item in found], "problems": problems})
        return ExitCode.CLEAN
    text = _rendered(run, found, format_)
    if not arguments.output:
        common.out(text.rstrip())
    else:
        _save(Path(arguments.output), text, desk.file.path)
        common.say(f"{many(len(found), 'cause')} drafted: {arguments.output}")
    common.say(accept.left(run, run.id))
    return ExitCode.CLEAN


def _rendered(run: Run, found: Sequence[Item], format_: str) -> str:
    if format_ == "markdown":
        return triage.markdown(run, found)
    if format_ == "text":
        causes_ = [triage.text(item, f"{place} of {len(found)}") for place, item in enumerate(found, 1)]
        problems = [triage.problem_text(run, one, "does not hold") for one in run.expectation_problems]
        return "\n\n".join([*causes_, *problems])
    return triage.toml(run, found)


def _save(path: Path, text: str, expectations: Path) -> None:
    if path.exists():
        whose = ", and holds the expectations" if path.resolve() == expectations.resolve() else ""
        raise UsageError(
            f"{path} is there already{whose}", "a new file for the drafts", "give another --output; nothing was written"
        )
    try:
        files.write_atomically(path, text.encode())
    except OSError as error:
        raise HarnessError(
            f"{path} can't be written: {error}", "a folder with room and rights", "make some, then run it again"
        ) from error
