"""`export` and `judge`: the worker alone does its part on a machine that has nothing but Python and the libraries."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from harness import report
from harness.cli import common
from harness.core import data, matrix, observation
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.matrix import CellId
from harness.core.observation import Done
from harness.core.run import Cell, EnvironmentReport
from harness.core.verdict import Verdict
from harness.judge import cell_result
from harness.judge import expectations as expect
from harness.report import terminal
from harness.runner import folder as runs
from harness.runner import plan as planning
from harness.runner.workers.process import WORKER
from harness.store import device_class
from harness.worker.shared import PLAN_FORMAT

_META = "judge.json"


def export(arguments: argparse.Namespace) -> int:
    """Write a folder with worker, plan and fixtures, to carry to another machine."""
    folder = Path(arguments.folder).resolve()
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", "an empty or new folder", "name another")
    store, environments = common.store_of(arguments), common.environments_of(arguments)
    creators = planning.creators_with_fixtures(store, tuple(arguments.creator))
    versions = environments.locked_versions(arguments.loader)
    name = arguments.name or planning.name_of(environments, arguments.loader)
    declared = common.chosen(
        common.matrix_of(arguments).scenarios(hub=arguments.hub), arguments.keyword, arguments.families
    )
    device = device_class.Device.named(arguments.device_class or arguments.device)
    if device.kind != arguments.device:
        raise UsageError(f"{arguments.device_class} is no {arguments.device}", f"{arguments.device}-…", "mend one")
    cells: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for creator in creators:
        for one in declared:
            cell = CellId(one.name, creator, name, arguments.device)
            try:
                manifest = store.manifest(creator, one.name)
                unmade = matrix.unsupported(one, manifest.versions, creating=True)
                if reason := unmade or matrix.unsupported(one, versions):
                    raise UsageError(reason)
                target = f"fixtures/{creator}/{one.name}"
                golden, note = device_class.golden_for(manifest, device)
                store.materialise(manifest, folder / target, golden)
            except HarnessError as error:
                skipped[str(cell)] = str(error)
                continue
            resolved = matrix.resolve(one, versions)
            cells.append(
                {"id": str(cell), "kind": "replay", "scenario": resolved, "fixture": target,
                 "golden": golden, "golden_note": note,
                 "time_limit_s": one.scenario.time_limit_s, "family": one.family,
                 "method": one.scenario.adapter.config.removesuffix("Config")}
            )  # fmt: skip
    if not cells:
        raise UsageError(
            "no cell has a fixture", "at least one", f"first of {len(skipped)}: {next(iter(skipped.values()), '')}"
        )
    worker = WORKER
    shutil.copytree(worker, folder / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    preload = sorted({name for d in declared for name in d.imports})
    _write(folder / "plan.json", {"format": PLAN_FORMAT, "preload": preload, "cells": cells})
    creators_versions = {
        c: dict(store.manifest(c, store.scenarios(c)[0]).versions) for c in creators if store.scenarios(c)
    }
    _write(
        folder / _META, {"loader": name, "device": arguments.device, "left_out": skipped, "creators": creators_versions}
    )
    common.out(f"{len(cells)} cells in {folder}, {len(skipped)} left out")
    common.out(
        f"there: PYTHON {folder.name}/worker --plan {folder.name}/plan.json"
        f" --out {folder.name}/out --device {arguments.device}"
    )
    common.out(f"here:  peft-regress judge {arguments.folder}")
    return ExitCode.CLEAN


def judge(arguments: argparse.Namespace) -> int:
    """Compare what a worker left in a folder, and write the report."""
    folder = Path(arguments.folder).resolve()
    out = Path(arguments.out).resolve() if arguments.out else folder / "out"
    plan, meta = _read(folder / "plan.json"), _read(folder / _META)
    said = _said(out)
    cells = [_cell(folder, out, number, entry, said) for number, entry in enumerate(plan["cells"])]
    target = common.path(arguments.reports) or data.reports()
    recorder = runs.Recorder(
        runs.new_folder(target, f"judged-{meta['loader']}"), [cell.id for cell in cells],
        f"peft-regress judge {folder}",
        f"{', '.join(meta['creators'])} under {meta['loader']}, run apart",
    )  # fmt: skip
    for cell in cells:
        recorder.add(cell)
    expectations = expect.load(common.matrix_of(arguments).folder / "expectations.toml")
    run = recorder.run(_environments(out, meta), expectations, left_out=meta["left_out"])
    report.write(run, recorder.folder)
    recorder.close()
    if arguments.json:
        common.out((recorder.folder / "report.json").read_text())
    else:
        terminal.render(run, common.console())
        common.say(f"report: {recorder.folder}")
    return run.exit_code


def _cell(folder: Path, out: Path, number: int, entry: dict[str, Any], said: list[dict[str, Any]]) -> Cell:
    identity = planning.parsed(entry["id"])
    done_folder = out / "cells" / str(number)
    try:
        reply = _read(done_folder / "reply.json")
    except UsageError:
        unusable = [facts["gpu"] for facts in said if not facts.get("gpu", {"usable": True})["usable"]]
        if identity.device != device_class.CPU and unusable:
            cell = cell_result.no_device(identity, unusable[0])
        else:
            found = f"the worker left no reply in {done_folder}"
            cell = cell_result.could_not_tell(identity, Verdict.NOT_COMPARABLE, found)
        return cell.model_copy(update={"family": entry["family"], "method": entry["method"]})
    done = Done(
        entry["id"], reply["outcome"], reply.get("detail", ""), _tail(done_folder / "log.txt"), reply["duration_s"]
    )
    try:
        if done.outcome != "done":
            cell = cell_result.died(identity, done)
        else:
            _refuse_another_device(entry, identity, said)
            golden = observation.read(folder / entry["fixture"] / "golden")
            cell = cell_result.cell(identity, golden, observation.read(done_folder / "now"), done)
            note = entry.get("golden_note")
            cell = cell.model_copy(update={"notes": (*cell.notes, note)}) if note else cell
    except HarnessError as error:
        cell = cell_result.could_not_tell(identity, Verdict.NOT_COMPARABLE, str(error))
    return cell.model_copy(
        update={
            "family": entry["family"],
            "method": entry["method"],
            "reproduce": f"PYTHON worker --plan plan.json --out DIR -k '{identity}'",
        }
    )


def _refuse_another_device(entry: dict[str, Any], identity: CellId, said: list[dict[str, Any]]) -> None:
    """The golden that was carried along must be of the device that the box then had."""
    kept = entry.get("golden", device_class.CPU)
    for facts in said if kept != device_class.CPU else ():
        device = device_class.Device.of(facts.get("gpu"), identity.device)
        if not device.is_of(kept):
            raise HarnessError(
                f"{identity}: exported with the golden of {kept}, and run on {device.own_class}",
                "a golden of the device that it runs on", f"export anew with --device-class {device.own_class}",
            )  # fmt: skip


def _said(out: Path) -> list[dict[str, Any]]:
    """The facts of each process that began: one, or one a GPU."""
    found = []
    for path in sorted(out.glob("hello*.json")):
        facts = _read(path)
        found.append(facts.get("facts", facts))
    return found


def _environments(out: Path, meta: dict[str, Any]) -> list[EnvironmentReport]:
    found = [
        EnvironmentReport(name=name, role=("creator",), kind="fixture", versions=v)
        for name, v in meta["creators"].items()
    ]
    try:
        facts = _read(out / "hello.json")
    except UsageError:
        return found
    facts = facts.get("facts", facts)
    versions = facts.pop("versions", {})
    return [
        *found,
        EnvironmentReport(name=meta["loader"], role=("loader",), kind="elsewhere", versions=versions, facts=facts),
    ]


def _tail(path: Path, lines: int = 30) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}", "a folder that `peft-regress export` made", "check the path") from error


def _write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")
