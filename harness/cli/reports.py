"""`list`, `report` and `diff`: what there is, and what runs say."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import report
from harness.cli import common
from harness.core import run as results
from harness.core.errors import ExitCode, UsageError
from harness.core.matrix import NEEDS_HUB
from harness.judge import run_diff
from harness.report import markdown, tables, terminal
from harness.runner import shards


def list_(arguments: argparse.Namespace) -> int:
    """List scenarios, with where they guard what."""
    declared = common.chosen(common.matrix_of(arguments).scenarios(hub=True), arguments.keyword, arguments.family)
    store = common.store_of(arguments)
    made = {creator: set(store.scenarios(creator)) for creator in store.creators()}
    if arguments.json:
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
        return ExitCode.CLEAN
    width = max((len(one.name) for one in declared), default=0)
    for one in declared:
        creators = ", ".join(creator for creator, names in made.items() if one.name in names) or "no fixture"
        creators = f"{NEEDS_HUB}; {creators}" if one.needs_hub else creators
        common.out(f"{one.name:{width}}  {one.family:20}  {one.base_name:18}  {creators}")
        if arguments.verbose:
            common.out(f"{'':{width}}  {' '.join(one.scenario.why.split())}")
    common.say(f"{len(declared)} scenarios")
    return ExitCode.CLEAN


def report_(arguments: argparse.Namespace) -> int:
    """Render runs again, or merge the shards of one plan."""
    run = shards.merge([results.load(Path(folder)) for folder in arguments.run])
    if arguments.out and arguments.format in ("csv", "parquet"):
        tables.write(run.frame(), Path(arguments.out))
        return ExitCode.CLEAN
    if arguments.out:
        for path in report.write(run, Path(arguments.out)):
            common.say(str(path))
        return ExitCode.CLEAN
    if arguments.format in ("csv", "parquet"):
        raise UsageError(f"--format {arguments.format} without --out", "a file to write", "add --out FILE")
    if arguments.format == "json":
        common.out_json(run.model_dump(mode="json"))
    elif arguments.format == "markdown":
        common.out(markdown.render(run, verbose=True))
    elif arguments.format in report.FORMATS:
        common.out(report.FORMATS[arguments.format][1](run).decode())
    else:
        terminal.render(run, common.console(), terminal.NORMAL + min(arguments.verbose, 1))
    return ExitCode.CLEAN


def diff(arguments: argparse.Namespace) -> int:
    """Compare two runs: regressed, fixed, still, new, gone."""
    before, now = results.load(Path(arguments.before)), results.load(Path(arguments.now))
    run = results.finished(run_diff.against(now, before))
    if arguments.json:
        common.out_json([c.model_dump(mode="json") for c in run.comparisons])
    elif arguments.format == "markdown":
        common.out(markdown.render(run, budget=20_000))
    else:
        terminal.render(run, common.console(), terminal.NORMAL + min(arguments.verbose, 1))
    return ExitCode.REGRESSED if any(c.change == "regressed" for c in run.comparisons) else ExitCode.CLEAN
