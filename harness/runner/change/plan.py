"""The cells of a check of one change: under the change, and the same under a baseline.

`plan_change` finds them: what changed, which scenarios that can affect, and which creators have fixtures for them. A
`ChangePlan` says which cells to check, and makes a run of their results.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from harness.core.comparison import Against, ChangedCode
from harness.core.errors import UsageError
from harness.core.matrix import Declared
from harness.core.run import Cell, EnvironmentReport, Run
from harness.core.text import many
from harness.envs import source_tree
from harness.envs.environment import EnvFailed
from harness.envs.environments import CURRENT, Environments
from harness.judge import change as judge
from harness.runner import remembered
from harness.runner.change import exact, last_red, older, scope, select, wider
from harness.runner.change import sides as two_sides
from harness.runner.change.exact import Baseline, Pair
from harness.runner.change.files import Changed
from harness.runner.change.newer import NewerCreators
from harness.runner.change.sides import Built, Contents, SideFailed, Sides
from harness.runner.change.touched import Touched
from harness.runner.checking import known_breaks
from harness.runner.plan import Planned, versions_of
from harness.runner.request import CheckRequest

_OF_A_PLAN = ("scope", "code", "changed", "known_by", "narrowed")
"""What of `Against` a plan says."""


@dataclass(frozen=True)
class ChangeRequest:
    """One change, and what it is compared with."""

    change: str = ""
    """A checkout or an unpacked wheel (committed or not), `PATH@REF`, `git+URL@REF`, or `peft==X`."""
    baseline: str = ""
    """An environment, `PATH@REF`, or an earlier run's folder; empty for the newest release."""
    changed_files: tuple[str, ...] = ()
    """Names of the changed files, as Git has them; empty to find them."""
    every_scenario: bool = False
    """Check every scenario, whichever files changed."""
    last_red: bool = False
    """Check the cells that regressed when this change was last checked."""


