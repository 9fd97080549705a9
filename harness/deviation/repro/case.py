"""What a repro shows: the cell, both sides' libraries, the fixture, and the interpreters to run the scripts."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from harness.core import matrix, observation
from harness.core.errors import HarnessError, UsageError
from harness.core.progress import Log
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.deviation.one_cell import Found
from harness.deviation.repro.pins import Pinned
from harness.deviation.repro.releases import Release
from harness.deviation.repro.subject import Side, Subject, output_names
from harness.envs import source_tree
from harness.envs import spec as specs
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.runner.plan import Planned
from harness.store.fixtures import Store
from harness.store.manifest import Manifest


@dataclass(frozen=True)
class Case:
    """Everything that a folder is made from.

    Attributes:
        before: the packages that saved the adapter; `after` those that load it.
        pythons: interpreters of both environments; None for one that cannot run the scripts here.
    """

    cell: Cell
    planned: Planned
    subject: Subject
    store: Store
    manifest: Manifest
    before: Pinned
    after: Pinned
    pythons: tuple[Path | None, Path | None]


def case_of(found: Found, *, verify: bool, log: Log) -> Case:
    """Collect what a folder needs.

    Args:
        verify: build both environments, so that the scripts can be run.

    Raises:
        UsageError: the cell has settings, which scripts do not support.
        HarnessError: the fixture is damaged, or an environment cannot be resolved.
    """
    planned, manifest, environments = found.planned, found.manifest, found.environments
    if specs.reads_only(planned.loader_spec):
        raise UsageError(
            f"{planned.id}: {planned.loader_spec} is no PEFT, which the scripts of `repro` use", "a cell of a PEFT",
            f"run it again: {found.cell.reproduce}",
        )  # fmt: skip
    if planned.id.settings.request:
        raise UsageError(
            f"{planned.id} uses the settings {planned.id.settings}, which `repro` does not support",
            "a cell without settings", f"take {str(planned.id).replace(planned.id.place, planned.id.device)}, or use "
            "`show` and its line that reproduces the cell",
        )  # fmt: skip
    loader = environments.describe(planned.loader_spec)
    before = Side(manifest.resolved, Release(manifest.versions), "saved")
    after = Side(matrix.resolve(planned.declared, loader.versions), Release(loader.versions), "loaded")
    pythons: tuple[Path | None, Path | None] = (None, None)
    if verify:
        pythons = _python(environments, planned.creator_spec, log), _python(environments, planned.loader_spec, log)
    return Case(
        found.cell, planned, _subject(found, before, after), found.store, manifest,
        _pinned_creator(environments, planned, manifest), _pinned(environments, planned.loader_spec),
        pythons,
    )  # fmt: skip


def refuse_sound(cell: Cell) -> None:
    """Refuse a cell without a deviation to show.

    Raises:
        UsageError: the cell is sound.
        HarnessError: the cell was not compared.
    """
    if not cell.verdict.is_judged:
        raise HarnessError(
            f"{cell.id} is {cell.verdict}: {cell.reason or 'it was not compared'}",
            "a cell that deviates",
            "fix what prevents the comparison, and check the cell again",
        )
    if not cell.verdict.is_deviation and cell.verdict is not Verdict.WARNED:
        raise UsageError(
            f"{cell.id} is {cell.verdict}: there is nothing to show",
            "a cell that deviates, expected or not, or that has a new warning",
            "`peft-regress check` lists them",
        )


def _subject(found: Found, before: Side, after: Side) -> Subject:
    manifest, store = found.manifest, found.store
    golden = observation.parse(
        store.folder / manifest.creator / manifest.scenario,
        store.content(manifest, "golden/observation.json"),
        store.content(manifest, "golden/arrays.safetensors"),
    )
    inputs = {name.removeprefix("inputs/"): a for name, a in golden.arrays.items() if name.startswith("inputs/")}
    return Subject(
        before, after, inputs, output_names(golden.arrays), frozenset(manifest.resolved.get("adapter_inputs") or {}),
        frozenset(manifest.files), golden.facts, found.planned.id.device,
    )  # fmt: skip


def _python(environments: Environments, spec: str, log: Log) -> Path | None:
    try:
        return environments.build(spec).python
    except (EnvFailed, UsageError) as error:
        log(f"{error.found}: the scripts cannot be run there")
        return None


def _pinned_creator(environments: Environments, planned: Planned, manifest: Manifest) -> Pinned:
    """The packages of the creator's lock if the fixture was made from it, else those that the fixture lists."""
    python = str(manifest.facts.get("python", ""))
    with contextlib.suppress(UsageError, EnvFailed):
        described = _pinned(environments, planned.creator_spec)
        if environments.describe(planned.creator_spec).lock_digest == manifest.lock_digest:
            return Pinned(described.versions, python or described.python, described.source, described.notes)
    return Pinned(manifest.versions, python, {}, ())


def _pinned(environments: Environments, spec: str) -> Pinned:
    described = environments.describe(spec)
    overlay = described.overlay
    if overlay is None:
        return Pinned(described.versions, described.python, {})
    package = overlay.package
    if described.kind == "git":
        return Pinned(described.versions, described.python, {package: f"{package} @ git+{overlay.source}"})
    commit, remote = source_tree.commit_of(overlay.tree)
    if commit and remote:
        return Pinned(described.versions, described.python, {package: f"{package} @ git+{remote}@{commit}"})
    note = f"{package} is a local working tree{f' at commit {commit}' if commit else ', with changes'}"
    return Pinned(described.versions, described.python, {package: f"-e {overlay.tree}"}, (note,))
