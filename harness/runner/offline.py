"""Replays on a machine that has nothing but Python and the libraries: `export` a folder, run its worker, `judge` it.

The steps of a cell are those of `harness.runner.pipeline`; only the reply is read from what the worker left.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import matrix, observation
from harness.core.errors import HarnessError, UsageError
from harness.core.files import must_be_new
from harness.core.matrix import CellId, Declared
from harness.core.observation import Done
from harness.core.progress import Log, quiet
from harness.core.run import Cell, EnvironmentReport, Run
from harness.core.verdict import Verdict
from harness.judge import breaks, cell_result
from harness.runner import folder as runs
from harness.runner import pipeline, plan
from harness.runner.fixture_source import Fixture, StoredFixtures
from harness.runner.golden import Golden, laid_out
from harness.runner.pipeline import Reply, then
from harness.runner.plan import Planned
from harness.runner.request import Places, Selection
from harness.runner.workers.process import WORKER, tail
from harness.store.device_class import CPU, Device
from harness.store.fixtures import recorded_versions
from harness.store.manifest import BadFixture
from harness.worker.files import read_json, read_regular, tree_digest
from harness.worker.shared import PLAN_FORMAT

_PLAN = "plan.json"
_META = "judge.json"


@dataclass(frozen=True)
class ExportRequest:
    """Which cells another machine computes."""

    folder: Path
    """Gets the worker, its plan and the fixtures; empty or new."""
    creators: tuple[str, ...] = ()
    """Names; all that have fixtures where none is named."""
    loader: str = "current"
    """An environment whose versions are about those of the other machine."""
    name: str = ""
    """What the other machine's environment is called in the report; default: the loader's name."""
    device: str = CPU
    device_class: str = ""
    """The class of the other machine's device, which chooses the goldens: `cuda-sm90`."""
    places: Places = Places()
    selection: Selection = Selection()


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    cells: int
    left_out: Mapping[str, str]
    """Cell → why it can't be computed."""


@dataclass(frozen=True)
class JudgeRequest:
    """Which folder to judge."""

    folder: Path
    """What `export` wrote."""
    out: Path | None = None
    """What the worker wrote; default: `out` in the folder."""
    places: Places = Places()

    @property
    def results(self) -> Path:
        """What the worker wrote."""
        return self.out or self.folder / "out"


# -- export ------------------------------------------------------------------------------------------------------------


def export(request: ExportRequest, log: Log = quiet) -> Exported:
    """Write a folder with worker, plan and fixtures, to be carried to another machine.

    Raises:
        UsageError: the folder is not empty, the device class is of another device, or no cell has a fixture.
    """
    must_be_new(request.folder)
    device = Device.named(request.device_class or request.device)
    if device.kind != request.device:
        raise UsageError(
            f"{request.device_class} is no {request.device}",
            f"{request.device}-…",
            "correct --device or --device-class",
        )
    store, environments = request.places.store(), request.places.environments(log)
    creators = plan.creators_with_fixtures(store, request.creators)
    versions = environments.locked_versions(request.loader)
    name = request.name or plan.name_of(environments, request.loader)
    declared = request.selection.chosen(request.places.matrix())
    stored = StoredFixtures(environments, store)
    entries: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for creator in creators:
        for one in declared:
            cell = Planned(CellId(one.name, creator, name, request.device), one, creator, request.loader)
            entry = _entry(cell, stored, versions, request.folder, device)
            if isinstance(entry, Cell):
                left_out[entry.id] = entry.reason
            else:
                entries.append(entry)
    if not entries:
        raise UsageError(
            "no cell has a fixture", "at least one", f"first of {len(left_out)}: {next(iter(left_out.values()), '')}"
        )
    _write(request.folder, entries, declared)
    known = {creator: dict(recorded_versions(store, creator)) for creator in creators if store.scenarios(creator)}
    meta = {
        "loader": name, "device": request.device, "left_out": left_out, "creators": known,
        "plan": _digest(request.folder / _PLAN),
    }  # fmt: skip
    _write_json(request.folder / _META, meta)
    return Exported(len(entries), left_out)


