"""Cells as pytest items: `pytest matrices/scenarios --loader current -k loha -n auto -x --lf` just works.

A scenario file is a collector, each of its cells an item. Without xdist all selected cells are begun at once, on as
many cores as there are, in one warm worker process; each item then waits for its own. Under xdist all cells of
a loader go to one process, so that each loader is imported once.

`peft-regress check` hands a plugin with its request, its plan and its progress bar to `pytest.main`. Under plain pytest
the request is made of pytest's options, and each scenario file is planned as it is collected. With xdist the controller
sends its request to the worker processes.

PYTEST_DONT_REWRITE, because it is imported before pytest starts.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from harness import report
from harness.cli import check_options
from harness.cli.common import say
from harness.cli.parser import arguments_of, options_of
from harness.cli.pytest_items import CELL_PROPERTY, CellItem, ScenarioCollector
from harness.core.errors import HarnessError
from harness.core.matrix import CellId
from harness.core.run import Cell, EnvironmentReport, Run
from harness.envs.environments import Environments
from harness.report import sentence
from harness.runner import plan as planning
from harness.runner.change.plan import ChangePlan
from harness.runner.checking import Checking
from harness.runner.folder import Recorder
from harness.runner.plan import Planned
from harness.runner.request import CheckRequest, cores

_CELL_IN_NODE = re.compile(r"::([^:]+@[^:]+:.+\[[\w+]+\])$")
_REQUEST, _RESULT = "peft_regress_request", "peft_regress_result"
"""Where xdist carries the request to a worker process, and back what that learnt of its environments."""


class Listener(Protocol):
    """Gets the progress of a run."""

    def planned(self, total: int, resumed: int) -> None:
        """The run has `total` cells; an earlier run finished `resumed` of them."""

    def grown(self, total: int, why: str) -> None:
        """The run has `total` cells by now. Several threads call this."""

    def finished(self, cell: Cell) -> None:
        """One cell is done. Several threads call this."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of a check; the same as of `peft-regress check`."""
    check_options.add_to_pytest(parser)


def pytest_configure(config: pytest.Config) -> None:
    """One plugin a process: the one that `peft-regress check` brings along, or one that is made of the options."""
    if any(isinstance(plugin, CheckPlugin) for plugin in config.pluginmanager.get_plugins()):
        return
    handed = getattr(config, "workerinput", {}).get(_REQUEST)
    # pytest itself applies its -k, which knows more than the request's keyword
    request = options_of(CheckRequest, handed or {**vars(config.option), "keyword": ""})
    config.pluginmanager.register(CheckPlugin(request, request.places.environments(say)))


