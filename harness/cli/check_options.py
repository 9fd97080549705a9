"""The options of `check`, `pair` and `matrix`, defined once: for argparse, and for pytest's own command line.

Each function declares a group of options; `PytestGroup` lets it declare them to pytest too, where two have another
name because pytest has options of that name itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from harness.cli.parser import (
    SPEC,
    Arguments,
    Output,
    Parser,
    choice,
    count,
    handler,
    hub,
    percent,
    processes,
    saying,
    seconds,
    where,
)
from harness.core.cell_settings import ATTENTIONS, DTYPES
from harness.runner.change.plan import ChangeRequest
from harness.runner.request import CheckRequest

_DTYPE = (
    "also load the base in this precision, load the adapter on it, and compare the result with the same model in "
    "float64; the allowed error is measured operator by operator (docs/settings.md)"
)
_ATTENTION = (
    "have Transformers models compute with this attention (attn_implementation); a release or model that lacks it "
    "is unsupported, and flash attention without a GPU or its package is no-device"
)
_CHANGE = """\
Replays the same cells under the change and under a baseline. A cell is red only if it is worse under the change; a
deviation on both sides is `still` and does not count. By default, --against checks the adapters that execute what
changed, with the fixtures of PEFT 0.6.1, or of the first release that has the feature. Where it is not recorded what
they execute, the changed files decide. Of many it checks a set that has every feature once (--dry-run -v lists the
features). If only comments or docstrings changed, nothing is checked, and the exit code is 0. Changed files are read
from --changed-files, or from Git (since the branch left its upstream, with uncommitted changes), or by comparing the
installed files. If no installed file changed, one scenario of each family is checked."""


@dataclass(frozen=True)
class PytestOptions:
    """What the command line passes on to pytest, which runs the cells."""

    numprocesses: str = ""
    exitfirst: bool = False
    last_failed: bool = False
    collect_only: bool = False
    junitxml: str = ""
    pytest: tuple[str, ...] = ()
    """Anything else, after `--`."""


@dataclass(frozen=True)
class CheckOptions:
    """Options of `check`, `pair` and `matrix`."""

    request: CheckRequest = CheckRequest()
    change: ChangeRequest = ChangeRequest()
    """For `--against`. Its baseline is every check's."""
    runner: PytestOptions = PytestOptions()
    output: Output = Output()
    quiet: int = 0
    format: str = "terminal"
    dry_run: bool = False
    shard: str = ""
    """`2/3`: the second of three parts of the plan."""
    loaders: tuple[str, ...] = ()
    """Those of `--loader`; empty where it is not given."""

    def left_out(self) -> dict[str, str]:
        """Scenarios that need `--hub`, of those that -k and --family select, and why they are not checked."""
        selection = replace(self.request.selection, keyword=self.request.expression)
        return selection.left_out(self.request.places.matrix())


