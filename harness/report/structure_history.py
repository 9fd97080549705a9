"""In which releases a model's structure changes: the steps that cells report, combined over a run. Pure.

A cell compares one release with another. Over many creators or loaders, the same line (`lora_A, lora_B: float32 →
bfloat16`) begins at one release and ends at another: that is what a maintainer looks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.core.run import Cell, Run
from harness.judge import structure_steps
from harness.judge.causes import Calendar

RELEASES_OF: Mapping[str, str] = {structure_steps.SFT: "trl", structure_steps.PROBE: "peft"}
"""Probe → the package by whose releases its changes are ordered."""


@dataclass(frozen=True)
class Row:
    """A change of structure, and where it is seen.

    Attributes:
        package: the package whose releases the ranges are.
        change: `norm layers (5 parameters): float32 → bfloat16`.
        after: the steps after which it is so.
        alike: the creators and loaders of the same scenarios that were tried and do not show it.
    """

    package: str
    change: str
    after: tuple[str, ...]
    creators: str
    loaders: str
    alike: str
    scenarios: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The row as texts."""
        return (self.package, self.change, ", ".join(self.after), self.creators, self.loaders, self.alike,
                ", ".join(self.scenarios))  # fmt: skip


@dataclass(frozen=True)
class History:
    """The table of a report."""

    id: ClassVar[str] = "structure"
    title: ClassVar[str] = "Structure, by release"
    note: ClassVar[str] = "how a trainer or a preparation step changes the model, compared with the creator"
    header: ClassVar[tuple[str, ...]] = (
        "releases of", "change", "after", "saved with", "loaded with", "unchanged", "scenarios",
    )  # fmt: skip
    rows: tuple[Row, ...]


def history(run: Run) -> History | None:
    """The table; None if nothing of this kind changed."""
    found = rows(run)
    return History(found) if found else None


def rows(run: Run) -> tuple[Row, ...]:
    """All changes of a run. Scenarios with the same change in the same releases share a row."""
    return tuple(row for probe, package in RELEASES_OF.items() for row in _rows(run, probe, package))


def _rows(run: Run, probe: str, package: str) -> list[Row]:
    cells = [cell for cell in run.cells if probe in cell.probes and cell.probes[probe].outcome == "ok"]
    calendar = Calendar(run.model_copy(update={"cells": tuple(cells)}), package)
    shared: dict[tuple[tuple[str, ...], str, str, str, str], list[str]] = {}
    for scenario in dict.fromkeys(cell.scenario for cell in cells):
        tried = [cell for cell in cells if cell.scenario == scenario]
        for (change, after), having in _seen(tried, probe).items():
            showing = [cell for cell in tried if any(change == each for each, _ in _changes(cell, probe))]
            where = (calendar.creators(having).ranges, calendar.loaders(having).ranges)
            shared.setdefault((after, change, *where, _alike(tried, showing, calendar)), []).append(scenario)
    return [
        Row(package, change, after, creators, loaders, alike, tuple(scenarios))
        for (after, change, creators, loaders, alike), scenarios in shared.items()
    ]


def _seen(cells: Iterable[Cell], probe: str) -> dict[tuple[str, tuple[str, ...]], list[Cell]]:
    """(change, steps after which it is seen) → the cells."""
    found: dict[tuple[str, tuple[str, ...]], list[Cell]] = {}
    for cell in cells:
        for each in _changes(cell, probe):
            found.setdefault(each, []).append(cell)
    return found


def _changes(cell: Cell, probe: str) -> list[tuple[str, tuple[str, ...]]]:
    after: dict[str, list[str]] = {}
    for finding in cell.findings:
        if (finding.probe, finding.kind) == (probe, structure_steps.KIND):
            for line in finding.details:
                step, _, change = line.partition(": ")
                after.setdefault(change, []).append(step)
    return [(change, tuple(sorted(named, key=_place))) for change, named in after.items()]


def _place(step: str) -> int:
    return structure_steps.SFT_STEPS.index(step) if step in structure_steps.SFT_STEPS else 0


def _alike(tried: Sequence[Cell], showing: Sequence[Cell], calendar: Calendar) -> str:
    """The releases on either side that do not show a change."""
    creators, loaders = {cell.creator for cell in showing}, {cell.loader for cell in showing}
    saved = calendar.creators([cell for cell in tried if cell.creator not in creators]).ranges
    loaded = calendar.loaders([cell for cell in tried if cell.loader not in loaders]).ranges
    return "; ".join([*([f"saved with {saved}"] if saved else []), *([f"loaded with {loaded}"] if loaded else [])])