class CheckPlugin:
    """A check in one process. The controller (or the only process) keeps the run; workers only yield cells.

    Args:
        planned: the cells there are; None to plan each scenario file as it is collected.
        notices: called when the report is written; what it says besides the cells.
        left_out: scenarios that are not checked, and why.
        finishing: has the last word on the run before it is written.
        growing: the plan of a check of a change, which says what to check because of a finished cell.
    """

    def __init__(
        self,
        request: CheckRequest,
        environments: Environments,
        *,
        planned: Sequence[Planned] | None = None,
        listener: Listener | None = None,
        notices: Callable[[], tuple[str, ...]] = tuple,
        left_out: Mapping[str, str] | None = None,
        finishing: Callable[[Run, Recorder], Run] = lambda run, _: run,
        growing: ChangePlan | None = None,
    ) -> None:
        self.request = request
        self.environments = environments
        self.planned = planned
        self.listener = listener
        self.notices = notices
        self.left_out = left_out
        self.finishing = finishing
        self.growing = growing
        self.checking = Checking(
            request, environments, log=say, on_cell=self._progress, side_by_side=growing is not None,
            after=growing.after if growing else lambda _: (),
        )  # fmt: skip
        self.config: pytest.Config
        self.items: list[CellItem] = []
        self._started: set[str] = set()
        self.run: Run | None = None
        self.error: BaseException | None = None
        self.interrupted = False

    @property
    def worker(self) -> bool:
        """True in a process that yields cells to another one (xdist)."""
        return hasattr(self.config, "workerinput")

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Before the module's own, which makes no plugin where there is one."""
        self.config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """With xdist: a worker process gets the request as it is here."""
        if self.request.cluster:
            raise pytest.UsageError("--cluster and -n: leave out -n; --jobs is for each node")
        node.workerinput[_REQUEST] = arguments_of(self.request)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C, and not one of pytest's own exceptions that are derived from it."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        """An error that is no cell's ends the command in the place of pytest's own message."""
        self.error = self.error or (excinfo.value if self.listener else None)
        return self.error is not None

    # -- collecting -------------------------------------------------------------------------------------------------

    def cells_of(self, file: Path) -> list[Planned]:
        """The planned cells of one scenario file."""
        if self.planned is not None:
            return [cell for cell in self.planned if cell.declared.file == file]
        request = planning.named(self.request, self.environments)
        _ = self.checking.breaks  # a mistake in them is reported before anything is started
        return planning.plan(request.places.matrix().read(file), request, self.environments)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """A `*.toml` in a folder called `scenarios`, or named on the command line, is a file of scenarios."""
        if file_path.suffix != ".toml":
            return None
        if not parent.session.isinitpath(file_path) and file_path.parent.name != "scenarios":
            return None
        return ScenarioCollector.from_parent(parent, path=file_path, check=self)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """In the order in which they are checked, though the files are collected one after the other."""
        cells = [item for item in items if isinstance(item, CellItem)]
        if len(cells) == len(items):  # among other tests they stay where they are
            if self.growing:
                place = {str(cell.id): number for number, cell in enumerate(self.planned or ())}
                cells.sort(key=lambda item: place[str(item.planned.id)])
            else:
                order = {spec: number for number, spec in enumerate(self.request.loaders)}
                cells.sort(key=lambda item: order.get(item.planned.loader_spec, 0))
            items[:] = cells

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The plan is what is left after -k, --lf and the rest have chosen."""
        self.items = [item for item in session.items if isinstance(item, CellItem)]
        ids = [str(item.planned.id) for item in self.items]
        if self.worker:
            self.checking.plan, self.checking.jobs = tuple(ids), self._jobs_of_worker()
        elif self.items and not self.config.option.collectonly:
            self._begin(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """With xdist the controller collects nothing: it has the plan from the first worker that has collected."""
        cells = [str(cell) for cell in map(_cell_in, ids) if cell]
        if cells and self.checking.recorder is None:
            self._begin(cells)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """With xdist: all cells of a loader go to one process, so that no loader is started twice."""
        if not any(_has_scenarios(Path(argument.partition("::")[0])) for argument in config.args):
            return None
        from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

        class ByLoader(LoadScopeScheduling):  # type: ignore[misc]  # xdist's own groups need ids that pytest 9.2 hides
            def _split_scope(self, nodeid: str) -> str:
                cell = _cell_in(nodeid)
                return cell.loader if cell else nodeid

        return ByLoader(config, log)

    def _begin(self, ids: list[str]) -> None:
        """Open the run's folder."""
        try:
            command = shlex.join(["peft-regress", *sys.argv[1:]])
            selected = self.growing.selected if self.growing else None
            recorder = self.checking.record(ids, self.request.places.reports_folder, command, selected)
        except HarnessError as error:
            self.error = error
            said = [] if self.listener else [str(error)]  # the command line prints the error itself
            raise pytest.UsageError(*said) from error
        if self.listener:
            self.listener.planned(len(ids), len(recorder.resumed))

    # -- running ----------------------------------------------------------------------------------------------------

    def result(self, item: CellItem) -> Cell:
        """The cell of an item, from an earlier part of this run or from the session."""
        # a worker process gets all cells of a loader, if it gets one
        group = item.planned.id.loader if self.worker else ""
        try:
            if group not in self._started:
                self._started.add(group)
                self.checking.start(one.planned for one in self.items if group in ("", one.planned.id.loader))
            cell = self.checking.result(item.planned)
        except Exception as error:
            if self.listener:  # it is no cell's result: it ends the command, with its own message and exit code
                self.error = self.error or error
                item.session.shouldstop = str(error) or type(error).__name__
            raise
        self._grow(item)
        if self.checking.hopeless:
            item.session.shouldfail = self.checking.hopeless
        return cell

    def _grow(self, item: CellItem) -> None:
        """Add items for the cells that are checked because of the item's; pytest's loop goes on to them."""
        for planned in self.checking.added():
            beside = next(one for one in self.items if one.planned.declared.file == planned.declared.file)
            assert isinstance(beside.parent, ScenarioCollector)
            self.items.append(beside.parent.item(planned))
            item.session.items.append(self.items[-1])

    def expected(self, cell: Cell) -> Cell:
        """The cell with the known break that it matches, as far as this process knows."""
        return self.checking.expected(cell)

    def _jobs_of_worker(self) -> int:
        """Cells at once in this worker process: its share of the cores."""
        groups = len({item.planned.id.loader for item in self.items})
        processes = int(self.config.workerinput["workercount"])  # type: ignore[attr-defined]
        return self.request.jobs or max(1, cores() // max(1, min(groups, processes)))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the controller: keep each cell as it finishes."""
        for name, value in report.user_properties:
            if name == CELL_PROPERTY and report.when == "call" and isinstance(value, str):
                self.checking.keep(Cell.model_validate_json(value))

    def _progress(self, cell: Cell) -> None:
        if self.listener:
            if self.growing:
                self.listener.grown(len(self.checking.plan), self.growing.newer.words)
            self.listener.finished(cell)

    # -- ending -----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker hands its environments over; the controller writes the report."""
        met, timings = self.checking.close()
        if self.worker:
            handed = {"environments": [one.model_dump(mode="json") for one in met], "timings": timings}
            self.config.workeroutput[_RESULT] = handed  # type: ignore[attr-defined]
        elif self.checking.recorder is not None:
            self._finish(session, self.checking.recorder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """With xdist: take over what a worker process learnt of its environments."""
        output = getattr(node, "workeroutput", {}).get(_RESULT)
        if output:
            met = [EnvironmentReport.model_validate(one) for one in output["environments"]]
            self.checking.learn(met, output["timings"])

    def _finish(self, session: pytest.Session, recorder: Recorder) -> None:
        # -x and --maxfail stop early on purpose: cells are missing, but the run was not interrupted
        interrupted = len(recorder.cells) < len(recorder.plan) and not session.shouldfail
        found = self.checking.finished(interrupted=bool(interrupted), left_out=self.left_out)
        self.run = self.finishing(found.model_copy(update={"notices": self.notices()}), recorder)
        report.write(self.run, recorder.folder)
        recorder.close()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Under plain pytest: the sentence, and where the report is."""
        if self.run is not None and self.checking.recorder is not None:
            terminalreporter.section("peft-regress")
            terminalreporter.write_line(str(sentence.of(self.run)))
            terminalreporter.write_line(f"report: {self.checking.recorder.folder}")


def _cell_in(node: str) -> CellId | None:
    """The cell that an item's id names; None for an item that is none of ours."""
    found = _CELL_IN_NODE.search(node)
    return planning.parsed(found[1]) if found else None


def _has_scenarios(path: Path) -> bool:
    pattern = "*.toml" if path.name == "scenarios" else "**/scenarios/*.toml"
    return path.suffix == ".toml" or any(path.glob(pattern))
