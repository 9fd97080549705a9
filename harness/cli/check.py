"""`check` and `pair`: replay fixtures under loaders. pytest is the runner; this is the way in and the way out."""

from __future__ import annotations

import argparse
import contextlib
import io
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from harness import report
from harness.cli import common
from harness.cli.pytest_plugin import Check
from harness.core import data, run_file
from harness.core import run as results
from harness.core.cell_settings import Settings
from harness.core.errors import ExitCode, UsageError
from harness.core.run import Cell, Run
from harness.envs import missing_releases
from harness.envs.environments import Environments
from harness.judge import expectations, run_diff
from harness.report import markdown, terminal
from harness.runner import plan
from harness.runner.folder import Recorder
from harness.runner.plan import Planned


def check(arguments: argparse.Namespace) -> int:
    """Replay the stored fixtures of creators under loaders."""
    return _run(arguments, pair=False)


def pair(arguments: argparse.Namespace) -> int:
    """Create fixtures in one environment and replay them in another, in one go; nothing is stored but the report."""
    return _run(arguments, pair=True)


def _run(arguments: argparse.Namespace, pair: bool) -> int:
    baseline_run = _baseline_run(arguments)
    environments = common.environments_of(arguments)
    cells = _planned(arguments, pair, environments)
    if arguments.dry_run:
        return _dry_run(arguments, cells, environments)
    listener = Listener(common.console(stderr=True), quiet=arguments.quiet > 0)
    lookout = missing_releases.Lookout(environments) if not (arguments.quiet or arguments.collect_only) else None
    hook = Hook(listener, environments, lookout.notices if lookout else tuple, hub_left_out(arguments))
    with listener:
        code = run_pytest(pytest_arguments(arguments, pair), hook, show=arguments.collect_only)
    if arguments.collect_only:
        return ExitCode.CLEAN if code == pytest.ExitCode.OK else ExitCode.CANNOT_TELL
    run, folder = outcome(hook.check, code)
    if baseline_run is not None:
        run = results.finished(run_diff.against(run, baseline_run))
        report.write(run, folder)
    print_run(run, folder, arguments)
    for notice in run.notices:
        common.say(notice)
    return run.exit_code


def _baseline_run(arguments: argparse.Namespace) -> Run | None:
    """The earlier run that this one is held against, where one is named."""
    if not arguments.baseline:
        return None
    if not Path(arguments.baseline).exists():
        raise UsageError(
            f"no run at {arguments.baseline!r}", "the folder of an earlier run, or its report.json",
            "an environment as the baseline goes with --against",
        )  # fmt: skip
    return run_file.load(Path(arguments.baseline))


def _planned(arguments: argparse.Namespace, pair: bool, environments: Environments) -> list[Planned]:
    """The cells before -k and --lf choose; finds wrong input before anything is started.

    Raises:
        UsageError: a file is wrong, an environment is unknown, or nothing is selected.
    """
    matrix = common.matrix_of(arguments)
    if getattr(arguments, "all", False):
        arguments.creator = list(plan.creators_with_fixtures(common.store_of(arguments), (), environments))
    creators = tuple(arguments.creator)
    if not pair:
        creators = plan.creators_with_fixtures(common.store_of(arguments), creators)
    expectations.load(matrix.folder / "expectations.toml")
    asked = plan.Asked(
        creators,
        tuple(arguments.loader) or ("current",),
        arguments.device,
        tuple(arguments.cell),
        tuple(arguments.families),
        arguments.hub,
        settings=Settings(arguments.dtype, arguments.attention),
    )
    where = [Path(text).resolve() for text in arguments.scenarios] or None
    scenarios = matrix.scenarios(where, hub=arguments.hub, families=arguments.families)
    cells = plan.plan(scenarios, asked, environments, described=pair)
    if not cells:
        raise UsageError(
            "no cell is selected", "at least one scenario, creator and loader", "loosen --cell, --family or --scenarios"
        )
    return cells


