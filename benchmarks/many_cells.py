"""Makes runs of any size from a real one, for measurements: each copy of a cell has figures of its own."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

from harness.core.run import Cell, EnvironmentReport, Run, finished

RELEASES = (
    "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.6.1", "0.6.2", "0.7.0", "0.7.1", "0.8.2", "0.9.0", "0.10.0", "0.11.1",
    "0.12.0", "0.13.2", "0.14.0", "0.15.2", "0.16.0", "0.17.1", "0.18.0", "0.20.0", "0.21.2",
)  # fmt: skip


def multiplied(source: Run, cells: int, loaders: Sequence[str]) -> Run:
    """A run of that many cells: the source's scenarios by every release, under each loader."""
    dice = random.Random(20)
    creators = [_environment(source, f"v{release.replace('.', '')}", release, "creator") for release in RELEASES]
    loading = [_environment(source, f"l{release.replace('.', '')}", release, "loader") for release in loaders]
    made = [
        _copy(cell, f"-{turn}" if turn else "", creator, loader, dice)
        for turn, cell, loader, creator in _combinations(source, creators, loading, cells)
    ]
    run = source.model_copy(
        update={
            "cells": tuple(made),
            "environments": (*creators, *loading),
            "plan": tuple(cell.id for cell in made),
            "title": f"{len(made):,} cells, made of {source.id}",
        }
    )
    return finished(run)


def _combinations(
    source: Run, creators: list[EnvironmentReport], loading: list[EnvironmentReport], cells: int
) -> Iterator[tuple[int, Cell, EnvironmentReport, EnvironmentReport]]:
    turns = cells // (len(source.cells) * len(creators) * len(loading)) + 1
    every = itertools.product(range(turns), source.cells, loading, creators)
    return itertools.islice(every, cells)


def _environment(source: Run, name: str, release: str, role: str) -> EnvironmentReport:
    like = next((e for e in source.environments if role in e.role), source.environments[0])
    return like.model_copy(update={"name": name, "role": (role,), "versions": {**like.versions, "peft": release}})


def _copy(cell: Cell, suffix: str, creator: EnvironmentReport, loader: EnvironmentReport, dice: random.Random) -> Cell:
    scenario = cell.scenario + suffix
    name = f"{scenario}@{creator.name}:{loader.name}[{cell.device}]"
    factor = 10 ** dice.uniform(-2, 0)
    probes = {
        key: probe.model_copy(
            update={"figures": tuple(f.model_copy(update=_sized(f, factor, dice)) for f in probe.figures[:1])}
        )
        for key, probe in cell.probes.items()
    }
    return cell.model_copy(
        update={
            "id": name, "scenario": scenario, "creator": creator.name, "loader": loader.name, "probes": probes,
            "reproduce": cell.reproduce.replace(cell.id, name), "duration_s": dice.uniform(0.1, 5),
            "worst_ratio": cell.worst_ratio * factor if cell.worst_ratio else cell.worst_ratio,
            "layers": tuple(layer.model_copy(update=_sized(layer, factor, dice)) for layer in cell.layers),
            "fixture": f"{dice.choice('abc')}{cell.fixture[1:]}" if cell.fixture else "",
        }
    )  # fmt: skip


def _sized(figures: Any, factor: float, dice: random.Random) -> dict[str, float]:
    """A difference and an allowance that no other has."""
    wobble = factor * dice.uniform(0.5, 1)
    return {"max_abs": figures.max_abs * wobble, "allowance": figures.allowance * dice.uniform(0.9, 1.1)}
