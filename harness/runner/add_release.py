"""Adds a release to the matrix: declaration, lock, environment, fixtures, self-check; all of it or nothing.

Everything is made in a folder of the cache and moved at the end: the fixtures first, then the lock, then the
declaration, which makes the environment exist. So a killed process leaves nothing that misleads, and the same command
starts again from the beginning.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import filelock

from harness.core import matrix
from harness.core.errors import HarnessError, UsageError
from harness.core.files import Interrupts, one_interrupt
from harness.core.lock import file_lock
from harness.core.matrix import CellId, Declared
from harness.core.progress import Log, quiet
from harness.core.run import Cell
from harness.core.text import enumerated, many
from harness.core.verdict import Verdict
from harness.envs.draft import Draft
from harness.envs.environment import BuiltEnvironment, EnvFailed
from harness.envs.environments import Environments
from harness.runner.how import How
from harness.runner.plan import Planned
from harness.runner.request import Places, Selection, must_be_count
from harness.runner.session import Session
from harness.store.adopt import adopting
from harness.store.fixtures import Store


@dataclass(frozen=True)
class AddRequest:
    """Which release to add, and what to make along with it."""

    requirement: str = ""
    """`peft==X`, and further pins with commas."""
    places: Places = Places()
    selection: Selection = Selection()
    """The scenarios to try; those whose `requires` excludes the release get no fixture."""
    no_fixtures: bool = False
    """Declare, lock and build only."""
    jobs: int = 0
    """Fixtures at once; 0 for one on each core."""
    keep_going: bool = False
    """Keep the fixtures that could be made although some scenarios were refused."""
    worker_handler: Path | None = None
    """Replaces the worker's own cell module, for tests."""

    def __post_init__(self) -> None:
        """Refuse a number of jobs below 0."""
        must_be_count("jobs", self.jobs)

    def scenarios(self) -> list[Declared]:
        """The selected scenarios; none without fixtures.

        Raises:
            UsageError: fixtures are wanted, and no scenario is selected.
        """
        if self.no_fixtures:
            return []
        chosen = self.selection.chosen(self.places.matrix())
        if not chosen:
            raise UsageError("no scenario is selected", "at least one", "change -k or --family, or add --no-fixtures")
        return chosen


@dataclass(frozen=True)
class Outcome:
    """The outcome of one scenario."""

    scenario: str
    outcome: Literal["made", "unsupported", "refused", "deviates"]
    """`deviates`: it was made, and its own creator loads something else."""
    verdict: str
    """Of the self-check."""
    detail: str = ""
    """Why it is not kept; for one that is, the warning when it was loaded again."""
    defects: tuple[str, ...] = ()
    """What the creator's own library fails; stored with the golden."""
    log: str = ""

    @property
    def kept(self) -> bool:
        """True where its fixture is stored."""
        return self.outcome == "made"

    @property
    def word(self) -> str:
        """The outcome, and the self-check's verdict where there was one."""
        return f"{self.outcome}, {self.verdict}" if self.outcome in ("made", "deviates") else self.outcome


@dataclass(frozen=True)
class Added:
    """A release that was added."""

    name: str
    requirement: str
    released: str
    files: tuple[Path, ...]
    """Declaration and lock."""
    python: str
    versions: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    fixtures: bool
    """False where none were requested."""
    size: int
    """Bytes that the fixtures added."""
    seconds: float

    def of(self, outcome: str) -> list[Outcome]:
        """The scenarios with an outcome."""
        return [one for one in self.outcomes if one.outcome == outcome]

    @property
    def whole(self) -> bool:
        """True where every scenario that was tried is kept."""
        return not (self.of("refused") or self.of("deviates"))

    @property
    def verdicts(self) -> dict[str, int]:
        """The self-check's verdicts on the kept fixtures, with counts."""
        return dict(Counter(one.verdict for one in self.of("made")).most_common())

    @property
    def defects(self) -> dict[str, int]:
        """Standing defects by their text, with how many scenarios have them."""
        return dict(Counter(text for one in self.of("made") for text in dict.fromkeys(one.defects)).most_common())

    def next_steps(self, where: str = "") -> list[str]:
        """The commands to run next.

        Args:
            where: the options that say where matrices and fixtures are, with a blank before them.
        """
        if self.fixtures:
            return [f"peft-regress check --creator {self.name}{where}"]
        return [f"peft-regress create {self.name}{where}"]

    def data(self) -> dict[str, Any]:
        """As JSON."""
        counts = Counter(one.outcome for one in self.outcomes)
        return {
            "name": self.name, "requirement": self.requirement, "released": self.released, "python": self.python,
            "files": [str(path) for path in self.files], "versions": dict(self.versions), "counts": dict(counts),
            "self_check": self.verdicts, "standing_defects": self.defects, "bytes_added": self.size,
            "seconds": self.seconds,
            "scenarios": [{k: v for k, v in vars(one).items() if k != "log"} for one in self.outcomes],
        }  # fmt: skip