def hub_left_out(arguments: argparse.Namespace) -> dict[str, str]:
    """The scenarios on models of the hub that nobody asked for."""
    where = [Path(text).resolve() for text in arguments.scenarios] or None
    return common.left_out(common.matrix_of(arguments).scenarios(where, hub=True), arguments)


def _dry_run(arguments: argparse.Namespace, cells: list[Planned], environments: Environments) -> int:
    built = {status.name: status.built is not None for status in environments.status()}
    loaders = list(dict.fromkeys(cell.id.loader for cell in cells))
    if arguments.json:
        common.out_json(
            {"cells": [str(cell.id) for cell in cells], "loaders": {n: built.get(n, False) for n in loaders}}
        )
        return ExitCode.CLEAN
    for cell in cells:
        common.out(str(cell.id))
    for scenario, why in hub_left_out(arguments).items():
        common.out(f"{scenario}: {why}")
    for name in loaders:
        common.out(f"loader {name}: {'built' if built.get(name) else 'would be built'}")
    common.out(f"{len(cells)} cells would be checked (before -k and --lf choose)")
    return ExitCode.CLEAN


def pytest_arguments(arguments: argparse.Namespace, pair: bool) -> list[str]:
    """What pytest is told of a check."""
    matrices = common.path(arguments.matrices) or data.matrices()
    where = [str(Path(text).resolve()) for text in arguments.scenarios] or [str(matrices / "scenarios")]
    files = [str(file) for text in where for file in _files(Path(text))]
    # -s: what is said of progress, of environments that are built first of all, is for the user and no test's output
    command = ["-s", "-p", "harness.cli.pytest_plugin", "-c", str(_configuration())]
    command += [f"--rootdir={data.root()}", *files]
    for option, values in (
        ("--creator", arguments.creator),
        ("--loader", arguments.loader),
        ("--cell", arguments.cell),
    ):
        command += [f"{option}={value}" for value in values]
    command += [f"--family={value}" for value in arguments.families]
    named = {"fixtures": "--fixtures-dir"}  # `--fixtures` is pytest's own
    for option in (
        "matrices",
        "fixtures",
        "reports",
        "time_limit",
        "jobs",
        "device",
        "dtype",
        "attention",
        "worker_handler",
    ):
        if value := getattr(arguments, option, None):
            command.append(f"{named.get(option, '--' + option.replace('_', '-'))}={value}")
    flags = {
        "--pair": pair,
        "--resume": arguments.resume,
        "--fail-on-warned": arguments.strict,
        "-x": arguments.exitfirst,
    }
    flags |= {
        "--hub": arguments.hub,
        "--forward": getattr(arguments, "forward", False),
        "--each": getattr(arguments, "each", False),
        "--lf": arguments.last_failed,
        "--collect-only": arguments.collect_only,
    }
    command += [flag for flag, given in flags.items() if given]
    if arguments.keyword:
        command += ["-k", arguments.keyword]
    if arguments.numprocesses:
        command += ["-n", arguments.numprocesses]
    if arguments.junitxml:
        command.append(f"--junitxml={arguments.junitxml}")
    return command + (["-q"] if arguments.collect_only else ["-p", "no:terminal"]) + list(arguments.pytest)


def _files(where: Path) -> list[Path]:
    if not where.is_dir():
        return [where]
    folder = where / "scenarios" if (where / "scenarios").is_dir() else where
    return sorted(folder.glob("*.toml"))


def _configuration() -> Path:
    """pytest's configuration for a check: none of ours, so that the settings of our own tests do not reach in."""
    return Path(__file__).parent / "check.ini"


