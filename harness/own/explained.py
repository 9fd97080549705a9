"""Which known breaks explain how a user's adapter deviates: by their rules for adapters, as `doctor` applies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.core import matrix
from harness.core.matrix import Declared
from harness.core.run import Cell, Run, finished
from harness.core.verdict import Verdict
from harness.judge import applies, expected
from harness.judge.adapter_uses import USES
from harness.judge.applies import Applies
from harness.judge.breaks import Break
from harness.own.trial import Trial


def explaining(
    cell: Cell, ready: Trial, versions: Mapping[str, Mapping[str, str]], known: Sequence[Break], declared: Declared
) -> list[Break]:
    """The known breaks that a cell's deviation may come from: that which covers it, else those that apply."""
    if not cell.verdict.is_deviation:
        return []
    if cell.expected:
        return [one for one in known if one.id == cell.expectation]
    apply = _applying(cell, ready, versions, known, declared)
    return [one.known for one in apply if one.condition.verdict is cell.verdict]


def unseen(
    cell: Cell, ready: Trial, versions: Mapping[str, Mapping[str, str]], known: Sequence[Break], declared: Declared
) -> list[Break]:
    """The known breaks that apply to the adapter and do not show in a cell that is clean."""
    if cell.verdict not in (Verdict.EXACT, Verdict.CLOSE, Verdict.WARNED):
        return []
    return [one.known for one in _applying(cell, ready, versions, known, declared)]


def _applying(
    cell: Cell, ready: Trial, versions: Mapping[str, Mapping[str, str]], known: Sequence[Break], declared: Declared
) -> list[Applies]:
    """What certainly applies to the adapter, if the trial does what shows it."""
    adapter = replace(ready.source.adapter, base=ready.base.values)
    creators, loader = [versions.get(cell.creator, {})], versions.get(cell.loader, {})
    resolved = matrix.resolve(declared, loader)
    apply = applies.applying(adapter, creators, loader, known)
    return [one for one in apply if one.certain and all(USES[use].done(resolved) for use in one.only_if)]


def marked(run: Run, ready: Trial, known: Sequence[Break], declared: Declared) -> Run:
    """The run with the cells marked that deviate as a known break says that applies to the adapter.

    A break names scenarios, and a trial is none of them. What it states of the deviation itself must hold.
    """
    versions = {each.name: each.versions for each in run.environments}
    found: dict[str, Break] = {}
    cells = []
    for cell in run.cells:
        each = [] if cell.expected else explaining(cell, ready, versions, known, declared)
        by = next((one for one in each if any(expected.states(condition, cell) for condition in one.condition)), None)
        if by is not None:
            found[by.id] = by
        cells.append(expected.marked(cell, by) if by else cell)
    reports = {id: one.report for id, one in found.items()}
    return finished(run.model_copy(update={"cells": tuple(cells), "breaks": {**run.breaks, **reports}}))