class ScenariosRefused(HarnessError):
    """Scenarios that `requires` admits could not be made, or their own creator loads something else."""


def add(request: AddRequest, log: Log = quiet, environments: Environments | None = None) -> Added:
    """Declare, lock and build an environment for a release of PEFT, and make its fixtures: all of it or nothing.

    Args:
        environments: those of an earlier call, which remember what the package index said.

    Raises:
        UsageError: no such release, a yanked one, none for this Python, or it is declared already.
        EnvFailed: it does not resolve, build or import.
        ScenariosRefused: not every scenario could be made; with `keep_going`, none.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    begun = time.monotonic()
    scenarios, store = request.scenarios(), request.places.store()
    environments = environments or request.places.environments(log)
    with one_interrupt() as taken:
        draft = environments.draft(request.requirement)
        with _staging(environments.cache, draft, taken) as folder:
            draft.write(folder / "envs")
            staged = environments.beside(folder)
            with _built(staged, draft.name, taken) as built:
                made = _Making(staged, draft.name, built, Store(folder / "fixtures"), request, log)
                outcomes = made.outcomes(scenarios, folder / "scratch") if scenarios else ()
                size = _moved_in(draft, store, made.store, [one.scenario for one in outcomes if one.kept])
    return Added(
        name=draft.name, requirement=draft.requirement, released=str(draft.declared.released),
        files=(draft.path, draft.lock), python=built.python_version, versions=dict(built.versions), outcomes=outcomes,
        size=size, fixtures=bool(scenarios), seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip


@contextlib.contextmanager
def _staging(cache: Path, draft: Draft, taken: Interrupts) -> Iterator[Path]:
    """A folder of its own, empty at first and deleted afterwards; one process at a time for a name."""
    where = hashlib.sha256(str(draft.folder.resolve()).encode()).hexdigest()[:8]
    folder = cache / "adding" / f"{draft.name}-{where}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = file_lock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise HarnessError(
            f"another process is adding {draft.name}", "one at a time", "wait for it to end, then look at `env list`"
        ) from None
    try:
        shutil.rmtree(folder, ignore_errors=True)  # a killed process left it
        folder.mkdir()
        yield folder
    finally:
        taken.ignore()
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


@contextlib.contextmanager
def _built(staged: Environments, name: str, taken: Interrupts) -> Iterator[BuiltEnvironment]:
    """The environment, built; deleted if the block fails, unless it was built before."""
    there_before = staged.status()[0].built is not None
    try:
        yield staged.build(name)
    except BaseException:
        taken.ignore()
        if not there_before:
            staged.discard(name)
        raise


def _moved_in(draft: Draft, store: Store, staged: Store, scenarios: Sequence[str]) -> int:
    """Move what was made to where it belongs; returns the bytes that the fixtures added."""
    draft.refuse_declared()  # somebody may have declared it meanwhile
    if not scenarios:
        draft.write()
        return 0
    with adopting(store, staged, draft.name, scenarios) as size:
        draft.write()
    return size


class _Making:
    """Makes the fixtures of an environment, and has the environment load them again."""

    def __init__(
        self, staged: Environments, name: str, built: BuiltEnvironment, store: Store, request: AddRequest, log: Log
    ) -> None:
        self.store = store
        self._environments = staged
        self._name = name
        self._built = built
        self._request = request
        self._log = log

    def outcomes(self, scenarios: Sequence[Declared], scratch: Path) -> tuple[Outcome, ...]:
        """The outcome of each scenario, in their order.

        Raises:
            ScenariosRefused: not every one could be made; with `keep_going`, none.
            EnvFailed: the worker does not start.
        """
        unsupported = {one.name: matrix.unstored(one, self._built.versions) for one in scenarios}
        planned = [self._planned(one) for one in scenarios if not unsupported[one.name]]
        cells = {cell.scenario: cell for cell in self._cells(planned, scratch)}
        found = tuple(
            self._outcome(cells[one.name]) if one.name in cells else _unsupported(one.name, unsupported[one.name])
            for one in scenarios
        )
        self._refuse(found)
        return found

    def _planned(self, one: Declared) -> Planned:
        return Planned(CellId(one.name, self._name, self._name, "cpu"), one, self._name, self._name)

    def _cells(self, planned: Sequence[Planned], scratch: Path) -> list[Cell]:
        """Make each fixture and have its own creator load it again, as `pair` does, with one import."""
        self._log(f"making {many(len(planned), 'fixture')} in {self._name}")
        count = itertools.count(1)

        def finished(cell: Cell) -> None:
            self._log(f"[{next(count)}/{len(planned)}] {cell.scenario}: {self._outcome(cell).word}")

        session = Session(
            self._environments, self.store, scratch,
            How(self._request.jobs, creating=True, handler=self._request.worker_handler),
            log=self._log, finished=finished,
        )  # fmt: skip
        with session:
            session.start(planned)
            return [session.result(one) for one in planned]

    def _outcome(self, cell: Cell) -> Outcome:
        """A scenario's outcome, from the cell of its self-check."""
        if cell.scenario not in self.store.scenarios(self._name):
            return Outcome(cell.scenario, "refused", str(cell.verdict), _bare(cell), log=cell.log_tail)
        manifest = self.store.manifest(self._name, cell.scenario)
        # a release that cannot read back what it saved is kept: people have such files
        sound = cell.verdict.is_clean or bool(cell.creators_own)
        sound = sound or (cell.verdict is Verdict.UNSTABLE and manifest.unstable)
        said = next(
            (text for text in (cell.reason, *cell.new_warnings, *(f.message for f in cell.findings)) if text), ""
        )
        return Outcome(
            cell.scenario, "made" if sound else "deviates", str(cell.verdict), said,
            defects=tuple(manifest.standing_defects), log="" if sound else cell.log_tail,
        )  # fmt: skip

    def _refuse(self, found: Sequence[Outcome]) -> None:
        wrong = [one for one in found if one.outcome in ("refused", "deviates")]
        failed = next((one for one in wrong if one.verdict == Verdict.ENV_FAILED), None)
        if failed is not None:
            raise EnvFailed(
                self._name, "import", f"its worker does not start: {failed.detail}", "libraries that import",
                "read the last lines below", tail=failed.log,
            )  # fmt: skip
        if any(one.kept for one in found) and (self._request.keep_going or not wrong):
            return
        if not wrong:
            reasons = enumerated(dict.fromkeys(one.detail for one in found), 3)
            raise ScenariosRefused(
                f"{self._name}: none of {many(len(found), 'scenario')} is for this release: {reasons}",
                "at least one whose `requires` admits it",
                "fix `requires`, choose others with -k, or add the environment alone with --no-fixtures",
            )
        lines = [f"  {one.scenario}: {one.word}: {one.detail}" for one in wrong]
        tried = sum(one.outcome != "unsupported" for one in found)
        more = ", or keep the others with --keep-going" if any(one.kept for one in found) else ""
        raise ScenariosRefused(
            "\n".join([f"{self._name}: {len(wrong)} of {many(tried, 'scenario')} failed", *lines]),
            "every scenario that `requires` admits, made and loaded again with equal results",
            f"state under `requires` or `when` what they need{more}; nothing was kept",
        )


def _bare(cell: Cell) -> str:
    """Why it was refused, without the scenario's name."""
    return cell.reason.removeprefix(f"{cell.scenario}: ")


def _unsupported(scenario: str, reason: str) -> Outcome:
    return Outcome(scenario, "unsupported", str(Verdict.UNSUPPORTED), reason)
