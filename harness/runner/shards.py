"""Divides a plan into shards, one for each machine, and merges their runs into one. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence

from harness.core.errors import ExitCode, UsageError
from harness.core.run import Cell, EnvironmentReport, ExpectationProblem, Run, Shard, finished
from harness.core.text import many
from harness.runner.plan import Planned


class EmptyShard(UsageError):
    """The plan has fewer scenarios than shards were asked for: nothing to do, which is no failure."""

    exit_code = ExitCode.CLEAN


def of(cells: Collection[Planned], asked: str) -> tuple[Shard, frozenset[str]]:
    """A shard of a plan, and the names of its scenarios.

    Scenarios are dealt out in turn. All cells of a scenario are in one shard: the two sides of a change are compared,
    and adjacent releases share results.

    Args:
        asked: `2/3`, the second of three.

    Raises:
        UsageError: it is no such text.
        EmptyShard: the plan has no scenario for it.
    """
    number, count = _parsed(asked)
    scenarios = list(dict.fromkeys(cell.id.scenario for cell in cells))
    own = frozenset(scenarios[number - 1 :: count])
    if not own:
        raise EmptyShard(
            f"shard {asked} has no cell: there are {many(len(scenarios), 'scenario')}",
            "more scenarios than shards", "nothing: the other shards check them all",
        )  # fmt: skip
    whole = "\n".join(sorted(str(cell.id) for cell in cells))
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return Shard(numbers=(number,), count=min(count, len(scenarios)), plan=f"{digest}-{count}"), own


def _parsed(asked: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", asked, re.ASCII)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--shard {asked}", "K/N with K from 1 to N, such as 2/3", "count shards from 1")
    return number, count


def merge(runs: Sequence[Run]) -> Run:
    """One run from the shards of one plan.

    Of a cell that several shards have, the newest judged one counts. Where they disagree, the cell has a note.

    Raises:
        UsageError: no run at all, or runs of different plans.
    """
    if not runs:
        raise UsageError("no run to merge", "at least one run's folder", "name the runs of the shards")
    _same_plan(runs)
    ordered = sorted(runs, key=lambda run: run.created)
    newest = ordered[-1]
    cells = _cells(ordered)
    environments, notes = _environments(ordered)
    shard = _shard(runs)
    missing = {cell for run in runs for cell in run.plan} - {cell.id for cell in cells}
    merged = newest.model_copy(
        update={
            "id": _id(ordered),
            "plan": tuple(dict.fromkeys(cell for run in ordered for cell in run.plan)),
            "shard": shard,
            "cells": cells,
            "environments": environments,
            "left_out": {name: why for run in ordered for name, why in run.left_out.items() if name not in _ids(cells)},
            "breaks": {name: one for run in ordered for name, one in run.breaks.items()},
            "expectation_problems": _problems(ordered, cells),
            "interrupted": any(run.interrupted for run in runs) and bool(missing),
            "strict": any(run.strict for run in runs),
            "duration_s": max(run.duration_s for run in runs),
            "timings": _summed(run.timings for run in ordered),
            "notes": tuple(dict.fromkeys([*(note for run in ordered for note in run.notes), *notes, *_tools(ordered)])),
            "notices": newest.notices,
            **_comparisons(ordered, cells),
        }
    )
    return finished(merged)


def _shard(runs: Sequence[Run]) -> Shard | None:
    """The shards that there are, and those that are missing; None if these are no shards."""
    shards = [run.shard for run in runs if run.shard]
    if not shards or len(runs) == 1:
        return shards[0] if shards else None
    there = {number for one in shards for number in one.numbers}
    missing = tuple(number for number in range(1, shards[0].count + 1) if number not in there)
    return shards[0].model_copy(update={"numbers": tuple(sorted(there)), "missing": missing})


def _same_plan(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs[1:]:
        if first.shard or other.shard:
            if (one := first.shard) and (two := other.shard) and one.plan == two.plan:
                continue
            raise UsageError(
                f"runs {first.id} and {other.id} are of different plans", "shards of one plan, all with the same K/N",
                "run the shards with the same options and the same version",
            )  # fmt: skip
        if set(other.plan) != set(first.plan):
            apart = sorted(set(other.plan) ^ set(first.plan))
            raise UsageError(
                f"runs {first.id} and {other.id} are of different plans: {len(apart)} cells in one only, as {apart[0]}",
                "shards of one plan",
                "use `diff` to compare two runs",
            )


def _cells(ordered: Sequence[Run]) -> tuple[Cell, ...]:
    found: dict[str, list[tuple[Run, Cell]]] = {}
    for run in ordered:
        for cell in run.cells:
            found.setdefault(cell.id, []).append((run, cell))
    return tuple(_chosen(every) for every in found.values())


def _chosen(every: Sequence[tuple[Run, Cell]]) -> Cell:
    """The one to take of a cell that several runs have, the oldest run first."""
    judged = [item for item in every if not item[1].verdict.cannot_tell]
    run, cell = (judged or every)[-1]
    if len({(other.verdict, other.expected) for _, other in every}) == 1:
        return cell
    said = ", ".join(f"{other.verdict} in {source.id}" for source, other in every)
    return cell.model_copy(update={"notes": (*cell.notes, f"shards disagree: {said}; taken from {run.id}")})


def _ids(cells: Iterable[Cell]) -> set[str]:
    return {cell.id for cell in cells}


def _id(ordered: Sequence[Run]) -> str:
    names = list(dict.fromkeys(run.id for run in ordered))
    return "+".join(names) if len(names) <= 3 else f"{names[0]}+{len(names) - 1}"


def _environments(ordered: Sequence[Run]) -> tuple[tuple[EnvironmentReport, ...], list[str]]:
    """The environments of all shards, and a note for each that differs between shards."""
    found: dict[str, list[EnvironmentReport]] = {}
    for run in ordered:
        for environment in run.environments:
            found.setdefault(environment.name, []).append(environment)
    return tuple(map(_joined, found.values())), [note for every in found.values() for note in _differing(every)]


def _joined(every: Sequence[EnvironmentReport]) -> EnvironmentReport:
    """The newest report of an environment that was built, else the newest; with the roles that it had in any shard."""
    built = [environment for environment in every if not environment.failed]
    roles = tuple(dict.fromkeys(role for environment in every for role in environment.role))
    return (built or every)[-1].model_copy(update={"role": roles})


def _differing(every: Sequence[EnvironmentReport]) -> list[str]:
    """What differs in an environment of one name; a shard that never started it knows no versions."""
    known = [environment.versions for environment in every if environment.versions]
    names = sorted({name for versions in known for name in versions})
    apart = [name for name in names if len({versions.get(name) for versions in known}) > 1]
    if not apart:
        return []
    said = ", ".join(f"{name} {' / '.join(dict.fromkeys(v.get(name, 'none') for v in known))}" for name in apart[:5])
    more = f" and {len(apart) - 5} more packages" if len(apart) > 5 else ""
    return [f"environment {every[0].name} is not the same in all shards: {said}{more}"]


def _tools(ordered: Sequence[Run]) -> list[str]:
    versions = list(dict.fromkeys(run.tool_version for run in ordered))
    return (
        [f"the shards were judged by different versions of peft-regress: {', '.join(versions)}"]
        if len(versions) > 1
        else []
    )


def _problems(ordered: Sequence[Run], cells: Sequence[Cell]) -> tuple[ExpectationProblem, ...]:
    """The problems of all shards, except stale expectations that cover a cell of another shard."""
    covering = {cell.expectation for cell in cells if cell.expected}
    every = dict.fromkeys(problem for run in ordered for problem in run.expectation_problems)
    return tuple(problem for problem in every if problem.problem != "stale" or problem.id not in covering)


def _summed(every: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for timings in every:
        for name, seconds in timings.items():
            total[name] = total.get(name, 0.0) + seconds
    return total


def _comparisons(ordered: Sequence[Run], cells: Sequence[Cell]) -> dict[str, object]:
    """The shards' comparisons with one baseline, for the cells that were taken; none where the baselines differ."""
    baselines = {run.baseline for run in ordered}
    if len(baselines) > 1:
        return {"baseline": "", "comparisons": ()}
    taken = {cell.id: cell.verdict for cell in cells}
    every = dict.fromkeys(comparison for run in ordered for comparison in run.comparisons)
    return {"comparisons": tuple(c for c in every if c.now == taken.get(c.cell))}