@dataclass
class ChangePlan:
    """The cells of a check of one change. It grows where the baseline deviates: see `after`.

    Attributes:
        request: the request for what is checked.
        cells: the change's.
        baseline: the same under the baseline; none where that is an earlier run.
        selected: ids of the change's cells before newer creators were added.
        left_out: scenarios that are not checked, and why.
        features: scenario → what it covers, if a change can affect all and only some are checked.
        changed: both sides, for the report.
        contents: the changed package on both sides.
        built: both sides, once they are built.
    """

    request: CheckRequest
    sides: Sides
    contents: Contents
    built: Built | None
    cells: list[Planned]
    baseline: list[Planned]
    selected: tuple[str, ...]
    left_out: Mapping[str, str]
    features: Mapping[str, Set[str]]
    changed: Against
    notes: tuple[str, ...]
    newer: NewerCreators
    environments: Environments

    @property
    def to_run(self) -> list[Planned]:
        """The cells of both sides, those of an adapter one after the other."""
        pairs: dict[Pair, list[Planned]] = {}
        for cell in (*self.baseline, *self.cells):
            pairs.setdefault((cell.id.scenario, cell.id.creator), []).append(cell)
        return [cell for pair in pairs.values() for cell in pair]

    def narrow(self, scenarios: Set[str]) -> None:
        """Leave out the cells of all other scenarios: another shard has them."""
        self.cells = [cell for cell in self.cells if cell.id.scenario in scenarios]
        self.baseline = [cell for cell in self.baseline if cell.id.scenario in scenarios]
        self.selected = tuple(str(cell.id) for cell in self.cells)
        self.request = replace(self.request, cells=tuple(str(cell.id) for cell in self.to_run))

    def remembered(self) -> int:
        """How many of its cells earlier runs have computed."""
        return len(_remembered(self.to_run, self.request, self.environments))

    @property
    def nothing_runs(self) -> bool:
        """True if nothing that runs has changed, so that nothing need be built."""
        return self.changed.code is not None and self.changed.code.text_only > 0

    @property
    def about(self) -> Against:
        """Both sides, with what is known so far."""
        return self.changed.model_copy(update={"newer_creators": self.newer.words, "blind": self.newer.blind()})

    def after(self, cell: Cell) -> list[Planned]:
        """The cells to check because of a finished one: newer creators' where the baseline deviates."""
        if cell.id not in {str(one.id) for one in self.baseline}:
            return []
        return self.grow([cell])

    def grow(self, known: Iterable[Cell]) -> list[Planned]:
        """Add newer creators' cells where these cells of the baseline deviate; returns them."""
        waiting, added = list(known), list[Planned]()
        while waiting:
            found = self.newer.after(waiting.pop(0))
            mine, baseline = _of_sides(found, self.sides)
            self.cells += mine
            self.baseline += baseline
            added += [*baseline, *mine]
            waiting += _cells_of_run(self.sides, mine)
        return added

    def finished(self, run: Run, computed: Mapping[str, Cell]) -> Run:
        """The change's run, compared with the baseline.

        Args:
            run: all cells of `to_run`, as they were judged.
            computed: the same cells before known breaks were applied, by id.
        """
        mine = {str(cell.id) for cell in self.cells}
        assert self.built is not None
        cells = tuple(cell for cell in run.cells if cell.id in mine)
        before = [cell for cell in run.cells if cell.id not in mine]
        before += self.sides.run.cells if self.sides.run else ()
        if run.interrupted:  # a cell without its other side is not done
            there = {judge.key_of(cell) for cell in before}
            cells = tuple(cell for cell in cells if judge.key_of(cell) in there)
        run = run.model_copy(
            update={
                "cells": cells,
                "plan": tuple(cell for cell in run.plan if cell in mine),
                "title": f"{self.about.subject} against {self.about.baseline}",
                "environments": _with_baseline(run.environments, self.sides, self.built),
                "notes": (*run.notes, *self.notes),
            }
        )
        observed = {cell.id: cell.observed for cell in computed.values()}
        return judge.held(run, before, self._with_writes(run, computed), observed)

    def _with_writes(self, run: Run, computed: Mapping[str, Cell]) -> Against:
        """The sides, with how the change saves adapters if it is not as the baseline does."""
        mine = {str(cell.id): cell.declared for cell in self.cells}
        before = [cell for cell in computed.values() if cell.id not in mine]
        now = [cell for cell in computed.values() if cell.id in mine]
        known = [cell.remembered for cell in before if cell.remembered]
        about = self.about.model_copy(update={"remembered": len(known), "remembered_since": min(known, default="")})
        if run.interrupted:
            return about
        declared = list({one.name: one for one in mine.values()}.values())
        found = older.observed(before, now, self.request, self.environments, self.sides, declared)
        return about.model_copy(update={"writes": found})


def again(change: ChangeRequest, request: CheckRequest, sides: Sides) -> CheckRequest:
    """The request; with `last_red` for the cells that were red.

    Raises:
        UsageError: there are none, or cells are named too.
    """
    if not change.last_red:
        return request
    if request.cells:
        raise UsageError("--last-red with --cell", "one of them", "leave one out")
    return replace(request, cells=last_red.cells(request.places.reports_folder, sides))


