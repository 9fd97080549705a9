"""`adopt`: make a scenario of a user's own adapter, and say whether it still shows what the adapter showed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.cli import common
from harness.cli.parser import SPEC, command, handler, where
from harness.core import data, run_file
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.run import Cell, Run
from harness.envs.environments import CURRENT, Environments
from harness.own import adopt as own
from harness.own import releases, still_shows, trial, written_by
from harness.own.trial import QUANTISATIONS, Trial, TrialRequest
from harness.runner import check
from harness.runner.request import CheckRequest, Selection
from harness.runner.workers import description


@dataclass(frozen=True)
class AdoptOptions:
    """Options of `adopt`."""

    name: str = ""
    trial: TrialRequest = field(default_factory=TrialRequest)
    request: CheckRequest = field(default_factory=CheckRequest)
    to_matrices: Path | None = None
    from_spec: str = ""
    to: str = ""
    run: Path | None = None
    """An earlier run of `try`."""
    replace: bool = False
    verify: bool = True
    json: bool = False


def add_to(commands: Any) -> None:
    one = command(
        commands, "adopt", adopt, "turn your own adapter into a small scenario that may be published",
        "  peft-regress adopt ./my-adapter --name lora-my-case               writes ./lora-my-case/\n"
        "  peft-regress adopt ./my-adapter --name lora-my-case --to-matrices matrices\n"
        "  peft-regress adopt ./my-adapter --name lora-my-case --to peft==0.17.0 --run reports/2026-01-01-…\n\n"
        "The scenario has a base of the same architecture with a few hundred kB of weights, and the adapter's\n"
        "configuration with targets, patterns and ranks scaled along. It has none of your values, names or paths.\n"
        "Then the adapter and the scenario are run in the same two environments, and the results are compared.\n\n"
        "exit codes:\n"
        "  0    written, and the scenario shows what the adapter shows (or --no-verify)\n"
        "  1    written, and something was lost in shrinking; the message says what\n"
        "  2    could not tell: a run was not compared, an environment failed, or the library refuses the small base\n"
        "  64   not an adapter, no base, or a file that is already there\n"
        "  130  interrupted; the files that were written are kept",
        AdoptOptions, resume="run the command again with --replace",
    )  # fmt: skip
    one.add_argument("adapter", metavar="ADAPTER", help="the folder with adapter_config.json")
    one.add_argument("--name", required=True, metavar="NAME", help="the name of the scenario: lora-my-case")
    one.add_argument(
        "--to-matrices", metavar="DIR", help="where scenarios/ and bases/ are written (default: a new folder ./NAME)"
    )
    one.add_argument("--replace", action="store_true", help="overwrite files of that name")
    one.add_argument("--base", metavar="DIR", help="the base model's folder, or its config.json")
    one.add_argument("--fetch", action="store_true", help="get the base's config.json from the Hub if need be")
    one.add_argument(
        "--from", dest="from_spec", metavar="SPEC",
        help=f"what wrote the adapter: {SPEC} (default: the newest release that can have written it)",
    )  # fmt: skip
    one.add_argument("--to", metavar="SPEC", help="what loads it, in the same forms (default: current)")
    one.add_argument("--quantize", choices=QUANTISATIONS, help="quantise the base, as it was for training")
    one.add_argument("--run", metavar="RUN", help="an earlier run of `try` to compare with (default: try it now)")
    one.add_argument(
        "--no-verify", dest="verify", action="store_false", default=True, help="write the files, and run nothing"
    )
    one.add_argument("--reports", metavar="DIR", help="where runs are written (default: reports/)")
    one.add_argument("--json", action="store_true", help="print JSON")
    where(one, fixtures=False)
    handler(one)


def adopt(options: AdoptOptions) -> int:
    """Write the scenario, run it, and compare with the whole adapter."""
    folder = options.to_matrices or Path.cwd() / options.name
    if not options.replace or not own.NAME.fullmatch(options.name):
        own.refuse_existing(options.name, folder)
    data.refuse_packaged(folder)
    ready = trial.prepare(options.trial, os.environ)
    environments = options.request.places.environments(common.say)
    earlier = _earlier(options, ready)
    creator, loader = _sides(options, ready, earlier, environments)
    built = environments.build(creator)
    table = written_by.load(data.matrices())
    made = own.adopt(ready, options.name, lambda request: description.describe(built, request), table)
    file = own.write(made, folder)
    for line in made.said:
        common.say(line)
    common.say(f"written: {file}, and bases/{made.name}.toml and .json beside its folder")
    if made.refused:
        raise _refused(made, folder, creator, loader)
    if not options.verify:
        return _done(options, file, None)
    request = replace(options.request, creators=(creator,), loaders=(loader,), pair=True)
    request = replace(request, places=replace(request.places, reports=request.places.reports_folder))
    whole = earlier[1] if earlier else _cell(request, trial.write(ready, request.places.reports_folder), environments)
    return _done(options, file, still_shows.compare(whole, _cell(request, file, environments)))


def _sides(
    options: AdoptOptions, ready: Trial, earlier: tuple[Run, Cell] | None, environments: Environments
) -> tuple[str, str]:
    """The environments that wrote and that load the adapter."""
    if earlier:
        run, cell = earlier
        specs = {each.name: each.spec or each.name for each in run.environments}
        return options.from_spec or specs.get(cell.creator, cell.creator), options.to or specs.get(
            cell.loader, cell.loader
        )
    creator = options.from_spec
    if not creator:
        release, why = releases.writer(ready.source.adapter, data.matrices())
        creator = releases.spec_for(release, environments.declarations(), quantised=bool(ready.quantize))
        common.say(f"{why}; its environment is {creator}")
    return creator, options.to or ("current-bnb" if ready.quantize else CURRENT)


def _earlier(options: AdoptOptions, ready: Trial) -> tuple[Run, Cell] | None:
    """The cell of an earlier run of `try`.

    Raises:
        UsageError: it has none of this adapter, or several.
    """
    if options.run is None:
        return None
    run = run_file.load(options.run)
    found = [cell for cell in run.cells if cell.scenario == ready.name]
    found = [cell for cell in found if not options.to or options.to == cell.loader] or found
    if len(found) != 1:
        names = ", ".join(cell.id for cell in found) or ", ".join(cell.id for cell in run.cells[:5])
        raise UsageError(
            f"{options.run}: {len(found)} cells of scenario {ready.name!r}: {names}", "one cell of this adapter",
            "name the loader with --to, or leave out --run",
        )  # fmt: skip
    return run, found[0]


def _cell(request: CheckRequest, file: Path, environments: Environments) -> Cell:
    run = check(replace(request, selection=Selection(scenarios=(file,))), log=common.say, environments=environments)
    (cell,) = run.cells
    common.say(f"{cell.id}: {cell.verdict}")
    return cell


def _refused(made: own.Adopted, folder: Path, creator: str, loader: str) -> HarnessError:
    return HarnessError(
        f"the library refuses the small base: {made.refused}",
        "a base that it builds: some constraint of this architecture was not kept",
        f"correct {folder / 'bases' / made.name}.json by hand (the sizes that the message names), then run "
        f"`peft-regress pair --creator {creator} --loader {loader} --scenarios "
        f"{folder / 'scenarios' / made.name}.toml`",
    )  # fmt: skip


def _done(options: AdoptOptions, file: Path, compared: still_shows.Compared | None) -> int:
    said: Mapping[str, Any] = {"scenario": str(file), "compared": list(compared.said) if compared else None}
    if options.json:
        common.out_json(said)
    else:
        common.out(str(file))
        for line in compared.said if compared else ("not run (--no-verify)",):
            common.say(line)
    common.say("next: replace the texts that begin with TODO; `peft-regress lint` says where")
    return compared.exit_code if compared else ExitCode.CLEAN
