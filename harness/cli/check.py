"""`check`, `pair` and `matrix`: replay fixtures under loaders and report what deviates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.cli import check_against, check_options, common, pytest_run
from harness.cli.check_options import CheckOptions
from harness.cli.parser import EXIT_CODES, SPEC, command
from harness.core import run_file
from harness.core.errors import ExitCode, UsageError
from harness.core.run import Run, finished
from harness.envs.environments import Environments
from harness.judge import run_diff
from harness.runner import grid, plan, planned, shards
from harness.runner.plan import Planned


def add_to(commands: Any) -> None:
    one = command(
        commands, "check", check, "replay stored fixtures under loaders and report what deviates",
        "  peft-regress check                                       all fixtures under the newest libraries\n"
        "  peft-regress check --creator v061 --loader peft==0.20.0 -k 'lokr or loha'\n"
        "  peft-regress check --against ../peft                     what does this change break?\n"
        "  peft-regress check --loader python:/opt/venv/bin/python --format markdown\n"
        "  peft-regress check --baseline reports/yesterday          what is new since that run?\n" + EXIT_CODES,
        CheckOptions,
    )  # fmt: skip
    group = one.add_argument_group("choose creators and loaders")
    check_options.creators(group, metavar="NAME", help="whose fixtures (default: all that are stored; repeatable)")
    group.add_argument(
        "--all", dest="every_creator", action="store_true",
        help="all creators, including those whose fixtures are made on demand; with --against every scenario too",
    )  # fmt: skip
    check_options.loaders(group, metavar="SPEC", help=f"{SPEC} (default: current; repeatable)")
    check_options.forward(group)
    check_options.change(one)
    check_options.add_request(one)

    one = command(
        commands, "pair", check, "create fixtures in one environment and replay them in another; store only the report",
        "  peft-regress pair --creator peft==0.9.0 --loader current\n"
        "  peft-regress pair --creator v061 --loader ../peft --scenarios my-scenarios.toml -k my-adapter\n"
        "  peft-regress pair --creator peft==0.13.2,transformers==4.36.2 --loader peft==0.14.0\n" + EXIT_CODES,
        CheckOptions,
    )  # fmt: skip
    check_options.creators(one, required=True, metavar="SPEC", help=f"what makes the fixtures: {SPEC}")
    check_options.loaders(one, required=True, metavar="SPEC", help="what replays them, in the same forms")
    one.set_defaults(pair=True)
    check_options.add_request(one)

    one = command(
        commands, "matrix", matrix, "replay the fixtures of several creators under several loaders",
        "  peft-regress matrix --creators all --loaders current\n"
        "  peft-regress matrix --creators v0191,v0200 --loaders 'v01*' -k lora       new under old\n"
        "  peft-regress matrix --creators all --loaders all -n 2                     old under new, new under old\n"
        "  peft-regress matrix --creators v061 --loaders v082,current --loaders peft==0.9.0,transformers==4.38.2\n"
        + EXIT_CODES,
        CheckOptions,
    )  # fmt: skip
    one.add_argument(
        "--creators", action="append", required=True, metavar="A,B,…",
        help="whose fixtures: names separated by commas, globs ('v01*'), or all (repeatable)",
    )  # fmt: skip
    one.add_argument(
        "--loaders", action="append", required=True, metavar="X,Y,…",
        help="what replays them: as --loader of check, separated by commas; globs of declared environments, or all. "
        "Several pins in one value are one environment (repeatable)",
    )  # fmt: skip
    one.set_defaults(forward=True)
    check_options.add_request(one)


def check(options: CheckOptions) -> int:
    """Replay fixtures under loaders. With `--against`, what a change does to them; as `pair`, create them first."""
    if options.change.change:
        return check_against.check(options)
    for option, given in (
        ("--changed-files", options.change.changed_files),
        ("--every-scenario", options.change.every_scenario),
        ("--last-red", options.change.last_red),
    ):
        if given:
            raise UsageError(f"{option} without --against", "a change to check", "add --against")
    return _replay(options)


def matrix(options: CheckOptions) -> int:
    """Replay every creator's fixtures under every loader. A loader older than the feature is tried too."""
    environments = options.request.places.environments(common.say)
    return _replay(replace(options, request=grid.expanded(options.request, environments)), environments)


def _replay(options: CheckOptions, environments: Environments | None = None) -> int:
    baseline = _baseline(options.change.baseline)
    environments = environments or options.request.places.environments(common.say)
    request = plan.named(options.request, environments)
    common.known_breaks(request.places)
    cells, shard = planned(request, environments), None
    if options.shard:
        shard, own = shards.of(cells, options.shard)
        cells = [cell for cell in cells if cell.id.scenario in own]
        request = replace(request, cells=tuple(str(cell.id) for cell in cells))  # for the processes of -n
    left_out = options.left_out()
    if options.dry_run:
        return _dry_run(options, cells, left_out, environments)

    def compared(run: Run, _: object) -> Run:
        run = run.model_copy(update={"shard": shard})
        return finished(run_diff.against(run, baseline)) if baseline is not None else run

    return pytest_run.replay(options, request, cells, environments, left_out=left_out, finishing=compared)


def _baseline(place: str) -> Run | None:
    """The earlier run that this one is compared with, if one is named."""
    if not place:
        return None
    if not Path(place).exists():
        raise UsageError(
            f"no run at {place!r}", "the folder of an earlier run, or its report.json",
            "an environment can be the baseline with --against",
        )  # fmt: skip
    return run_file.load(Path(place))


def _dry_run(
    options: CheckOptions, cells: Sequence[Planned], left_out: dict[str, str], environments: Environments
) -> int:
    built = {status.name: status.built is not None for status in environments.status()}
    loaders = {name: built.get(name, False) for name in dict.fromkeys(cell.id.loader for cell in cells)}
    if options.output.json:
        common.out_json({"cells": [str(cell.id) for cell in cells], "loaders": loaders})
        return ExitCode.CLEAN
    for cell in cells:
        common.out(str(cell.id))
    for scenario, why in left_out.items():
        common.out(f"{scenario}: {why}")
    for name, ready in loaders.items():
        common.out(f"loader {name}: {'built' if ready else 'would be built'}")
    common.out(f"{len(cells)} cells would be checked (before --lf chooses)")
    return ExitCode.CLEAN
