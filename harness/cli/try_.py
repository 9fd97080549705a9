"""`try`: a user's own adapter under the release that wrote it and under others."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.cli import check_options, common, pytest_run
from harness.cli.check_options import CheckOptions
from harness.cli.parser import EXIT_CODES, SPEC, command, count
from harness.core import data
from harness.core.errors import ExitCode, UsageError
from harness.core.run import Cell, Run
from harness.core.text import listed, one_line
from harness.core.verdict import Verdict
from harness.envs.environments import CURRENT, Environments
from harness.judge.breaks import Break
from harness.own import explained, releases, room, trial
from harness.own.trial import QUANTISATIONS, Trial, TrialRequest
from harness.runner import planned
from harness.runner.request import CheckRequest, Selection, cores

_EPILOG = """
Both environments are built, and the adapter's own file is loaded in both. By default the base is cut to the first two
layers that the adapter touches, in their true widths, so that a large model's adapter can be tried on a laptop. The
adapter's tensors of these layers are used as they are. The base's weights are not needed.

If the adapter deviates as a known break says, the break and its workaround are printed.
"""
_CODES = EXIT_CODES.replace("no deviation that is not a known break", "no deviation").replace(
    "something regressed, or a known break no longer holds (matrices/breaks/)",
    "it deviates, as a known break says or not",
)


@dataclass(frozen=True)
class TryOptions:
    """Options of `try`."""

    trial: TrialRequest = field(default_factory=TrialRequest)
    check: CheckOptions = field(default_factory=CheckOptions)
    from_spec: str = ""
    to: tuple[str, ...] = ()


def add_to(commands: Any) -> None:
    one = command(
        commands, "try", run, "load your own adapter under the release that wrote it and under others, and compare",
        "  peft-regress try ./my-adapter                                under the newest libraries\n"
        "  peft-regress try ./my-adapter --base ./base-model --to peft==0.17.0 --to current\n"
        "  peft-regress try ./my-adapter --from peft==0.6.1 --to python:/opt/venv/bin/python\n"
        "  peft-regress try ./my-adapter --layers 1                      needs less memory\n" + _EPILOG + _CODES,
        TryOptions,
    )  # fmt: skip
    one.add_argument("adapter", metavar="ADAPTER", help="the folder with adapter_config.json")
    group = one.add_argument_group("choose the base and the environments")
    group.add_argument(
        "--base", metavar="DIR",
        help="the base model's folder, or its config.json (default: looked for by the name in the adapter's "
        "configuration, in the Hub's cache on this machine)",
    )  # fmt: skip
    group.add_argument("--fetch", action="store_true", help="get the base's config.json from the Hub if need be")
    group.add_argument(
        "--from", dest="from_spec", metavar="SPEC",
        help=f"what wrote the adapter: {SPEC} (default: the newest release that can have written it)",
    )  # fmt: skip
    group.add_argument(
        "--to", action="append", metavar="SPEC", help="what loads it, in the same forms (default: current; repeatable)"
    )
    group.add_argument(
        "--layers",
        type=_layers,
        metavar="N",
        help="layers with the adapter that are kept (default: 2, or 1 if there is too little memory)",
    )
    group.add_argument("--whole", action="store_true", help="keep all layers and the whole vocabulary")
    group.add_argument("--quantize", choices=QUANTISATIONS, help="quantise the base, as it was for training")
    group.add_argument(
        "--trust-remote-code", action="store_true", help="use the base's own Python code, in the environments only"
    )
    check_options.add_running(one)


def _layers(text: str) -> int:
    """The type of a number of layers."""
    found = count(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}\n  expected: a whole number, 1 or more")
    return found


def run(options: TryOptions) -> int:
    """Try the adapter; the exit code is that of a check."""
    ready = trial.prepare(options.trial, os.environ)
    for line in trial.said(ready):
        common.say(line)
    environments = options.check.request.places.environments(common.say)
    request = _request(options, ready, environments)
    cells = planned(request, environments)
    known = common.known_breaks(request.places)
    finished: list[Run] = []

    def noted(run: Run, _: object) -> Run:
        run = run.model_copy(update={"cells": tuple(_with_notes(cell, ready) for cell in run.cells)})
        finished.append(explained.marked(run, ready, known, cells[0].declared))
        return finished[-1]

    code = pytest_run.replay(options.check, request, cells, environments, left_out={}, finishing=noted)
    for one in finished:
        versions = {each.name: each.versions for each in one.environments}
        for cell in one.cells:
            common.say(sentence(cell, versions))
            for line in _told(explained.explaining(cell, ready, versions, known, cells[0].declared)):
                common.say(line)
            if unseen := explained.unseen(cell, ready, versions, known, cells[0].declared):
                common.say("  this did not show here, but is known of such adapters; your own base may show it")
                for line in _told(unseen):
                    common.say(line)
        if code == ExitCode.CLEAN and any(cell.verdict.is_deviation for cell in one.cells):
            return ExitCode.REGRESSED  # a known break: nothing new, and yet the adapter is not as it was
    return code


def _told(known: Iterable[Break]) -> Iterator[str]:
    for one in known:
        yield f"  known break {one.id}: {' '.join(one.title.split())}"
        yield f"    workaround: {' '.join((one.workaround or 'none is known').split())}"


def _request(options: TryOptions, ready: Trial, environments: Environments) -> CheckRequest:
    """What `pair` would be asked for. Refuses before anything is written or built."""
    asked = options.check.request
    creator = options.from_spec or _writer(ready, data.matrices(), environments)
    loaders = options.to or (("current-bnb" if ready.quantize else CURRENT),)
    _refuse(creator, loaders, ready, environments)
    jobs = room.workers(ready.room, len(loaders), asked.jobs, cores(), room.available())
    file = trial.write(ready, asked.places.reports_folder)
    return replace(
        asked, creators=(creator,), loaders=loaders, pair=True, jobs=jobs, selection=Selection(scenarios=(file,))
    )


def _refuse(creator: str, loaders: Iterable[str], ready: Trial, environments: Environments) -> None:
    """Refuse environments that this adapter cannot be tried in.

    Raises:
        UsageError: one is declared for other bases, or lacks a package.
    """
    declared = environments.declaration(creator)
    if declared is not None and not declared.makes(ready.family):
        kind = "for quantised bases" if declared.families == ["bnb-*"] else f"of {listed(declared.families)}"
        own = "this base is quantised" if ready.quantize else "this base is not quantised"
        raise UsageError(
            f"--from {creator}: this environment only makes adapters {kind}, and {own}",
            "an environment for this base, such as " + ("bnb-v0120" if ready.quantize else "v0120 or peft==0.12.0"),
            "name one with --from" + _or_quantise(ready),
        )  # fmt: skip
    needed = ("peft", "transformers", "torch", *(("bitsandbytes",) if ready.quantize else ()))
    for option, spec in (("--from", creator), *(("--to", loader) for loader in loaders)):
        there = environments.locked_versions(spec)
        if missing := [package for package in needed if package not in there]:
            only = missing == ["bitsandbytes"]
            raise UsageError(
                f"{option} {spec}: this environment lacks {listed(missing)}",
                f"an environment with {listed(needed)}",
                "name one with bitsandbytes, such as bnb-v0120 or peft==0.12.0,bitsandbytes==0.46.0" if only
                else "install what is missing there, or name another environment",
            )  # fmt: skip


def _or_quantise(ready: Trial) -> str:
    kinds = ", ".join(QUANTISATIONS)
    return "" if ready.quantize else f", or pass --quantize with one of {kinds} if the adapter was trained so"


def _writer(ready: Trial, matrices: Path, environments: Environments) -> str:
    release, why = releases.writer(ready.source.adapter, matrices)
    spec = releases.spec_for(release, environments.declarations(), quantised=bool(ready.quantize))
    common.say(f"{why}; it is loaded under {spec} first, and --from names another environment")
    return spec


def _with_notes(cell: Cell, ready: Trial) -> Cell:
    cut = tuple(f"cut: {one}" for one in ready.cut.said)
    return cell.model_copy(update={"notes": (*cell.notes, *cut)})


def sentence(cell: Cell, versions: Mapping[str, Mapping[str, str]]) -> str:
    """The result in the words of the adapter's owner."""
    release = versions.get(cell.loader, {}).get("peft")
    under = f"peft {release}" if release else cell.loader
    under += f" ({cell.loader})" if release and cell.loader != CURRENT else ""
    match cell.verdict:
        case Verdict.EXACT | Verdict.CLOSE | Verdict.WARNED:
            return f"This adapter loads under {under} and computes the same ({cell.verdict})."
        case Verdict.SILENT_WRONG:
            return f"This adapter loads under {under} without an error, and does not compute the same ({cell.verdict})."
        case Verdict.BASE_MOVED:
            return f"This adapter has the same effect under {under}; the base itself computes something else."
        case Verdict.CONTRACT:
            return (
                f"This adapter computes the same under {under}, but something else about it changed ({cell.verdict})."
            )
        case Verdict.RUN_ERROR if raised := sorted({one.probe for one in cell.findings if one.verdict is cell.verdict}):
            return f"This adapter loads under {under}, but an error is raised in {listed(raised)} ({cell.verdict})."
        case Verdict.LOAD_ERROR | Verdict.RUN_ERROR | Verdict.CRASH | Verdict.TIMEOUT:
            error = next((one.message for one in cell.findings if one.verdict is cell.verdict), cell.reason)
            why = one_line(error.strip().partition("\n")[0], 300)
            return f"This adapter does not work under {under} ({cell.verdict}){f': {why}' if why else '.'}"
        case _:
            return f"Nothing can be said of this adapter under {under} ({cell.verdict}): {_first(cell.reason)}"


def _first(reason: str) -> str:
    """What was found and what to do next, of an error that has become a cell's reason."""
    found, _, rest = reason.strip().replace("\n", " ").partition("; expected:")
    next_step = rest.partition("; next: ")[2]
    return f"{found}\n  next: {next_step}" if next_step else found or "see the report"