def _entry(
    cell: Planned, stored: StoredFixtures, versions: Mapping[str, str], folder: Path, device: Device
) -> dict[str, Any] | Cell:
    """A cell of the worker's plan, its fixture laid out; the cell itself where it can't be computed."""
    target = f"fixtures/{cell.id.creator}/{cell.id.scenario}"
    try:
        usable = then(stored.fixture(cell), lambda fixture: _usable(cell, versions, fixture))
        golden = then(usable, lambda fixture: laid_out(cell.id, fixture, folder / target, device))
    except HarnessError as error:
        return pipeline.failed(cell.id, error)
    return then(golden, lambda golden: _planned(cell, versions, folder, target, golden))


def _usable(cell: Planned, versions: Mapping[str, str], fixture: Fixture) -> Fixture | Cell:
    reason = matrix.unsupported(cell.declared, versions)
    return cell_result.could_not_tell(cell.id, Verdict.UNSUPPORTED, f"loader: {reason}") if reason else fixture


def _planned(cell: Planned, versions: Mapping[str, str], folder: Path, target: str, golden: Golden) -> dict[str, Any]:
    asked = pipeline.request(cell, versions)
    return {
        "id": str(cell.id), "kind": asked["kind"], "scenario": asked["scenario"], "fixture": target,
        "fixture_digest": tree_digest(folder / target),
        "golden": golden.device_class, "golden_note": golden.note, "time_limit_s": cell.time_limit_s,
        "family": cell.declared.scenario.family, "method": cell.declared.method,
    }  # fmt: skip


