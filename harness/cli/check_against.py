"""`check --against`: what one change did, held against a baseline, so that only that is red."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness import __version__, report
from harness.cli import check as plain
from harness.cli import common
from harness.core.cell_settings import Settings
from harness.core.comparison import Against
from harness.core.errors import ExitCode, UsageError
from harness.core.matrix import Declared
from harness.core.run import Cell, EnvironmentReport, Run, finished
from harness.envs import missing_releases
from harness.envs.environments import Environments
from harness.judge import change
from harness.judge import expectations as expect
from harness.runner import folder as runs
from harness.runner import plan
from harness.runner.change import scope
from harness.runner.change import sides as against
from harness.runner.change.files import Changed
from harness.runner.change.known_cells import Memory, Remembered
from harness.runner.change.sides import Built, SideFailed, Sides
from harness.runner.change.touched import Affected
from harness.runner.folder import Recorder
from harness.runner.plan import Planned


def check(arguments: argparse.Namespace) -> int:
    """Replay the stored fixtures of creators under loaders; with `--against`, what a change does to them."""
    if arguments.against:
        return _check(arguments)
    for option in ("changed_files", "every_scenario"):
        if getattr(arguments, option):
            raise UsageError(f"--{option.replace('_', '-')} without --against", "a change to check", "add --against")
    if arguments.all and arguments.creator:
        raise UsageError("--all and --creator", "one of them", "leave one out")
    return plain.check(arguments)


def _check(arguments: argparse.Namespace) -> int:
    _refuse(arguments)
    environments = common.environments_of(arguments)
    found = against.sides(arguments.against, arguments.baseline or "", environments)
    common.store_of(arguments)
    try:
        built = against.build(found, environments)
    except SideFailed as failed:
        return _failed(found, failed, arguments)
    asked = _Asked(arguments, environments, found, built)
    asked.decide()
    if arguments.dry_run:
        return _dry_run(asked)
    listener = plain.Listener(common.console(stderr=True), quiet=arguments.quiet > 0)
    lookout = missing_releases.Lookout(environments) if not (arguments.quiet or arguments.collect_only) else None
    hook = plain.Hook(
        listener, environments, lookout.notices if lookout else tuple, asked.left_out, asked.wants, asked.finish
    )
    with listener:
        code = plain.run_pytest(plain.pytest_arguments(arguments, False), hook, show=arguments.collect_only)
    if arguments.collect_only:
        return ExitCode.CLEAN if code == pytest.ExitCode.OK else ExitCode.CANNOT_TELL
    run, folder = plain.outcome(hook.check, code)
    plain.print_run(run, folder, arguments)
    for notice in run.notices:
        common.say(notice)
    return run.exit_code


def _refuse(arguments: argparse.Namespace) -> None:
    """Refuse what can't go together.

    Raises:
        UsageError: it can't.
    """
    given = {"--loader": arguments.loader, "-n": arguments.numprocesses}
    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} with --against", "the change, and --baseline for what it is held against",
                "leave it out; --jobs says how many cells run at once",
            )  # fmt: skip


@dataclass
class _Asked:
    """A check of one change: which cells it has, and what becomes of them."""

    arguments: argparse.Namespace
    environments: Environments
    sides: Sides
    built: Built
    left_out: dict[str, str] = field(default_factory=dict)
    cells: list[Planned] = field(default_factory=list)
    """The change's."""
    baseline: list[Planned] = field(default_factory=list)
    known: dict[str, Remembered] = field(default_factory=dict)
    """Cells of the baseline that were computed before."""
    said: Against | None = None
    notes: list[str] = field(default_factory=list)
    wanted: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.store = common.store_of(self.arguments)
        self.memory = Memory(self.environments.cache, self.sides.baseline, self.store, forward=self.arguments.forward)

    # -- before -----------------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """Find the cells: what changed, whom that touches, whose fixtures there are, what is known of the baseline.

        Raises:
            UsageError: there is no cell at all.
        """
        arguments = self.arguments
        expect.load(common.matrix_of(arguments).folder / "expectations.toml")
        declared = self._declared()
        files, touched, why_all = self._touched(declared)
        chosen, self.left_out, words = scope.choose(declared, touched, why_all, self._versions())
        creators, pairs, none = self._pairs(
            declared,
            chosen,
            broad=not (arguments.all or arguments.every_scenario) and (touched is None or bool(touched.everything)),
        )
        self.left_out |= none | plain.hub_left_out(arguments)
        before = {change.key_of(cell): cell for cell in self.sides.run.cells} if self.sides.run else None
        arguments.creator = creators
        specs = [self.sides.change.spec, *([] if before is not None else [self.sides.baseline.spec])]
        arguments.loader = specs
        asked = plan.Asked(
            tuple(creators), tuple(specs), arguments.device, tuple(arguments.cell), tuple(arguments.families),
            arguments.hub, settings=Settings(arguments.dtype, arguments.attention),
        )  # fmt: skip
        every = plan.plan(declared, replace(asked, cells=()), self.environments, described=False)
        every = [cell for cell in every if (cell.id.scenario, cell.id.creator) in pairs]
        wanted = {str(cell.id) for cell in every if not asked.cells or plan.matches(str(cell.id), asked.cells)}
        keys = {(cell.id.scenario, cell.id.creator) for cell in every if str(cell.id) in wanted}
        every = [cell for cell in every if (cell.id.scenario, cell.id.creator) in keys]
        self.cells = [cell for cell in every if cell.loader_spec == self.sides.change.spec]
        self.baseline = [cell for cell in every if cell.loader_spec != self.sides.change.spec]
        if before is not None:
            self._only_those_of(before)
        if not self.cells:
            raise UsageError(
                "no cell is selected", "a scenario that the change affects, with a fixture",
                f"loosen --creator, --cell, --family or --scenarios, or take --every-scenario ({words})",
            )  # fmt: skip
        self.known = {} if arguments.each else self.memory.recall(self.baseline)
        self.wanted = frozenset(str(c.id) for c in [*self.cells, *self.baseline] if str(c.id) not in self.known)
        self.arguments.cell = []  # said by what is wanted: the user's ids name one side alone
        self.said = self._told(files, words)
        self.notes += scope.beside(files)

    def _declared(self) -> list[Declared]:
        arguments = self.arguments
        where = [Path(text).resolve() for text in arguments.scenarios] or None
        return common.matrix_of(arguments).scenarios(where, hub=arguments.hub, families=arguments.families)

    def _touched(self, declared: list[Declared]) -> tuple[Changed | None, Affected | None, str]:
        """The changed files and whom they touch; None, and why, where every scenario is wanted."""
        arguments = self.arguments
        files, now, unknown = against.changed(self.sides, self.built, _changed_files(arguments))
        if files is None or now is None:
            return None, None, unknown
        if arguments.all or arguments.every_scenario:
            option = "--all" if arguments.all else "--every-scenario"
            return replace(files, further=0), None, f"{option} asks for it"
        return files, against.touched(self.sides, files, now, declared), ""

    def _versions(self) -> Mapping[str, str]:
        return self.built.baseline.versions

    def _pairs(
        self, declared: list[Declared], chosen: Mapping[str, str], *, broad: bool
    ) -> tuple[list[str], set[tuple[str, str]], dict[str, str]]:
        """The creators, and for each scenario which of them."""
        arguments = self.arguments
        if arguments.creator:
            asked = list(arguments.creator)
        elif arguments.all:
            asked = list(plan.creators_with_fixtures(self.store, (), self.environments))
        elif self.sides.run is not None:
            asked = list(dict.fromkeys(cell.creator for cell in self.sides.run.cells))
        else:
            asked = []
        every = asked or list(plan.creators_with_fixtures(self.store, ()))
        having = {creator: frozenset(self.store.scenarios(creator)) for creator in every} if not asked else {}
        methods = {one.name: one.scenario.adapter.config for one in declared}
        pairs, none = scope.pair(list(chosen), methods, having, asked, broad=broad)
        used = {creator for _, creator in pairs}
        return [creator for creator in every if creator in used], pairs, none

    def _only_those_of(self, before: Mapping[change.Key, Cell]) -> None:
        kept = [c for c in self.cells if (c.id.scenario, c.id.creator, c.id.place) in before]
        gone = {c.id.scenario for c in self.cells} - {c.id.scenario for c in kept}
        self.left_out |= dict.fromkeys(sorted(gone), "the baseline's run has no cell of it")
        self.cells = kept

    def _told(self, files: Changed | None, words: str) -> Against:
        said = against.model(self.sides, self.built)
        since = min((one.computed for one in self.known.values()), default="")
        return said.model_copy(
            update={
                "scope": words,
                "changed": files.names if files else (),
                "known_by": files.known_by if files else "",
                "remembered": len(self.known),
                "remembered_since": since,
            }
        )

    # -- during and after -------------------------------------------------------------------------------------------

    def wants(self, cell: Planned) -> bool:
        """True for a cell that is to be computed."""
        return str(cell.id) in self.wanted

    def finish(self, run: Run, recorder: Recorder) -> Run:
        """The change's run, with what it did; what was computed of the baseline is remembered."""
        assert self.said is not None
        mine = {str(cell.id) for cell in self.cells}
        cells = tuple(cell for cell in run.cells if cell.id in mine)
        before = [*self._recalled(run, cells), *(cell for cell in run.cells if cell.id not in mine)]
        before += self.sides.run.cells if self.sides.run else ()
        if run.interrupted:  # what has only one side yet is not done
            there = {change.key_of(cell) for cell in before}
            cells = tuple(cell for cell in cells if change.key_of(cell) in there)
        else:
            self.memory.keep(self.baseline, recorder.cells)
        run = run.model_copy(
            update={
                "cells": cells,
                "plan": tuple(cell for cell in run.plan if cell in mine),
                "title": f"{self.said.subject} against {self.said.baseline}",
                "environments": _with_baseline(run.environments, self.sides, self.built),
                "notes": (*run.notes, *self.notes),
            }
        )
        return change.held(run, before, self.said)

    def _recalled(self, run: Run, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        """The remembered cells of what was checked now, with today's expectations."""
        there = {change.key_of(cell) for cell in cells}
        found = [one.cell for one in self.known.values() if change.key_of(one.cell) in there]
        folder = common.matrix_of(self.arguments).folder
        versions = {one.name: one.versions for one in run.environments}
        versions[self.sides.baseline.name] = dict(self.built.baseline.versions)
        expectations = expect.load(folder / "expectations.toml")
        judged, _ = expect.apply(found, expectations, versions, datetime.date.today(), complete=False)
        return judged


def _changed_files(arguments: argparse.Namespace) -> list[str]:
    """The names that `--changed-files` gives: as words, or a line each on stdin.

    Raises:
        UsageError: it gives none.
    """
    if arguments.changed_files is None:
        return []
    names = [
        name for word in arguments.changed_files for name in (sys.stdin.read().splitlines() if word == "-" else [word])
    ]
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise UsageError("--changed-files names no file", "names, or - with a name a line on stdin", "leave it out")
    return names


def _with_baseline(found: tuple[EnvironmentReport, ...], sides: Sides, built: Built) -> tuple[EnvironmentReport, ...]:
    """The environments with the baseline's, whose cells may all have been remembered."""
    if sides.run is not None:
        loaders = {cell.loader for cell in sides.run.cells}
        more = tuple(one for one in sides.run.environments if one.name in loaders)
    else:
        made = built.baseline
        more = (
            EnvironmentReport(
                name=made.name, spec=made.spec, role=("loader",), kind=made.kind, python=made.python_version,
                lock_digest=made.lock_digest, versions=dict(made.versions),
            ),
        )  # fmt: skip
    there = {one.name for one in found}
    return (*found, *(one for one in more if one.name not in there))


def _failed(sides: Sides, failed: SideFailed, arguments: argparse.Namespace) -> int:
    """The report of a check of which one side can't be had: nothing was compared, and why."""
    error = failed.error
    said = against.model(sides).model_copy(update={"failed": failed.what, "scope": f"{failed.what} can't be had"})
    folder = runs.new_folder(common.reports_folder(arguments), f"against-{sides.change.name}")
    run = finished(
        Run(
            id=folder.name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            tool_version=__version__,
            command=" ".join(["peft-regress", *sys.argv[1:]]),
            title=f"{said.subject} against {said.baseline}",
            environments=(EnvironmentReport(name=failed.name, spec=failed.spec, role=("loader",), failed=str(error)),),
            against=said,
            baseline=said.baseline,
        )
    )
    report.write(run, folder)
    plain.print_run(run, folder, arguments)
    common.say(f"peft-regress: {failed.what} can't be had: {error}")
    return run.exit_code


def _dry_run(asked: _Asked) -> int:
    assert asked.said is not None
    common.out(f"{asked.said.subject} against {asked.said.baseline}: {asked.said.scope}")
    for name in asked.said.changed:
        common.out(f"changed: {name}")
    for cell in asked.cells:
        common.out(str(cell.id))
    for name, why in asked.left_out.items():
        common.out(f"left out: {name}: {why}")
    todo = sum(str(cell.id) in asked.wanted for cell in asked.baseline)
    common.out(
        f"{len(asked.cells)} cells would be checked, {len(asked.known)} of the baseline are remembered, {todo} not"
    )
    return ExitCode.CLEAN
