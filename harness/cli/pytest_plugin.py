"""Cells as pytest items: `pytest matrices/scenarios --loader current -k loha -n auto -x --lf` just works.

A scenario file is a collector, each of its cells an item. Without xdist all selected cells are begun at once, on as
many cores as there are, in one warm worker process; each item then waits for its own. Under xdist all cells of
a loader go to one process, so that each loader is imported once.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import report
from harness.cli import cli_settings
from harness.cli.pytest_items import CELL_PROPERTY, CellItem, ScenarioCollector
from harness.core import data
from harness.core.errors import HarnessError
from harness.core.matrix import CellId, Matrix
from harness.core.run import Cell, EnvironmentReport, Run
from harness.judge import expectations
from harness.report import summary
from harness.runner import folder as runs
from harness.runner import plan as planning
from harness.runner.plan import Planned
from harness.runner.session import Session
from harness.store.fixtures import Store, recorded_versions

_CELL_IN_NODE = re.compile(r"::([^:]+@[^:]+:.+\[[\w+]+\])$")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of a check; the same as of `peft-regress check`."""
    group = parser.getgroup("peft-regress", "peft-regress: replay stored adapters under other libraries")
    group.addoption(
        "--creator", action="append", default=[], metavar="NAME", help="whose fixtures (default: all there are)"
    )
    group.addoption(
        "--loader", action="append", default=[], metavar="SPEC",
        help="what reloads them: a name, peft==X, a checkout, a git URL, python:PATH (default: current)",
    )  # fmt: skip
    group.addoption("--device", default="cpu", help="cpu or cuda")
    cli_settings.add_options(group)
    group.addoption(
        "--matrices", default=None, metavar="DIR", help="scenarios, bases and environments outside the repository"
    )
    group.addoption(
        "--fixtures-dir", default=None, metavar="DIR", help="where fixtures are (default: the repository's)"
    )
    group.addoption("--reports", default=None, metavar="DIR", help="where the run's folder is made (default: reports/)")
    group.addoption("--jobs", type=int, default=0, help="cells at once in each process (default: cores)")
    group.addoption(
        "--pair", action="store_true", help="make each fixture first, in the creator's environment; store nothing"
    )
    group.addoption("--hub", action="store_true", help="scenarios on models of the hub too, from its cache")
    group.addoption("--forward", action="store_true", help="try loaders too that lack a feature by declaration")
    group.addoption("--each", action="store_true", help="compute each cell by itself, those too that are alike")
    group.addoption(
        "--cell", action="append", default=[], metavar="ID", help="this cell only (a glob may name several)"
    )
    group.addoption("--family", action="append", default=[], metavar="NAME", help="scenarios of this family only")
    group.addoption(
        "--time-limit", type=float, default=None, metavar="S", help="seconds for a cell, in place of its own"
    )
    group.addoption("--resume", action="store_true", help="go on with the newest unfinished run of the same cells")
    group.addoption("--fail-on-warned", action="store_true", help="a new warning fails the run too")
    group.addoption("--worker-handler", default=None, help=argparse.SUPPRESS)


def pytest_configure(config: pytest.Config) -> None:
    """One state a process; with xdist, cells of one loader stay together."""
    config.pluginmanager.register(Check(config), "peft-regress-check")


