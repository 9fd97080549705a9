"""`triage`: go through the undecided deviations of a run; accept them, or draft known breaks."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import accept, common
from harness.cli.parser import command, where
from harness.core import files, run_file
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.run import ExpectationProblem, Run
from harness.core.text import many
from harness.deviation import blame_notes, one_cell, triage
from harness.deviation.accept import break_file, conditions, expiry, proposal
from harness.deviation.accept.conditions import Said
from harness.deviation.one_cell import CellRequest
from harness.deviation.search import blame
from harness.deviation.search.work import SearchRequest
from harness.deviation.triage import Item
from harness.judge import breaks, causes
from harness.judge.breaks import Break
from harness.judge.causes import Cause
from harness.runner.request import Places

Blame = Callable[[str], str]
"""Cell → the sentence that says which library causes its deviation. May take minutes."""


@dataclass(frozen=True)
class TriageOptions:
    run: Path | None = None
    ranges: tuple[str, ...] = ()
    draft: bool = False
    format: str = ""
    output: Path | None = None
    blame: bool = False
    json: bool = False
    places: Places = Places()


def add_to(commands: Any) -> None:
    one = command(
        commands, "triage", triage_, "review a run's unexplained deviations, cause by cause",
        "  peft-regress triage                               the newest run, on a terminal: accept, skip, see details\n"
        "  peft-regress triage --range peft                  creators and loaders by PEFT's versions\n"
        "  peft-regress triage --draft --output drafts       drafts to fill in, one file per break\n"
        "  peft-regress triage reports/nightly --format markdown\n"
        "  peft-regress triage --blame                       run `blame` first for each cause\n"
        "\nShows each cause with its cells, its size, the first layer, what `blame` found, similar known breaks and\n"
        "a draft; then the known breaks that no longer hold, and what to do. Without a terminal, or with --draft,\n"
        "the drafts are printed as TOML. A draft is not accepted yet: it has no reference and no cause, so it is\n"
        "refused until somebody fills in both.\n"
        "\nexit codes:\n  0    done, even if causes are left\n"
        "  2    a file can't be written\n"
        "  64   no such run, a damaged file, --output exists already\n"
        "  130  interrupted; what was accepted is kept",
        TriageOptions,
    )  # fmt: skip
    one.add_argument("run", metavar="RUN", nargs="?", help="a run's folder (default: the newest)")
    one.add_argument("--reports", metavar="DIR", help="where runs are (default: reports/)")
    accept.add_range(one)
    one.add_argument("--draft", action="store_true", help="print the drafts as TOML, on a terminal too")
    one.add_argument("--format", choices=["toml", "markdown", "text"], help="print in this format and ask nothing")
    one.add_argument("--output", metavar="PATH", help="write a new file; for TOML a new folder with one file per break")
    one.add_argument("--blame", action="store_true", help="run `blame` first for each cause without an answer")
    one.add_argument("--json", action="store_true", help="print JSON")
    where(one)


def triage_(options: TriageOptions) -> int:
    """Walk through a run's unexplained deviations on a terminal, or write drafts."""
    desk = Desk(options)
    if options.blame:
        desk.ask_blame(lambda cell: blame.blame(SearchRequest(_request(options, cell))).sentence)
    format_ = "toml" if options.draft else options.format
    if options.json or format_ or options.output or not on_terminal():
        return _written(desk, options, format_ or "toml")
    try:
        return desk.walk()
    except (KeyboardInterrupt, EOFError) as end:
        common.say("\npeft-regress: stopped; what was accepted is kept")
        return ExitCode.INTERRUPTED if isinstance(end, KeyboardInterrupt) else ExitCode.CLEAN


def _request(options: TriageOptions, cell: str) -> CellRequest:
    return CellRequest(cell, places=options.places, run=options.run)