def plan_change(
    change: ChangeRequest, request: CheckRequest, environments: Environments, sides: Sides, built: Built | None = None
) -> ChangePlan:
    """Find the cells of a check of one change. Builds the change only where its source does not tell what changed.

    Raises:
        UsageError: a file is wrong, or no cell is selected.
        SideFailed: a side can't be built.
    """
    known_breaks(request)
    declared = request.selection.chosen(request.places.matrix())
    sides, both, built = _read(sides, environments, built)
    if (text_only := _text_only(change, request, sides, both, built, declared, environments)) is not None:
        return text_only
    affected_by = _affected(change, request, sides, both, declared)
    if (wide := _widened(change, request, environments, sides, declared, affected_by)) is not None:
        if not two_sides.same_program(both, wide[1]):
            affected_by = _affected(change, request, wide[0], wide[1], declared)
        sides, both, built = wide
    files, affected, why_all = affected_by
    versions = sides.baseline.versions
    found, everything = scope.choose(declared, affected, why_all, versions), scope.choose(declared, None, "", versions)
    if affected is None and (request.every_creator or change.every_scenario):
        found = replace(found, words=f"{many(len(found.scenarios), 'scenario')}: {found.words}", rule="affected")
    names = None if change.every_scenario else exact.names(files, both, request)
    known = Baseline(sides, request, environments)
    chosen = select.select(
        found, everything, declared, request, environments, sides,
        functools.partial(exact.difference, names, both, known) if names else None,  # no file: a sample is checked
    )  # fmt: skip
    cells: Sequence[Planned] = chosen.cells
    if request.is_narrowed:
        cells = known.without_new_further(cells)
    mine, baseline = _of_sides(cells, sides)
    asked = ChangePlan(
        replace(chosen.request, expression="", observations=True), sides, both, built, mine, baseline,
        tuple(str(cell.id) for cell in mine), chosen.left_out, chosen.features,
        _about(sides, built, files, chosen.words, request, chosen.code), tuple(scope.beside(files)),
        NewerCreators(chosen.creators, _with_further_as(mine, chosen.cells_of)), environments,
    )  # fmt: skip
    asked.grow(_cells_of_run(sides, mine))
    asked.request = replace(asked.request, cells=tuple(str(cell.id) for cell in asked.to_run))
    return asked


def _text_only(
    change: ChangeRequest, request: CheckRequest, sides: Sides, both: Contents, built: Built | None,
    declared: Sequence[Declared], environments: Environments,
) -> ChangePlan | None:  # fmt: skip
    """The plan without cells of a change in which nothing that runs has changed; None for any other.

    Also None if the memory has nothing of the baseline, so that nothing is known to be equal.
    """
    if request.cells or change.every_scenario:
        return None
    files, _ = two_sides.changed(sides, both, list(change.changed_files))
    if exact.names(files, both, request) != ():
        return None
    everything = scope.choose(declared, None, "", sides.baseline.versions)
    known = len(sides.run.cells) if sides.run else len(
        Baseline(sides, request, environments).known(
            select.every_cell(everything, declared, request, environments, sides)
        )
    )  # fmt: skip
    if (code := exact.nothing(both, known)) is None:
        return None
    about = _about(sides, built, files, "nothing that runs has changed", request, code)
    return ChangePlan(
        request, sides, both, built, [], [], (), {}, {}, about, tuple(scope.beside(files)),
        NewerCreators({}, lambda *_: ()), environments,
    )  # fmt: skip


def ready(planned: ChangePlan, change: ChangeRequest, request: CheckRequest) -> ChangePlan:
    """The plan with both sides built; planned anew if what is installed is not what the source trees said.

    Raises:
        UsageError, SideFailed: as for `plan_change`.
    """
    if planned.built is not None or (planned.nothing_runs and _is_told_by_sources(planned)):
        return planned
    built = two_sides.build(planned.sides, planned.environments)
    if two_sides.same_program(planned.contents, two_sides.contents(planned.sides, built)):
        planned.built = built
        planned.changed = two_sides.model(planned.sides, built).model_copy(
            update={name: getattr(planned.changed, name) for name in _OF_A_PLAN}
        )
        return planned
    return plan_change(change, request, planned.environments, planned.sides, built)


def _is_told_by_sources(planned: ChangePlan) -> bool:
    """True if no build is needed to know what is installed: an unpacked wheel, or a branch that git knows.

    The `setup.py` or `pyproject.toml` of any other folder may install other files than the baseline's.
    """
    overlay = planned.sides.change.overlay
    return planned.changed.known_by.startswith("git:") or (overlay is not None and source_tree.is_wheel(overlay.tree))


