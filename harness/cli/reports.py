"""`list`, `report` and `diff`: list scenarios, render runs, compare runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import report
from harness.cli import common, streams
from harness.cli.parser import Output, choice, command, saying, where
from harness.core import run as results
from harness.core import run_file
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.matrix import NEEDS_HUB
from harness.judge import run_diff
from harness.report import markdown, tables, terminal
from harness.runner import shards
from harness.runner.request import Places, Selection
from harness.store.fixtures import Store
from harness.store.manifest import BadFixture

_FORMATS = ["terminal", "markdown", "json", "html", "junit", "csv", "parquet"]


@dataclass(frozen=True)
class ListOptions:
    places: Places = Places()
    selection: Selection = Selection()
    output: Output = Output()


@dataclass(frozen=True)
class ReportOptions:
    runs: tuple[Path, ...]
    format: str = "terminal"
    out: Path | None = None
    output: Output = Output()


@dataclass(frozen=True)
class DiffOptions:
    before: Path
    now: Path
    format: str = "terminal"
    output: Output = Output()


def add_to(commands: Any) -> None:
    one = command(commands, "list", list_, "list the scenarios and the creators that have fixtures for them",
                   "  peft-regress list -v --family lokr\n  peft-regress list --json", ListOptions,
                  prints=True)  # fmt: skip
    where(one)
    choice(one, scenarios=False)
    saying(one)
    one = command(commands, "report", report_, "render a run again, or merge runs of one plan",
                   "  peft-regress report reports/20261122-v061-current --format markdown\n"
                   "  peft-regress report shard-1 shard-2 --out merged\n"
                   "  peft-regress report reports/x --format csv --out x.csv", ReportOptions, prints=True)  # fmt: skip
    one.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder or its report.json")
    one.add_argument("--format", choices=_FORMATS, default="terminal", help="what is printed (default: terminal)")
    one.add_argument("--out", metavar="PATH", help="write to this folder, in all formats; a file for csv and parquet")
    one.add_argument("-v", "--verbose", action="count", default=0, help="print a line for each cell")
    one = command(commands, "diff", diff, "compare two runs: regressed, fixed, still, new, gone",
                   "  peft-regress diff reports/yesterday reports/today --format markdown", DiffOptions)  # fmt: skip
    one.add_argument("before", metavar="RUN_A", help="the earlier run's folder or report.json")
    one.add_argument("now", metavar="RUN_B", help="the later run's")
    one.add_argument("--format", choices=["terminal", "markdown"], default="terminal", help="what is printed")
    saying(one)


def list_(options: ListOptions) -> int:
    """List scenarios, what each guards, and who has fixtures for it."""
    declared = options.selection.of(options.places.matrix().scenarios(hub=True))
    store = options.places.store(required=False)
    made, code = _made(store)
    if options.output.json:
        common.out_json(
            [
                {
                    "name": one.name, "family": one.family, "base": one.base_name, "file": str(one.file),
                    "config": one.scenario.adapter.config, "why": " ".join(one.scenario.why.split()),
                    "guards": one.scenario.guards, "requires": one.scenario.requires,
                    "hub": one.needs_hub,
                    "fixtures": [creator for creator, names in made.items() if one.name in names],
                }
                for one in declared
            ]
        )  # fmt: skip
        return code
    width = max((len(one.name) for one in declared), default=0)
    for one in declared:
        creators = ", ".join(creator for creator, names in made.items() if one.name in names) or "no fixture"
        creators = f"{NEEDS_HUB}; {creators}" if one.needs_hub else creators
        common.out(f"{one.name:{width}}  {one.family:20}  {one.base_name:18}  {creators}")
        if options.output.verbose:
            common.out(f"{'':{width}}  {' '.join(one.scenario.why.split())}")
    common.say(f"{len(declared)} scenarios")
    return code


def _made(store: Store) -> tuple[dict[str, set[str]], ExitCode]:
    """Creator → scenarios it has fixtures of, and the exit code. A file that is not readable is reported on stderr."""
    made: dict[str, set[str]] = {}
    code = ExitCode.CLEAN
    for creator in store.creators():
        try:
            made[creator] = set(store.scenarios(creator))
        except BadFixture as error:
            common.say(str(error))
            code = ExitCode.CANNOT_TELL
    return made, code


def report_(options: ReportOptions) -> int:
    """Render runs again, or merge the shards of one plan."""
    run = shards.merge([run_file.load(place) for place in options.runs])
    if options.out and options.format in ("csv", "parquet"):
        tables.write(tables.cells(run), options.out)
        return ExitCode.CLEAN
    if options.out:
        for path in report.write(run, options.out):
            common.say(str(path))
        return ExitCode.CLEAN
    if options.format in ("csv", "parquet"):
        raise UsageError(f"--format {options.format} without --out", "a file to write", "add --out FILE")
    if options.format == "json":
        common.out_json(run.model_dump(mode="json"))
    elif options.format == "markdown":
        common.out(markdown.render(run, verbose=True))
    elif options.format in report.FORMATS:
        common.out(report.FORMATS[options.format][1](run).decode())
    else:
        terminal.render(run, streams.console(), terminal.NORMAL + min(options.output.verbose, 1))
    return ExitCode.CLEAN


def diff(options: DiffOptions) -> int:
    """Compare two runs: regressed, fixed, still, new, gone."""
    before, now = run_file.load(options.before), run_file.load(options.now)
    run = results.finished(run_diff.against(now, before))
    if options.output.json:
        common.out_json([c.model_dump(mode="json") for c in run.comparisons])
    elif options.format == "markdown":
        common.out(markdown.render(run, markdown.COMMENT_BUDGET))
    else:
        terminal.render(run, streams.console(), terminal.NORMAL + min(options.output.verbose, 1))
    if not run_diff.have_common(before, now):
        raise HarnessError(
            "nothing was compared: no cell was judged in both runs", "two runs of the same cells",
            "check the two runs; `peft-regress report RUN -v` lists a run's cells",
        )  # fmt: skip
    return ExitCode.REGRESSED if any(c.change == "regressed" for c in run.comparisons) else ExitCode.CLEAN
