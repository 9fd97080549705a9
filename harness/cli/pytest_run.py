"""Runs planned cells under pytest, and prints the run: what `check`, `pair`, `matrix` and `check --against` share."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from harness.cli import common, streams
from harness.cli.check_options import CheckOptions, PytestOptions
from harness.cli.progress import Listener
from harness.cli.pytest_plugin import CheckPlugin
from harness.core import data
from harness.core.errors import ExitCode, UsageError
from harness.core.files import TERMINATING, one_interrupt
from harness.core.run import Run
from harness.envs.environments import Environments
from harness.envs.lookout import Lookout
from harness.report import markdown, terminal
from harness.runner.change.plan import ChangePlan
from harness.runner.folder import Recorder
from harness.runner.plan import Planned
from harness.runner.request import CheckRequest


class NothingRan(UsageError):
    """No cell was selected by pytest's own options."""

    exit_code = ExitCode.CANNOT_TELL


def replay(
    options: CheckOptions,
    request: CheckRequest,
    planned: Sequence[Planned],
    environments: Environments,
    *,
    left_out: Mapping[str, str],
    finishing: Callable[[Run, Recorder], Run] = lambda run, _: run,
    growing: ChangePlan | None = None,
) -> int:
    """Run the planned cells that pytest's options select, and print the run; its exit code.

    Args:
        request: what was planned, with its creators and loaders named.
        left_out: scenarios that are not checked, and why.
        finishing: has the last word on the run before it is written.
        growing: the plan of a check of a change, which says what to check because of a finished cell.

    Raises:
        HarnessError: an argument is wrong, or nothing was compared.
    """
    if request.cluster and options.runner.numprocesses:
        raise UsageError(
            "--cluster and -n",
            "one of them: both spread the cells over processes",
            "leave out -n; --jobs is for each node",
        )
    silent = options.quiet > 0
    lookout = None if silent or options.runner.collect_only else Lookout(environments)
    with Listener(streams.console(stderr=True), quiet=silent) as listener:
        plugin = CheckPlugin(
            request, environments, planned=planned, listener=listener, left_out=left_out, finishing=finishing,
            notices=lookout.notices if lookout else tuple, growing=growing,
        )  # fmt: skip
        code = _run_pytest(plugin, options.runner)
    if options.runner.collect_only:
        return ExitCode.CLEAN if code == pytest.ExitCode.OK else ExitCode.CANNOT_TELL
    run, folder = _outcome(plugin, code)
    print_run(run, folder, options)
    for notice in run.notices:
        common.say(notice)
    return run.exit_code


def _run_pytest(plugin: CheckPlugin, options: PytestOptions) -> int:
    """Run the cells; pytest's exit code.

    Raises:
        HarnessError: of the check itself, or of the arguments. Any other error that is no cell's passes too.
    """
    printed = io.StringIO()
    arguments = _arguments(options, plugin.planned or ())
    quiet = contextlib.nullcontext() if options.collect_only else contextlib.redirect_stdout(printed)
    with one_interrupt(TERMINATING), quiet:  # they end a run as Ctrl-C does
        code = int(pytest.main(arguments, plugins=[plugin]))
    if plugin.interrupted and plugin.run is None:
        raise KeyboardInterrupt  # before there was anything to keep
    if plugin.error is not None:
        raise plugin.error
    if code == pytest.ExitCode.USAGE_ERROR and not options.collect_only:
        raise UsageError(
            f"pytest refuses the arguments\n{printed.getvalue()[-800:]}", "arguments that pytest knows", "see --help"
        )
    return code


def _arguments(options: PytestOptions, planned: Sequence[Planned]) -> list[str]:
    """pytest's command line. What is to be checked is not in it: the plugin has that."""
    # -s: what is printed of progress, and of environments that are built first, is for the user and no test's output
    words = ["-s", "-p", "harness.cli.pytest_plugin", f"--rootdir={data.root()}"]
    # a configuration of a check's own, so that the settings of our own tests do not apply
    words += ["-c", str(Path(__file__).parent / "check.ini")]
    words += dict.fromkeys(str(cell.declared.file) for cell in planned)
    given = {"-x": options.exitfirst, "--lf": options.last_failed, "--collect-only": options.collect_only}
    words += [flag for flag, on in given.items() if on]
    words += ["-n", options.numprocesses] if options.numprocesses else []
    words += [f"--junitxml={options.junitxml}"] if options.junitxml else []
    return [*words, *(["-q"] if options.collect_only else ["-p", "no:terminal"]), *options.pytest]


def _outcome(plugin: CheckPlugin, code: int) -> tuple[Run, Path]:
    """The run that was made, and its folder.

    Raises:
        NothingRan: there is none.
    """
    recorder = plugin.checking.recorder
    if plugin.run is not None and recorder is not None:
        return plugin.run, recorder.folder
    nothing = code == pytest.ExitCode.NO_TESTS_COLLECTED
    why = "--lf selects nothing" if nothing else f"pytest ended with {code}"
    raise NothingRan(f"nothing was compared: {why}", "at least one cell", "loosen the selection; --co lists the cells")


def print_run(run: Run, folder: Path, options: CheckOptions) -> None:
    """Print a run in the form that the options name, and where its report is."""
    if options.output.json:
        common.out((folder / "report.json").read_text())
    elif options.format == "markdown":
        common.out(markdown.render(run, markdown.COMMENT_BUDGET))
    else:
        verbosity = terminal.NORMAL + min(options.output.verbose, 1) - min(options.quiet, 1)
        # its notices follow on stderr: once is enough
        terminal.render(run.model_copy(update={"notices": ()}), streams.console(), verbosity)
    if not options.quiet:
        common.say(f"report: {folder}")
