"""Loads adapters that a change writes otherwise under the newest release and some older ones.

The change's environment creates them, and the baseline's creates the same: a release that could load those and cannot
load these is what the change broke.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from packaging.version import Version

from harness.core import matrix
from harness.core.comparison import WritesOtherwise
from harness.core.errors import HarnessError
from harness.core.matrix import Declared
from harness.core.run import Cell
from harness.core.versions import version_of
from harness.envs.environments import CURRENT, Environments
from harness.judge import writes
from harness.runner import plan
from harness.runner.change.sides import Sides
from harness.runner.checking import check
from harness.runner.request import CheckRequest

SCENARIOS = 3
"""How many scenarios are loaded under older releases."""
RELEASES = 4
"""Under how many releases each is loaded."""
WINDOW = 8
"""They are taken from so many of the newest: older ones refuse the config of every new adapter."""


def observed(
    before: Iterable[Cell], now: Iterable[Cell], request: CheckRequest, environments: Environments, sides: Sides,
    declared: Sequence[Declared],
) -> WritesOtherwise | None:  # fmt: skip
    """How the change's cells write otherwise than the baseline's, and what releases make of it; None if they do not.

    Args:
        request: the check's own, for its places and limits.
        declared: the scenarios.
    """
    changes = writes.differences(before, now)
    if not changes:
        return None
    if sides.run is not None:
        return WritesOtherwise(changes=changes, unread="the baseline is an earlier run, and creates nothing")
    named = {one.name: one for one in declared}
    chosen = [named[name] for name in writes.examples(changes, SCENARIOS) if name in named]
    releases = _releases(chosen, environments)
    if not releases:
        return WritesOtherwise(changes=changes, unread="no environment of a release that has the feature is built")
    return _read(WritesOtherwise(changes=changes), chosen, releases, request, environments, sides)


def _read(
    found: WritesOtherwise, chosen: Sequence[Declared], releases: Mapping[str, str], request: CheckRequest,
    environments: Environments, sides: Sides,
) -> WritesOtherwise:  # fmt: skip
    creators = (sides.change.spec, sides.baseline.spec)
    asked = CheckRequest(
        creators=creators, loaders=tuple(releases), pair=True, each=True, jobs=request.jobs,
        selection=request.selection, places=replace(request.places, reports=None), time_limit=request.time_limit,
    )  # fmt: skip
    try:
        run = check(
            asked, plan.plan([_without_expects(one) for one in chosen], asked, environments), environments=environments
        )
    except HarnessError as error:
        return found.model_copy(update={"unread": error.found})
    cells = {creator: [cell for cell in run.cells if cell.creator == plan.name_of(environments, creator)]
             for creator in creators}  # fmt: skip
    readers = writes.readers(cells[creators[1]], cells[creators[0]], releases)
    return found.model_copy(update={"readers": readers})


def _without_expects(one: Declared) -> Declared:
    """The scenario without what its checkpoint must hold: the change may write other keys."""
    when = [each.model_copy(update={"expects": None}) for each in one.scenario.when]
    return replace(one, scenario=one.scenario.model_copy(update={"expects": None, "when": when}))


def _releases(chosen: Sequence[Declared], environments: Environments) -> dict[str, str]:
    """Built environments of PEFT releases that have every scenario's feature → words; the newest first."""
    found: list[tuple[Version, str, str]] = []
    for name in environments.names():
        versions = plan.versions_of(environments, name)
        release = version_of(versions.get("peft", ""))
        plain = name == CURRENT or not {"trl", "bitsandbytes"} & set(versions)
        if release is None or not (plain or any(one.quantize for one in chosen)):
            continue
        able = not any(matrix.unsupported(one, versions) for one in chosen)
        if able and environments.is_built(environments.describe(name)):
            found.append((release, name, f"peft {release} ({name})"))
    found = _one_each(found)
    return {name: words for _, name, words in _spread(found[:WINDOW], RELEASES)}


def _one_each(found: Iterable[tuple[Version, str, str]]) -> list[tuple[Version, str, str]]:
    """One environment for each release, the newest release first; `current` before others."""
    chosen: dict[Version, tuple[Version, str, str]] = {}
    for each in sorted(found, key=lambda each: (each[1] != CURRENT, each[1])):
        chosen.setdefault(each[0], each)
    return [chosen[release] for release in sorted(chosen, reverse=True)]


def _spread(every: Sequence[tuple[Version, str, str]], limit: int) -> list[tuple[Version, str, str]]:
    """The first, the last, and some between."""
    if len(every) <= limit:
        return list(every)
    return [every[round(place * (len(every) - 1) / (limit - 1))] for place in range(limit)]