class PytestGroup:
    """Declares options to pytest. Those that pytest has itself get another name, or are left to it."""

    _RENAMED = {"--fixtures": "--fixtures-dir", "--strict": "--fail-on-warned", "--trace": "--trace-cells"}
    _OF_PYTEST = {"-k", "--scenarios"}
    """Scenario files are pytest's positional arguments."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def add_argument(self, *flags: str, **more: Any) -> None:
        """Declare an option."""
        more.setdefault("dest", flags[-1].removeprefix("--").replace("-", "_"))
        if not self._OF_PYTEST & set(flags):
            self._group.addoption(*(self._RENAMED.get(flag, flag) for flag in flags), **more)


def add_to_pytest(parser: pytest.Parser) -> None:
    """Declare the options of a request to pytest."""
    group = PytestGroup(parser.getgroup("peft-regress", "peft-regress: replay stored adapters under other libraries"))
    creators(group, metavar="NAME", help="whose fixtures (default: all that are stored)")
    loaders(group, metavar="SPEC", help=f"what replays them: {SPEC} (default: current)")
    group.add_argument("--pair", action="store_true", help="make each fixture first, as creator; store nothing")
    forward(group)
    _selection(group)
    _computing(group)
    _running(group)
    cluster(group)


def add_request(one: Parser) -> None:
    """Declare what `check`, `pair` and `matrix` have in common."""
    _selection(one.add_argument_group("choose scenarios and cells"))
    _computing(one.add_argument_group("choose what loaders compute with", "shown after the device, as [cpu+bfloat16]"))
    running = one.add_argument_group("choose how cells run")
    _running(running)
    cluster(running)
    running.add_argument(
        "--shard", metavar="K/N",
        help="check the Kth of N parts of the plan, for jobs on several machines; `report RUN… --out DIR` merges them",
    )  # fmt: skip
    _output(one.add_argument_group("choose what is printed"))
    _runner(one.add_argument_group("options of pytest, which runs the cells"))


def add_running(one: Parser) -> None:
    """Declare how cells run and what is printed: for `try`, which chooses the cells itself."""
    running = one.add_argument_group("choose how cells run")
    _computing(running)
    _running(running)
    where(running, fixtures=False)
    group = one.add_argument_group("choose what is printed")
    group.add_argument("--format", choices=["terminal", "markdown"], help="what is printed (default: terminal)")
    saying(group)
    group.add_argument("-q", "--quiet", action="count", default=0, help="print the summary sentence only")


def creators(one: Arguments, **more: Any) -> None:
    """Declare whose fixtures are replayed."""
    one.add_argument("--creator", dest="creators", action="append", **more)


def loaders(one: Arguments, **more: Any) -> None:
    """Declare what replays them."""
    one.add_argument("--loader", dest="loaders", action="append", **more)


def forward(one: Arguments) -> None:
    """Declare whether old loaders get new features. Not an option of `matrix` and `pair`, which always do so."""
    one.add_argument(
        "--forward", action="store_true",
        help="also run loaders that are older than the feature: do they refuse the adapter or load it wrongly?",
    )  # fmt: skip


def change(one: Parser) -> None:
    """Declare `--against` and what goes with it."""
    group = one.add_argument_group("check one change against a baseline", _CHANGE)
    group.add_argument(
        "--against", dest="change", metavar="SPEC",
        help="the change: a checkout or an unpacked wheel (../peft, ../transformers; committed or not), PATH@REF, "
        "git+URL@REF, or peft==X. --baseline is what it is compared with: current, v0200, ../peft@main, or an earlier "
        "run (default: the newest release)",
    )  # fmt: skip
    group.add_argument(
        "--changed-files", nargs="+", type=str, metavar="FILE",
        help="names of the changed files, as in Git; - reads them from stdin, one a line",
    )  # fmt: skip
    group.add_argument("--every-scenario", action="store_true", help="check every scenario, whichever files changed")
    group.add_argument(
        "--last-red", action="store_true", help="only the cells that regressed when this change was last checked"
    )


def cluster(one: Arguments) -> None:
    """Declare where cells run."""
    one.add_argument(
        "--cluster", metavar="dask://HOST:PORT",
        help="check the cells on the nodes of a Dask cluster; --jobs is then for each node (docs/clusters.md)",
    )  # fmt: skip


def _selection(one: Arguments) -> None:
    choice(one, keyword="expression")
    hub(one)
    one.add_argument("--cell", dest="cells", action="append", metavar="ID", help="only this cell; globs work")
    where(one)


def _computing(one: Arguments) -> None:
    one.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to compute (default: cpu)")
    one.add_argument("--dtype", choices=DTYPES, help=_DTYPE)
    one.add_argument("--attention", choices=ATTENTIONS, help=_ATTENTION)


def _running(one: Arguments) -> None:
    one.add_argument("--each", action="store_true", help="replay every fixture; do not reuse results")
    one.add_argument(
        "--fresh",
        action="store_true",
        help="compute every cell, also those that an earlier run computed (see `env gc`)",
    )
    one.add_argument(
        "--audit", type=percent, default=0.02, metavar="PERCENT",
        help="of the cells that an earlier run computed, compute this share again and compare (default: 2%%)",
    )  # fmt: skip
    one.add_argument(
        "--further", action="store_true",
        help="also use each adapter in ways that no golden records: two at once, on a base in bfloat16, and more. "
        "--against does so once for each family, method and switch of a method",
    )  # fmt: skip
    one.add_argument(
        "--trace", action="store_true",
        help="record which functions of the libraries each cell executes, unless an earlier run did. --against does so "
        "for its baseline, and needs no run of cells that execute nothing of a change",
    )  # fmt: skip
    one.add_argument("--jobs", type=count, default=0, metavar="N", help="cells at once (default: cores)")
    one.add_argument("--time-limit", type=seconds, metavar="S", help="seconds for each cell, instead of its own limit")
    one.add_argument(
        "--startup-timeout", type=seconds, metavar="S",
        help="seconds until a worker must have imported its libraries (default: 300, more on a busy machine)",
    )  # fmt: skip
    one.add_argument("--resume", action="store_true", help="continue the newest unfinished run of the same cells")
    one.add_argument("--strict", dest="fail_on_warned", action="store_true", help="a new warning fails the run too")
    one.add_argument("--reports", metavar="DIR", help="where the run's folder is made (default: reports/)")
    handler(one)


def _output(one: Arguments) -> None:
    one.add_argument(
        "--baseline", metavar="RUN",
        help="compare with an earlier run: regressed, fixed, still, new, gone. With --against also an environment or "
        "PATH@REF",
    )  # fmt: skip
    one.add_argument("--format", choices=["terminal", "markdown"], help="what is printed (default: terminal)")
    one.add_argument("--dry-run", action="store_true", help="list the cells that would be checked")
    saying(one)
    one.add_argument("-q", "--quiet", action="count", default=0, help="print the summary sentence only")


def _runner(one: Arguments) -> None:
    one.add_argument(
        "-n", dest="numprocesses", type=processes, metavar="N", help="processes (xdist); a loader's cells stay together"
    )
    one.add_argument("-x", dest="exitfirst", action="store_true", help="stop at the first deviation")
    one.add_argument("--lf", dest="last_failed", action="store_true", help="only the cells that failed last time")
    one.add_argument("--co", "--collect-only", dest="collect_only", action="store_true", help="list the cells")
    one.add_argument("--junitxml", metavar="FILE", help="write pytest's own JUnit file too")
    one.add_argument("pytest", nargs="*", type=str, metavar="-- ARG", help="more arguments for pytest, after --")