class Check:
    """A check in one process. The controller (or the only process) keeps the run; workers only yield cells."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.worker = hasattr(config, "workerinput")
        self.matrices = _path(config.getoption("--matrices"))
        self.fixtures = _path(config.getoption("--fixtures-dir")) or data.fixtures()
        self.pair = bool(config.getoption("--pair"))
        self.asked = planning.Asked(
            creators=tuple(config.getoption("--creator")),
            loaders=tuple(config.getoption("--loader")) or ("current",),
            device=config.getoption("--device"),
            cells=tuple(config.getoption("--cell")),
            families=tuple(config.getoption("--family")),
            hub=bool(config.getoption("--hub")),
            limit_s=config.getoption("--time-limit"),
            settings=cli_settings.of(config),
        )
        self.environments = planning.environments_of(self.matrices, _say)
        self.scratch = Path(tempfile.gettempdir())
        self.matrix: Matrix | None = None
        self.session: Session | None = None
        self.recorder: runs.Recorder | None = None
        self.run: Run | None = None
        self.error: HarnessError | None = None
        self.reports: list[EnvironmentReport] = []
        self.timings: dict[str, float] = {}
        self.expectations: tuple[expectations.Expectation, ...] = ()
        self.items: list[CellItem] = []
        self.listener: Any = None
        """Is told `planned(n)` and `finished(cell)`; how the command line shows progress."""
        self.notices: Callable[[], tuple[str, ...]] = tuple
        """What the report is to tell besides the cells, asked when it is written."""
        self.left_out: Mapping[str, str] = {}
        self.wanted: Callable[[Planned], bool] = lambda _: True
        """Which of the planned cells there are at all."""
        self.finishing: Callable[[Run, runs.Recorder], Run] = lambda run, _: run
        """Has the last word on the run before it is written."""
        self._begun: set[str] = set()
        self._found: dict[str, EnvironmentReport] = {}
        self._earlier: dict[str, Cell] | None = None

    # -- collecting -------------------------------------------------------------------------------------------------

    def cells_of(self, file: Path) -> list[Planned]:
        """The planned cells of one scenario file."""
        if self.matrix is None:
            self.matrix = planning.matrix_of(self.matrices)
            where = (self.matrices or data.matrices()) / "expectations.toml"
            self.expectations = expectations.load(where)
        creators = self.asked.creators
        if not self.pair:
            creators = planning.creators_with_fixtures(Store(self.fixtures), creators)
        asked = planning.Asked(**{**self.asked.__dict__, "creators": creators})
        planned = planning.plan(self.matrix.read(file), asked, self.environments, described=self.pair)
        return [cell for cell in planned if self.wanted(cell)]

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
        """Loader by loader, as they are checked, though the files are collected one after the other."""
        cells = [item for item in items if isinstance(item, CellItem)]
        if len(cells) == len(items):  # among other tests they stay where they are
            order = {spec: number for number, spec in enumerate(self.asked.loaders)}
            cells.sort(key=lambda item: order.get(item.planned.loader_spec, 0))
            items[:] = cells

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The plan is what is left after -k, --lf and the rest have chosen."""
        self.items = [item for item in session.items if isinstance(item, CellItem)]
        if self.worker or not self.items or self.config.option.collectonly:
            return
        self._begin([str(item.planned.id) for item in self.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """With xdist the controller collects nothing: it has the plan from the first worker that has collected."""
        cells = [str(cell) for cell in map(_cell_in, ids) if cell]
        if cells and self.recorder is None:
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

    def _begin(self, plan: list[str]) -> None:
        try:
            self._begin_run(plan)
        except HarnessError as error:
            self.error = error
            said = [] if self.listener else [str(error)]  # the command line says it itself
            raise pytest.UsageError(*said) from error

    def _begin_run(self, plan: list[str]) -> None:
        folder = self._reports()
        cells = [planning.parsed(cell) for cell in plan]
        creators, loaders = sorted({cell.creator for cell in cells}), sorted({cell.loader for cell in cells})
        if self.config.getoption("--resume"):
            run_folder = runs.to_resume(folder, plan)
        else:
            run_folder = runs.new_folder(folder, "+".join(creators[:3]) + "-" + "+".join(loaders[:3]))
        title = f"{', '.join(creators)} under {', '.join(loaders)}"
        self.recorder = runs.Recorder(run_folder, plan, shlex.join(["peft-regress", *sys.argv[1:]]), title)
        if self.listener:
            self.listener.planned(len(plan), len(self.recorder.resumed))

    # -- running ----------------------------------------------------------------------------------------------------

    def result(self, item: CellItem) -> Cell:
        """The cell of an item, from an earlier part of this run or from the session."""
        planned = item.planned
        if str(planned.id) in self._before():
            return self._before()[str(planned.id)]
        session = self._session()
        if self.worker:
            # under loadgroup all of a group go to the process that gets one of it
            self._start([i.planned for i in self.items if i.planned.id.loader == planned.id.loader])
        else:
            self._start([i.planned for i in self.items])
        return session.result(planned)

    def _before(self) -> Mapping[str, Cell]:
        """The cells that an earlier part of this run has judged, by id."""
        if self._earlier is None:
            found: list[Cell] = []
            if self.recorder:
                found = [self.recorder.cells[cell] for cell in self.recorder.resumed]
            elif self.worker and self.config.getoption("--resume"):
                found = runs.judged_before(self._reports(), [str(item.planned.id) for item in self.items])
            self._earlier = {cell.id: cell for cell in found}
        return self._earlier

    def _start(self, cells: list[Planned]) -> None:
        waiting = [c for c in cells if str(c.id) not in self._begun and str(c.id) not in self._before()]
        self._begun.update(str(cell.id) for cell in waiting)
        self._session().start(waiting)

    def _session(self) -> Session:
        if self.session is None:
            self.scratch = Path(tempfile.mkdtemp(prefix="peft-regress-"))
            store = Store(self.scratch / "fixtures", origin="created") if self.pair else Store(self.fixtures)
            self.session = Session(
                self.environments,
                store,
                self.scratch,
                jobs=self._jobs(),
                creating=self.pair,
                forward=bool(self.config.getoption("--forward")),
                share=not self.config.getoption("--each"),
                log=_say,
                handler=_path(self.config.getoption("--worker-handler")),
                options=self._places(),
                finished=self._keep,
            )
        return self.session

    def _reports(self) -> Path:
        return _path(self.config.getoption("--reports")) or data.reports()

    def _places(self) -> str:
        """The options of this check that a line which reproduces one of its cells needs too."""
        named = {"--matrices": "--matrices", "--fixtures": "--fixtures-dir"}
        given = {option: self.config.getoption(name) for option, name in named.items()}
        return "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)

    def _jobs(self) -> int:
        asked = int(self.config.getoption("--jobs"))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not self.worker:
            return asked or cores
        groups = len({item.planned.id.loader for item in self.items})
        processes = int(self.config.workerinput["workercount"])  # type: ignore[attr-defined]
        return asked or max(1, cores // min(groups, processes))

    def expected(self, cell: Cell) -> Cell:
        """The cell with its expectation, as far as this process can tell."""
        reports = self.session.environment_reports((cell.creator, cell.loader)) if self.session else ()
        versions = {one.name: one.versions for one in self._known_of(reports, [cell])}
        cells, _ = expectations.apply([cell], self.expectations, versions, datetime.date.today())
        return cells[0]

    def _known_of(self, reports: Iterable[EnvironmentReport], cells: Iterable[Cell]) -> list[EnvironmentReport]:
        """The environments of cells: as met here, as an earlier part of the run met them, or as they are locked."""
        found = _unique([*(self.recorder.environments if self.recorder else ()), *reports])
        for cell in cells:
            for role, name in (("creator", cell.creator), ("loader", cell.loader)):
                if name not in {one.name for one in found}:
                    found.append(self._looked_up(name, role))
        return found

    def _looked_up(self, name: str, role: str) -> EnvironmentReport:
        if name not in self._found:
            self._found[name] = EnvironmentReport(name=name, role=(role,), versions=self._versions_of(name))
        return self._found[name]

    def _versions_of(self, name: str) -> dict[str, str]:
        """Versions of an environment whose cells were all checked in an earlier part of the run."""
        asked = (*self.asked.loaders, *(self.asked.creators if self.pair else ()))
        specs = {planning.name_of(self.environments, spec): spec for spec in asked}
        with contextlib.suppress(HarnessError):
            if name in specs:
                return dict(self.environments.locked_versions(specs[name]))
            return dict(recorded_versions(Store(self.fixtures), name))
        return {}

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the controller: keep each cell as it finishes."""
        for name, value in report.user_properties:
            if name == CELL_PROPERTY and report.when == "call" and self.recorder and isinstance(value, str):
                self._keep(Cell.model_validate_json(value))

    def _keep(self, cell: Cell) -> None:
        """Keep a finished cell, once: in this process as soon as it is checked, whatever pytest waits for."""
        if self.recorder and self.recorder.add(cell) and self.listener:
            self.listener.finished(cell)

    # -- ending -----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker hands its environments over; the controller writes the report."""
        reports, timings = self._close_session()
        if self.worker:
            environments = [r.model_dump(mode="json") for r in reports]
            handed = {"environments": environments, "timings": timings}
            self.config.workeroutput["peft_regress"] = handed  # type: ignore[attr-defined]
            return
        self.reports += reports
        self.timings |= timings
        if self.recorder is not None:
            self._finish(session)

    def _close_session(self) -> tuple[list[EnvironmentReport], dict[str, float]]:
        if self.session is None:
            return [], {}
        with self.session:
            self.session.cancel()
            reports = [*self.session.environment_reports(), *self.session.failed_environments()]
            timings = {f"import:{name}": seconds for name, seconds in self.session.import_seconds().items()}
        return reports, timings

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """With xdist: take over what a worker process learnt of its environments."""
        output = getattr(node, "workeroutput", {}).get("peft_regress")
        if output:
            self.reports += [EnvironmentReport.model_validate(r) for r in output["environments"]]
            self.timings |= output["timings"]

    def _finish(self, session: pytest.Session) -> None:
        assert self.recorder is not None
        # -x and --maxfail stop early on purpose; the rest was asked for and is not there, so it is no whole run either
        interrupted = len(self.recorder.cells) < len(self.recorder.plan) and not session.shouldfail
        found = self.recorder.run(
            self._known_of(self.reports, self.recorder.cells.values()),
            self.expectations,
            interrupted=bool(interrupted),
            strict=bool(self.config.getoption("--fail-on-warned")),
            timings=self.timings,
            left_out=self.left_out,
        ).model_copy(update={"notices": self.notices()})
        self.run = self.finishing(found, self.recorder)
        report.write(self.run, self.recorder.folder)
        self.recorder.close()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Under plain pytest: the sentence, and where the report is."""
        if self.run is not None and self.recorder is not None:
            terminalreporter.section("peft-regress")
            terminalreporter.write_line(str(summary.sentence(self.run)))
            terminalreporter.write_line(f"report: {self.recorder.folder}")


def _cell_in(node: str) -> CellId | None:
    """The cell that an item's id names; None for an item that is none of ours."""
    found = _CELL_IN_NODE.search(node)
    return planning.parsed(found[1]) if found else None


def _has_scenarios(path: Path) -> bool:
    pattern = "*.toml" if path.name == "scenarios" else "**/scenarios/*.toml"
    return path.suffix == ".toml" or any(path.glob(pattern))


def _unique(reports: list[EnvironmentReport]) -> list[EnvironmentReport]:
    """One report an environment: with roles put together, and the one that knows most."""
    found: dict[str, EnvironmentReport] = {}
    for one in reports:
        other = found.get(one.name, one)
        best = max(one, other, key=lambda r: (len(r.facts), len(r.versions)))
        found[one.name] = best.model_copy(update={"role": tuple(sorted({*one.role, *other.role}))})
    return [found[name] for name in sorted(found)]


def _path(text: str | None) -> Path | None:
    return Path(text).resolve() if text else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
