"""Checks a request: plans its cells, has a session replay them, and keeps the run. See docs/api.md.

    from harness.runner import CheckRequest, check

    run = check(CheckRequest(creators=("v061",), loaders=("../peft",)))

`check` is the whole of it. `Checking` is what it shares with the pytest plugin, where pytest decides which of the
planned cells run, and when.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import queue
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.core import run_file
from harness.core.errors import HarnessError, UsageError
from harness.core.progress import Log, quiet
from harness.core.run import Cell, EnvironmentReport, Run
from harness.core.scratch import scratch_folder
from harness.core.verdict import Verdict
from harness.envs.environments import Environments
from harness.judge import breaks, expected
from harness.judge.breaks import Break
from harness.runner import folder as runs
from harness.runner import plan, selected
from harness.runner.cluster import packing
from harness.runner.cluster.session import ClusterSession
from harness.runner.folder import Recorder
from harness.runner.how import How
from harness.runner.plan import Planned
from harness.runner.request import CheckRequest, cores
from harness.runner.session import Session
from harness.store.fixtures import Store, recorded_versions

OnCell = Callable[[Cell], None]
After = Callable[[Cell], Sequence[Planned]]
"""Which cells to check because of a finished one."""


def planned(request: CheckRequest, environments: Environments | None = None) -> list[Planned]:
    """The cells of a request. Reads every file that a check needs, and starts nothing.

    Args:
        environments: those of the request's places. Give the same ones to `check`: one look at a checkout or a Git
            ref then serves both.

    Raises:
        UsageError: a file is wrong, an environment is unknown, or no cell is selected.
    """
    environments = environments or request.places.environments()
    selected.creators(request, environments)
    request = plan.named(request, environments)
    known_breaks(request)
    scenarios = request.selection.chosen(request.places.matrix())
    selected.cells(scenarios, request, environments)
    cells = plan.plan(scenarios, request, environments)
    if not cells:
        raise UsageError(
            "no cell is selected", "at least one scenario, creator and loader", "loosen --cell, --family or --scenarios"
        )
    return cells


def known_breaks(request: CheckRequest) -> tuple[Break, ...]:
    """The known breaks that a request's cells are compared with.

    Raises:
        UsageError: a file is wrong.
    """
    return breaks.load(request.places.matrices_folder)


def check(
    request: CheckRequest,
    cells: Sequence[Planned] | None = None,
    *,
    on_cell: OnCell = lambda _: None,
    log: Log = quiet,
    environments: Environments | None = None,
) -> Run:
    """Replay the cells of a request and judge them; `Run.exit_code` is the command's.

    Writes a run's folder, with its report.json, where `request.places.reports` names a folder for it. Nothing else is
    written but the cache of environments.

    Args:
        cells: the planned cells to run; None for all that `planned` gives.
        on_cell: gets each cell as it finishes, in the thread that checked it.
        log: gets a line for each step that takes time, such as building an environment.

    Raises:
        UsageError: a file is wrong, an environment is unknown, or no cell is selected.
    """
    environments = environments or request.places.environments(log)
    chosen = planned(request, environments) if cells is None else list(cells)
    with run_folders(request) as folder, Checking(request, environments, log=log, on_cell=on_cell) as checking:
        recorder = checking.record([str(cell.id) for cell in chosen], folder)
        checking.run(chosen)
        run = checking.finished(left_out=request.selection.left_out(request.places.matrix()))
        run_file.dump(run, recorder.folder / "report.json")
    return run


@contextlib.contextmanager
def run_folders(request: CheckRequest) -> Iterator[Path]:
    """The folder for runs, or a temporary one where the request has none."""
    if request.places.reports is not None:
        yield request.places.reports
    else:
        with scratch_folder() as folder:
            yield folder


class Checking:
    """A check under way in one process: a session that replays cells, and the run's folder that keeps them.

    A library call, and pytest in one process, have both. With xdist the controller has the folder, and each worker
    process a session. Use it as a context manager; leaving it ends every worker.

    Attributes:
        plan: the ids of all cells of the run.
        jobs: cells at once, read when the session is opened.
        recorder: the run's folder, where this process keeps it.
    """

    def __init__(
        self, request: CheckRequest, environments: Environments, *, log: Log = quiet, on_cell: OnCell = lambda _: None,
        after: After = lambda _: (), side_by_side: bool = False,
    ) -> None:  # fmt: skip
        """Start nothing yet.

        Args:
            after: gets each finished cell, and says which cells to check because of it.
            side_by_side: check the cells in their order, instead of loader by loader.
        """
        self.request = request
        self.environments = environments
        self.plan: tuple[str, ...] = ()
        self.jobs = request.jobs or cores()
        self.recorder: Recorder | None = None
        self._log, self._on_cell, self._after, self._side_by_side = log, on_cell, after, side_by_side
        self.hopeless = ""
        """Why the rest of the cells can't be compared: a side does not import."""
        self._added: queue.SimpleQueue[Planned] = queue.SimpleQueue()
        self._session: Session | ClusterSession | None = None
        self._at_end = contextlib.ExitStack()
        self._begun: set[str] = set()
        self._met: list[EnvironmentReport] = []
        self._timings: dict[str, float] = {}
        self._looked_up: dict[str, EnvironmentReport] = {}

    def __enter__(self) -> Checking:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._at_end:
            if self._session is not None:
                self._session.close()
        if self.recorder is not None:
            self.recorder.close()

    # -- before -----------------------------------------------------------------------------------------------------

    def record(
        self, ids: Sequence[str], reports: Path, command: str = "", selected: Sequence[str] | None = None
    ) -> Recorder:
        """Open the run's folder: a new one, or with `resume` that of the newest unfinished run of these cells.

        Args:
            selected: what identifies the run; default: `ids`. Of those, some may be cached when it is resumed.

        Raises:
            UsageError: there is no such run.
        """
        self.plan = tuple(ids)
        cells = [plan.parsed(cell) for cell in ids]
        creators, loaders = sorted({cell.creator for cell in cells}), sorted({cell.loader for cell in cells})
        if self.request.resume:
            folder = runs.to_resume(reports, ids if selected is None else selected)
        else:
            folder = runs.new_folder(reports, "+".join(creators[:3]) + "-" + "+".join(loaders[:3]))
        title = f"{', '.join(creators)} under {', '.join(loaders)}"
        self.recorder = Recorder(folder, ids, command, title, selected)
        return self.recorder

    @functools.cached_property
    def breaks(self) -> tuple[Break, ...]:
        """The known breaks that cells are compared with."""
        return known_breaks(self.request)

    @functools.cached_property
    def earlier(self) -> Mapping[str, Cell]:
        """The cells that an earlier part of this run has judged, by id."""
        found: list[Cell] = []
        if self.recorder:
            found = [self.recorder.cells[cell] for cell in self.recorder.resumed]
        elif self.request.resume:
            found = runs.judged_before(self.request.places.reports_folder, self.plan)
        return {cell.id: cell for cell in found}

    # -- cells ------------------------------------------------------------------------------------------------------

    def run(self, cells: Sequence[Planned]) -> None:
        """Check cells and end the session."""
        self.start(cells)
        waiting = deque(cells)
        while waiting and not self.hopeless:
            self.result(waiting.popleft())
            waiting += self.added()
        self.close()

    def start(self, cells: Iterable[Planned]) -> None:
        """Begin to check cells, without waiting. Those that have begun, or are done from before, are passed over."""
        waiting = [cell for cell in cells if str(cell.id) not in self._begun and str(cell.id) not in self.earlier]
        self._begun.update(str(cell.id) for cell in waiting)
        if waiting:
            self._opened().start(waiting)

    def result(self, cell: Planned) -> Cell:
        """The cell's result; waits for it."""
        return self.earlier.get(str(cell.id)) or self._opened().result(cell)

    def keep(self, cell: Cell) -> None:
        """Keep a finished cell in the run's folder, once, pass it on, and start what is to be checked because of it."""
        if not self.recorder or not self.recorder.add(cell):
            return
        if self._side_by_side and cell.verdict is Verdict.ENV_FAILED:
            self.hopeless = f"{cell.loader} does not import"
        if more := self._after(cell):
            self.plan = (*self.plan, *self.recorder.extend(str(one.id) for one in more))
            self.start(more)
            for one in more:
                self._added.put(one)
        self._on_cell(cell)

    def added(self) -> list[Planned]:
        """The cells that were added to the run since the last call. Those of a cell are there before its result."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._added.get_nowait())
        return found

    def expected(self, cell: Cell) -> Cell:
        """The cell with the known break that it matches, as far as this process knows."""
        met = self._session.environment_reports((cell.creator, cell.loader)) if self._session else ()
        versions = {one.name: one.versions for one in self._known_of(met, [cell])}
        cells, _ = expected.apply([cell], self.breaks, versions, datetime.date.today())
        return cells[0]

    def _opened(self) -> Session | ClusterSession:
        if self._session is None and self.request.cluster:
            self._session = self._on_cluster()
        if self._session is None:
            request, scratch = self.request, self._at_end.enter_context(scratch_folder())
            created = Store(scratch / "fixtures", origin="created") if request.pair else None
            self._session = Session(
                self.environments, created or request.places.store(), scratch,
                replace(self._how(), jobs=self.jobs), log=self._log, finished=self.keep,
            )  # fmt: skip
        return self._session

    def _on_cluster(self) -> ClusterSession:
        request = self.request
        packed = packing.Packing(self.environments, request.places.store(required=not request.pair), self._how())
        return ClusterSession(request.cluster, packed, self._log, self.keep)

    def _how(self) -> How:
        request = self.request
        return How(
            jobs=request.jobs,
            creating=request.pair,
            forward=request.forward or request.pair,
            observations=request.observations,
            share=not request.each,
            side_by_side=self._side_by_side,
            fresh=request.fresh or request.each,
            audit=request.audit,
            options=self._places(),
            startup_timeout=request.startup_timeout,
            handler=request.worker_handler,
        )

    def _places(self) -> str:
        """The options of this check that a command which reproduces one of its cells needs too."""
        given = {"--matrices": self.request.places.matrices, "--fixtures": self.request.places.fixtures}
        return "".join(f" {option} {shlex.quote(str(folder))}" for option, folder in given.items() if folder)

    # -- after ------------------------------------------------------------------------------------------------------

    def close(self) -> tuple[list[EnvironmentReport], dict[str, float]]:
        """End the session; what it learnt of its environments, and seconds by step."""
        if self._session is None:
            return [], {}
        with self._session as session:
            session.cancel()
            met = [*session.environment_reports(), *session.failed_environments()]
            timings = {f"import:{name}": seconds for name, seconds in session.import_seconds().items()}
        self.learn(met, timings)
        return met, timings

    def learn(self, met: Iterable[EnvironmentReport], timings: Mapping[str, float]) -> None:
        """Take over what a session learnt, of this process or of another."""
        self._met += met
        self._timings |= timings

    def finished(self, *, interrupted: bool = False, left_out: Mapping[str, str] | None = None) -> Run:
        """The run: cells with their known breaks, environments, counts and exit code."""
        assert self.recorder is not None
        return self.recorder.run(
            self._known_of(self._met, self.recorder.cells.values()),
            self.breaks,
            interrupted=interrupted,
            strict=self.request.fail_on_warned,
            timings=self._timings,
            left_out=left_out,
        )

    def _known_of(self, met: Iterable[EnvironmentReport], cells: Iterable[Cell]) -> list[EnvironmentReport]:
        """The environments of cells: as met now, as an earlier part of the run met them, or as they are locked."""
        found = _unique([*(self.recorder.environments if self.recorder else ()), *met])
        for cell in cells:
            for role, name in (("creator", cell.creator), ("loader", cell.loader)):
                if name not in {one.name for one in found}:
                    found.append(self._not_met(name, role))
        return found

    def _not_met(self, name: str, role: str) -> EnvironmentReport:
        if name not in self._looked_up:
            self._looked_up[name] = EnvironmentReport(name=name, role=(role,), versions=self._versions_of(name))
        return self._looked_up[name]

    def _versions_of(self, name: str) -> dict[str, str]:
        """Versions of an environment whose cells were all checked in an earlier part of the run."""
        request = self.request
        asked = (*request.loaders, *(request.creators if request.pair else ()))
        specs = {plan.name_of(self.environments, spec): spec for spec in asked}
        with contextlib.suppress(HarnessError):
            if name in specs:
                return dict(self.environments.locked_versions(specs[name]))
            return dict(recorded_versions(request.places.store(), name))
        return {}


def _unique(reports: list[EnvironmentReport]) -> list[EnvironmentReport]:
    """One report an environment: with all its roles, and the facts of the report that has most."""
    found: dict[str, EnvironmentReport] = {}
    for one in reports:
        other = found.get(one.name, one)
        best = max(one, other, key=lambda r: (len(r.facts), len(r.versions)))
        found[one.name] = best.model_copy(update={"role": tuple(sorted({*one.role, *other.role}))})
    return [found[name] for name in sorted(found)]