def on_terminal() -> bool:
    """True if somebody can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


class Desk:
    """A run, the known breaks as they are now, and what was skipped."""

    def __init__(self, options: TriageOptions, today: datetime.date | None = None) -> None:
        self.options = options
        self.today = today or datetime.date.today()
        self.found = run_file.load(one_cell.run_folder(options.places, options.run))
        self.matrices = options.places.matrices_folder
        self.there = common.known_breaks(options.places)
        self.sentences = blame_notes.known(options.places.reports_folder)
        self.skipped: set[Any] = set()
        self.accepted = self.maintained = 0
        self._of: tuple[Break, ...] | None = None

    @property
    def run(self) -> Run:
        """The run with the known breaks of now."""
        return self._known()[0]

    def items(self) -> tuple[Item, ...]:
        """What is to be decided."""
        return self._known()[1]

    def _known(self) -> tuple[Run, tuple[Item, ...]]:
        """Both, kept until the known breaks or the sentences change: a large run takes seconds."""
        if self._of is not self.there:
            run = conditions.applied(self.found, self.there, self.today)
            self._kept = run, triage.items(run, self.there, self.today, self.options.ranges, self.sentences)
            self._of = self.there
        return self._kept

    def _reload(self) -> None:
        """Read the known breaks again: a change was written, or somebody else may have changed them."""
        self.there = breaks.load(self.matrices)

    def ask_blame(self, blame: Blame) -> None:
        """Run `blame` for each cause without a sentence; a failure is reported, and the cause is left as it is."""
        for cause in causes.unexpected(self.run):
            cell = cause.representative.id
            if blame_notes.of(cause.cells, self.sentences):
                continue
            common.say(f"blame: {cell}")
            try:
                self.sentences[cell] = blame(cell)
            except HarnessError as error:
                common.say(f"blame failed for {cell}: {error}")
        self._of = None

    # -- on a terminal ------------------------------------------------------------------------------------------------

    def walk(self) -> int:
        """Expired breaks first, which may settle causes; then the causes, then the other breaks that do not hold."""
        total = len(causes.unexpected(self.run))
        common.out(f"run {self.found.id}: {many(total, 'cause')} without a known break")
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
            common.out("\n" + triage.problem_text(self.run, problem))
            if not self._maintain(problem):
                return False
        return True

    def _next(self) -> Item | None:
        return next((item for item in self.items() if self._key(item.cause) not in self.skipped), None)

    def _key(self, cause: Cause) -> tuple[str, ...]:
        return ("cause", *cause.signature)

    def _next_problem(self, kinds: Sequence[str]) -> ExpectationProblem | None:
        problems = [one for one in self.run.expectation_problems if one.problem in kinds]
        return next((one for one in problems if (one.problem, one.id) not in self.skipped), None)

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
                self.skipped.add(self._key(item.cause))
            return answer != "q"

    def _accept(self, item: Item) -> bool:
        """Ask for what only a person knows, and write it; False if nothing was written."""
        said = self._asked(item)
        if said is None:
            return False
        try:
            run = self.run
            proposed = proposal.propose(run, item.cause.cells, said, self.there, self.matrices, self.today)
            common.out((proposed.change.after or "").rstrip())
            for note in proposed.notes:
                common.out(f"note: {note}")
            if choose(f"write {proposed.change.path}? [y]es, [n]o", "yn") == "n":
                return False
            proposed.change.write()
            self._reload()
        except HarnessError as error:
            self._say(error)
            return False
        self.accepted += len(item.cause.cells)
        common.out(f"written; {accept.left(self.run, self.found.id)}")
        return True

    def _asked(self, item: Item) -> Said | None:
        like = next((one.known.issue for one in item.like if one.same), "")
        issue = asked("issue (empty: back)", like, _address)
        if not issue:
            return None
        expires = self._asked_day()
        reason = asked("reason (empty: back)", item.sentence, str)
        if not reason:
            return None
        now = next((one for one in self.items() if self._key(one.cause) == self._key(item.cause)), item)
        id_ = asked("id", str(now.draft["id"]), str)
        ranges = () if item.notes else self.options.ranges
        return Said(issue, reason, expires, id=id_, ranges=ranges)

    def _asked_day(self) -> datetime.date:
        day = asked("expires", str(expiry.after(self.today)), lambda text: str(expiry.parse(text, self.today)))
        return datetime.date.fromisoformat(day)

    def _maintain(self, problem: ExpectationProblem) -> bool:
        """False to stop."""
        answer = choose("[r]emove it, re[n]ew it, [s]kip, [q]uit", "rnsq")
        if answer in "sq":
            self.skipped.add((problem.problem, problem.id))
            return answer == "s"
        try:
            if answer == "r":
                change = break_file.removed(self.matrices, problem.id)
            else:
                change = break_file.renewed(self.matrices, problem.id, self._asked_day())
            change.write()
            self.maintained += 1
            self._reload()
        except HarnessError as error:
            self._say(error)
        return True

    def _say(self, error: HarnessError) -> None:
        """Show an error, and go on from the known breaks as they are now."""
        common.out(f"\n{error}")
        self._reload()

    def _end(self, stopped: bool) -> int:
        done = f"{many(self.accepted, 'cell')} accepted, {many(self.maintained, 'known break')} renewed or removed"
        common.out(
            f"\n{done}, {len(self.skipped)} skipped{', stopped' * stopped}; {accept.left(self.run, self.found.id)}"
        )
        if self.accepted or self.maintained:
            common.out(accept.NEXT)
        return ExitCode.CLEAN


def choose(question: str, letters: str) -> str:
    """One of the letters."""
    while True:
        answer = input(f"{question}: ").strip().lower()[:1]
        if answer and answer in letters:
            return answer


def asked(question: str, default: str, check: Callable[[str], str]) -> str:
    """An answer that passes the check; the default if nothing is typed."""
    shown = f" [{default}]" if default else ""
    while True:
        answer = input(f"{question}{shown}: ").strip() or default
        try:
            return check(answer) if answer else ""
        except UsageError as error:
            common.out(f"  {error}")


def _address(text: str) -> str:
    if not breaks.is_address(text):
        raise UsageError(f"{text!r} is no https address", "https://github.com/huggingface/peft/issues/NUMBER", "again")
    return text


# -- drafts -----------------------------------------------------------------------------------------------------------


def _written(desk: Desk, options: TriageOptions, format_: str) -> int:
    run, found = desk.run, desk.items()
    if options.json:
        problems = [one.model_dump(mode="json") | {"do": triage.remedy(run, one)} for one in run.expectation_problems]
        common.out_json({"run": run.id, "causes": [item.data() for item in found], "problems": problems})
        return ExitCode.CLEAN
    if not options.output:
        common.out(_rendered(run, found, format_).rstrip())
    else:
        _save(options.output, _rendered(run, found, format_) if format_ != "toml" else triage.files(found))
        common.say(f"{many(len(found), 'cause')} drafted: {options.output}")
    common.say(accept.left(run, run.id))
    return ExitCode.CLEAN


def _rendered(run: Run, found: Sequence[Item], format_: str) -> str:
    if format_ == "markdown":
        return triage.markdown(run, found)
    if format_ == "text":
        causes_ = [triage.text(item, f"{place} of {len(found)}") for place, item in enumerate(found, 1)]
        problems = [triage.problem_text(run, one) for one in run.expectation_problems]
        return "\n\n".join([*causes_, *problems])
    return triage.toml(run, found)


def _save(path: Path, content: str | dict[str, str]) -> None:
    """A text as a new file, or texts by file name as a new folder."""
    if path.exists():
        raise UsageError(f"{path} exists already", "a new path for the drafts", "give another --output")
    texts = {path: content} if isinstance(content, str) else {path / name: text for name, text in content.items()}
    try:
        for place, text in texts.items():
            files.write_atomically(place, text.encode())
    except OSError as error:
        raise HarnessError(
            f"{path} can't be written: {error}",
            "a folder with free space and write permission",
            "fix that, then run the same command again",
        ) from error
