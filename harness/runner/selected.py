"""Refuses creators, cells and expressions that name nothing, with names that are close. Reads files; builds nothing."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.core import keyword
from harness.core.errors import UsageError
from harness.core.matrix import Declared
from harness.core.text import enumerated, similar
from harness.envs.environments import Environments
from harness.runner import plan
from harness.runner.plan import Planned
from harness.runner.request import CheckRequest


def creators(request: CheckRequest, environments: Environments) -> None:
    """Refuse a creator that has no fixtures and is not declared.

    Raises:
        UsageError: there is one.
    """
    if request.pair or not request.creators:
        return
    known = list(dict.fromkeys([*request.places.store().creators(), *environments.names()]))
    for name in request.creators:
        if name not in known:
            raise UsageError(
                f"no creator {name!r}", "an environment with fixtures, such as v061", _suggested(name, known) or
                "`peft-regress env list` shows them; `peft-regress pair --creator SPEC` makes fixtures first",
            )  # fmt: skip


def cells(scenarios: Sequence[Declared], request: CheckRequest, environments: Environments) -> None:
    """Refuse `--cell` and `-k` if they match no cell of these scenarios.

    Args:
        request: with its creators and loaders named.

    Raises:
        UsageError: one of them does.
    """
    if not request.cells and not request.expression:
        return
    every = plan.plan(scenarios, replace(request, cells=(), expression=""), environments)
    for wanted in request.cells:
        if not any(plan.matches(str(cell.id), [wanted]) for cell in every):
            raise _no_cell(wanted, every)
    if not any(plan.is_selected(cell, request) for cell in every):
        raise _no_name(request, every)


def _no_cell(wanted: str, every: Sequence[Planned]) -> UsageError:
    asked = plan.parsed(wanted)
    close = similar(asked.scenario, dict.fromkeys(cell.id.scenario for cell in every), most=2)
    near = [cell for cell in every if cell.id.scenario in close]
    same = [cell for cell in near if cell.id.creator == asked.creator] or near
    ids = [str(cell.id) for cell in same] or [str(cell.id) for cell in every]
    return UsageError(
        f"no cell matches --cell {wanted!r}", "SCENARIO@CREATOR:LOADER[DEVICE] of this check, or a glob of it",
        _suggested(wanted, ids) or "--dry-run without --cell lists them",
    )  # fmt: skip


def _no_name(request: CheckRequest, every: Sequence[Planned]) -> UsageError:
    known = sorted({name for cell in every for name in plan.names_of(cell) if name != str(cell.id)})
    known += sorted({cell.id.scenario for cell in every} - set(known))
    unknown = [word for word in keyword.words(request.expression) if not any(word.lower() in n.lower() for n in known)]
    suggested = next(filter(None, (_suggested(word, known) for word in unknown)), "")
    which = f"no cell of {enumerated(request.cells, 3)}" if request.cells else "no scenario"
    return UsageError(
        f"{which} matches -k {request.expression!r}", "a part of a scenario's name, family or configuration",
        suggested or "`peft-regress list` shows them",
    )  # fmt: skip


def _suggested(asked: str, known: Iterable[str]) -> str:
    known = list(known)
    close = [name for name in known if fnmatch.fnmatchcase(name, f"{asked}*")][:3] or similar(asked, known, most=3)
    return f"did you mean {' or '.join(close)}?" if close else ""