def _write(folder: Path, entries: list[dict[str, Any]], declared: list[Declared]) -> None:
    shutil.copytree(WORKER, folder / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    preload = sorted({name for one in declared for name in one.imports})
    _write_json(folder / _PLAN, {"format": PLAN_FORMAT, "preload": preload, "cells": entries})


# -- judge -------------------------------------------------------------------------------------------------------------


def judge(request: JudgeRequest) -> tuple[Run, Path]:
    """Compare what a worker left in a folder with the goldens.

    Returns:
        the run, and its new folder, which has the cells and gets the reports (`harness.report.write`).

    Raises:
        UsageError: the folder is none that `export` wrote, or its plan was changed since.
    """
    asked, meta = _exported(request.folder)
    returned = _Returned(request.folder, request.results, _hellos(request.results))
    cells = [returned.result(number, entry) for number, entry in enumerate(asked["cells"])]
    recorder = runs.Recorder(
        runs.new_folder(request.places.reports_folder, f"judged-{meta['loader']}"), [cell.id for cell in cells],
        f"peft-regress judge {request.folder}",
        f"{', '.join(meta['creators'])} under {meta['loader']}, run on another machine",
    )  # fmt: skip
    for cell in cells:
        recorder.add(cell)
    known = breaks.load(request.places.matrix().folder)
    run = recorder.run(_environments(request.results, meta), known, left_out=meta["left_out"])
    recorder.close()
    return run, recorder.folder


@dataclass(frozen=True)
class _Returned:
    """The steps of a cell whose replies are in a folder."""

    folder: Path
    out: Path
    hellos: list[dict[str, Any]]
    """The facts of each process of the worker: one, or one for each GPU."""

    def result(self, number: int, entry: Mapping[str, Any]) -> Cell:
        """The cell of an entry of the plan, whatever is in its folder."""
        identity = plan.parsed(entry["id"])
        try:
            done = self._done(identity, number)
            reply = then(done, lambda done: self._reply(identity, entry, number, done))
            result = then(reply, lambda reply: pipeline.judged(identity, reply))
        except HarnessError as error:
            result = pipeline.failed(identity, error)
        except Exception as error:  # noqa: BLE001 - what another machine wrote must cost one cell only
            result = cell_result.own_failure(identity, error)
        return pipeline.decorated(
            result, family=entry["family"], method=entry["method"],
            reproduce=f"PYTHON worker --plan plan.json --out DIR -k '{identity}'",
        )  # fmt: skip

    def _done(self, identity: CellId, number: int) -> Done | Cell:
        path = self._cell(number) / "reply.json"
        try:
            said = read_json(path)
            done = Done.of(str(identity), said, tail(path.with_name("log.txt")))
            if said.get("id") != str(identity):
                raise ValueError(f"a reply for {said.get('id')!r:.80}")
        except FileNotFoundError:
            return self._no_reply(identity, path.parent)
        except (OSError, ValueError) as error:
            raise HarnessError(
                f"{path}: {error}", "a reply as the worker writes it", "run this cell again on the other machine"
            ) from error
        return done

    def _no_reply(self, identity: CellId, folder: Path) -> Cell:
        unusable = [gpu for gpu in map(_gpu, self.hellos) if not gpu.get("usable", True)]
        if identity.device != CPU and unusable:
            return cell_result.no_device(identity, unusable[0])
        found = f"the worker left no reply in {folder}"
        return cell_result.could_not_tell(identity, Verdict.NOT_COMPARABLE, found)

    def _reply(self, identity: CellId, entry: Mapping[str, Any], number: int, done: Done) -> Reply:
        kept = entry.get("golden", CPU)
        if done.outcome == "done" and kept != CPU:
            self._refuse_another_device(identity, kept)
        observed = self._golden(entry)
        return pipeline.reply(Golden(observed, kept, entry.get("golden_note", "")), done, self._cell(number))

    def _golden(self, entry: Mapping[str, Any]) -> observation.Observed:
        """The golden, if the fixture is as it was exported: the worker could write to this folder too.

        Raises:
            BadFixture: it differs.
        """
        folder = self.folder / entry["fixture"]
        try:
            found = tree_digest(folder)
        except OSError as error:
            found = str(error)
        if found != entry["fixture_digest"]:
            raise BadFixture(
                f"{folder} was changed after `export`: {found}", f"SHA-256 {entry['fixture_digest']}",
                "export again, and run this cell again on the other machine",
            )  # fmt: skip
        return observation.read(folder / "golden")

    def _refuse_another_device(self, identity: CellId, kept: str) -> None:
        """Refuse a golden of another device than the one that the worker ran on."""
        for facts in self.hellos:
            device = Device.of(_gpu(facts), identity.device)
            if not device.is_of(kept):
                raise HarnessError(
                    f"{identity}: exported with the golden of {kept}, and run on {device.own_class}",
                    "a golden of the device that it runs on", f"export anew with --device-class {device.own_class}",
                )  # fmt: skip

    def _cell(self, number: int) -> Path:
        return self.out / "cells" / str(number)


def _exported(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plan and metadata as `export` wrote them."""
    found = []
    for name in (_PLAN, _META):
        path = folder / name
        try:
            content = read_json(path, links=True)
            if not isinstance(content, dict):
                raise ValueError("not an object")
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path}: {error}", "a folder that `peft-regress export` made", "check the path"
            ) from error
        found.append(content)
    if (digest := _digest(folder / _PLAN)) != found[1].get("plan"):
        raise UsageError(
            f"{folder / _PLAN} was changed after `export`: SHA-256 {digest}",
            f"{found[1].get('plan')}, as {_META} says",
            "export again, and run the worker again",
        )  # fmt: skip
    return found[0], found[1]


def _digest(path: Path) -> str:
    return hashlib.sha256(read_regular(path)).hexdigest()


def _hellos(out: Path) -> list[dict[str, Any]]:
    return [facts for path in sorted(out.glob("hello*.json")) if (facts := _facts(path))]


def _environments(out: Path, meta: Mapping[str, Any]) -> list[EnvironmentReport]:
    """Reports on the creators and on the loader; the loader is missing where its worker never began."""
    found = [
        EnvironmentReport(name=name, role=("creator",), kind="fixture", versions=versions)
        for name, versions in meta["creators"].items()
    ]
    facts = _facts(out / "hello.json")
    if not facts:
        return found
    versions = facts.pop("versions", {})
    versions = {str(name): str(version) for name, version in versions.items()} if isinstance(versions, dict) else {}
    loader = EnvironmentReport(name=meta["loader"], role=("loader",), kind="elsewhere", versions=versions, facts=facts)
    return [*found, loader]


def _facts(path: Path) -> dict[str, Any]:
    """What a process of the worker said of itself; empty where the file cannot be used."""
    try:
        said = read_json(path)
    except (OSError, ValueError):
        return {}
    facts = said.get("facts", said) if isinstance(said, dict) else {}
    return dict(facts) if isinstance(facts, dict) else {}


def _gpu(facts: Mapping[str, Any]) -> dict[str, Any]:
    gpu = facts.get("gpu")
    return gpu if isinstance(gpu, dict) else {}


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