def run_pytest(arguments: list[str], hook: Hook, show: bool) -> int:
    """Run the cells; returns pytest's exit code.

    Raises:
        HarnessError: of the check itself, or of the arguments.
    """
    said = io.StringIO()
    with contextlib.nullcontext() if show else contextlib.redirect_stdout(said):
        code = int(pytest.main(arguments, plugins=[hook]))
    if hook.interrupted and (hook.check is None or hook.check.run is None):
        raise KeyboardInterrupt  # before there was anything to keep
    if hook.check is not None and hook.check.error is not None:
        raise hook.check.error
    if code == pytest.ExitCode.USAGE_ERROR and not show:
        raise UsageError(
            f"pytest refuses the arguments\n{said.getvalue()[-800:]}", "arguments that pytest knows", "see --help"
        )
    return code


def outcome(check: Check | None, code: int) -> tuple[Run, Path]:
    """The run that was made, and its folder.

    Raises:
        NothingRan: there is none.
    """
    if check is None or check.run is None or check.recorder is None:
        why = (
            "-k, --lf or --cell select nothing"
            if code == pytest.ExitCode.NO_TESTS_COLLECTED
            else f"pytest ended with {code}"
        )
        raise NothingRan(
            f"nothing was compared: {why}", "at least one cell", "loosen the selection; --co lists the cells"
        )
    return check.run, check.recorder.folder


class NothingRan(UsageError):
    """No cell was selected by pytest's own options."""

    exit_code = ExitCode.CANNOT_TELL


def print_run(run: Run, folder: Path, arguments: argparse.Namespace) -> None:
    """Print a run as it was asked for, and where its report is."""
    if arguments.json:
        common.out((folder / "report.json").read_text())
    elif arguments.format == "markdown":
        common.out(markdown.render(run, budget=20_000))
    else:
        verbosity = terminal.NORMAL + min(arguments.verbose, 1) - min(arguments.quiet, 1)
        # its notices stand below, on stderr: once is enough
        terminal.render(run.model_copy(update={"notices": ()}), common.console(), verbosity)
    if not arguments.quiet:
        common.say(f"report: {folder}")


class Hook:
    """Gets hold of the plugin's state in this process, and of what becomes of each cell."""

    def __init__(
        self,
        listener: Listener,
        environments: Environments,
        notices: Callable[[], tuple[str, ...]] = tuple,
        left_out: Mapping[str, str] = {},
        keep: Callable[[Planned], bool] | None = None,
        finishing: Callable[[Run, Recorder], Run] | None = None,
    ) -> None:
        self.listener = listener
        self.keep = keep
        self.finishing = finishing
        self.notices = notices
        self.left_out = left_out
        self.environments = environments
        self.check: Check | None = None
        self.interrupted = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C, and not one of pytest's own exceptions that take after it."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """After the plugin's own."""
        found: Any = config.pluginmanager.get_plugin("peft-regress-check")
        self.check = found
        found.listener = self.listener
        found.notices = self.notices
        found.left_out = self.left_out
        found.wanted = self.keep or found.wanted
        found.finishing = self.finishing or found.finishing
        found.environments = self.environments  # one run means one commit of a git ref, one look at a checkout


class Listener:
    """Shows how far a run is: a bar on a terminal, a line now and then elsewhere."""

    EVERY_S = 10.0

    def __init__(self, console: Any, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.total = self.done = 0
        self.deviating = 0
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def planned(self, total: int, resumed: int) -> None:
        """The run has so many cells, and so many are done from before."""
        self.total, self.done = total, resumed
        if self.quiet:
            return
        if resumed:
            self.console.print(f"resuming: {resumed} of {total} cells are done")
        if self.console.is_terminal:
            columns = (
                TextColumn("checking"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("importing the libraries …", total=total)

    def finished(self, cell: Cell) -> None:
        """One cell is done; several threads say so."""
        with self._lock:
            self.done += 1
            self.deviating += cell.verdict.is_deviation
            self._show()

    def _show(self) -> None:
        if self._bar:
            self._bar.update(self._task, completed=self.done, description=f"{self.deviating} deviate")
        elif not self.quiet and (self.done == self.total or time.monotonic() - self._last > self.EVERY_S):
            self._last = time.monotonic()
            self.console.print(f"checked {self.done} of {self.total} cells, {self.deviating} deviate")