Affected = tuple[Changed | None, Touched | None, str]
"""The changed files, what they affect, and why that is everything if it is not known."""
Read = tuple[Sides, Contents, Built | None]
"""Both sides, what they hold, and both built if that cannot be told without."""


def _read(sides: Sides, environments: Environments, built: Built | None = None) -> Read:
    both = None if built else two_sides.contents_of_trees(sides, environments)
    if both is not None:
        return sides, both, None
    built = built or two_sides.build(sides, environments)
    return sides, two_sides.contents(sides, built), built


def _widened(
    change: ChangeRequest, request: CheckRequest, environments: Environments, sides: Sides,
    declared: Sequence[Declared], affected_by: Affected,
) -> Read | None:  # fmt: skip
    """Both sides in an environment with more packages, if a scenario that the change can affect needs them.

    None if the user names the baseline, or if that environment cannot be had here.
    """
    if change.baseline or sides.run or not sides.package or sides.baseline.name != CURRENT:
        return None
    affected = None if request.cells else affected_by[1]
    wanted = select.named(request, declared)
    wanted = [one for one in wanted if affected is None or one.name in affected.scenarios]
    every = {name: versions_of(environments, name) for name in environments.names()}
    if name := wider.environment(sides.baseline.versions, wanted, every):
        with contextlib.suppress(SideFailed, EnvFailed):
            return _read(two_sides.sides(change.change, name, environments), environments)
    return None


def _with_further_as(
    cells: Iterable[Planned], cells_of: Callable[[str, str], list[Planned]]
) -> Callable[[str, str], list[Planned]]:
    """The cells of a scenario and another creator, with the further probes where the scenario's own cell has them."""
    further = {cell.id.scenario for cell in cells if cell.further}
    return lambda scenario, creator: [
        replace(cell, further=scenario in further) for cell in cells_of(scenario, creator)
    ]


def _remembered(cells: Sequence[Planned], request: CheckRequest, environments: Environments) -> set[str]:
    """The ids of those cells that earlier runs have computed."""
    if request.fresh or request.each:
        return set()
    return remembered.known(cells, environments, request.places.store(), request.worker_handler)


def _of_sides(cells: Iterable[Planned], sides: Sides) -> tuple[list[Planned], list[Planned]]:
    """The change's cells, and the baseline's, whose code is recorded."""
    cells = [replace(cell, traced=cell.loader_spec != sides.change.spec) for cell in cells]
    return [cell for cell in cells if not cell.traced], [cell for cell in cells if cell.traced]


def _cells_of_run(sides: Sides, cells: Iterable[Planned]) -> list[Cell]:
    """The cells of an earlier run that these are compared with."""
    wanted = {(cell.id.scenario, cell.id.creator, cell.id.place) for cell in cells}
    return [cell for cell in sides.run.cells if judge.key_of(cell) in wanted] if sides.run else []


def _affected(
    change: ChangeRequest, request: CheckRequest, sides: Sides, both: Contents, declared: Sequence[Declared]
) -> Affected:
    """The changed files and the scenarios that they affect; None, and why, where every scenario is checked."""
    files, unknown = two_sides.changed(sides, both, list(change.changed_files))
    if files is None or both.now is None:
        return None, None, unknown
    if request.every_creator or change.every_scenario:
        option = "--all" if request.every_creator else "--every-scenario"
        return replace(files, further=0), None, f"{option} asks for it"
    return files, two_sides.touched(sides, files, both.now, declared), ""


def _about(
    sides: Sides, built: Built | None, files: Changed | None, words: str, request: CheckRequest,
    code: ChangedCode | None = None,
) -> Against:  # fmt: skip
    return two_sides.model(sides, built).model_copy(
        update={
            "scope": words,
            "code": code,
            "narrowed": request.is_narrowed,
            "changed": files.names if files else (),
            "known_by": files.known_by if files else "",
        }
    )


def _with_baseline(found: tuple[EnvironmentReport, ...], sides: Sides, built: Built) -> tuple[EnvironmentReport, ...]:
    """The environments with the baseline's, which an earlier run may have used."""
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
