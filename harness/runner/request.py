"""Requests: what a command or a library call asks for. All are frozen, and every field has a default.

`Places()` is our own matrix and fixtures, `Selection()` every scenario that needs no model of the Hub, and
`CheckRequest()` every stored fixture under the newest libraries.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.core import data, keyword
from harness.core.cell_settings import OWN, Settings
from harness.core.errors import UsageError
from harness.core.matrix import NEEDS_HUB, Declared, Matrix, of_families
from harness.core.progress import Log, quiet
from harness.envs.environments import Environments
from harness.store.fixtures import Store

Kind = TypeVar("Kind", bound=Environments)


@dataclass(frozen=True)
class Places:
    """Folders that a request reads and writes. None means our own (`harness.core.data`)."""

    matrices: Path | None = None
    """Scenarios, bases, environments and known breaks. What is missing there is taken from our own."""
    fixtures: Path | None = None
    reports: Path | None = None

    @property
    def matrices_folder(self) -> Path:
        """Where scenarios, environments and known breaks are."""
        return self.matrices or data.matrices()

    @property
    def fixtures_folder(self) -> Path:
        """Where fixtures are."""
        return self.fixtures or data.fixtures()

    @property
    def reports_folder(self) -> Path:
        """Where runs are written."""
        return self.reports or data.reports()

    def matrix(self) -> Matrix:
        """The scenarios and their bases."""
        return Matrix(self.matrices_folder, data.matrices())

    def store(self, *, required: bool = True) -> Store:
        """The fixtures.

        Args:
            required: refuse if our own were not fetched; else the store is empty.

        Raises:
            UsageError: the package is installed, no folder is named, and nobody fetched fixtures.
        """
        if required and self.fixtures is None and not self.fixtures_folder.is_dir():
            raise data.fixtures_missing(self.fixtures_folder)
        return Store(self.fixtures_folder)

    def environments(self, log: Log = quiet) -> Environments:
        """The environments."""
        return self.environments_as(Environments, log)

    def environments_as(self, kind: type[Kind], log: Log = quiet) -> Kind:
        """The environments, as a subclass that can do more."""
        return kind(self.matrices_folder, log=log, fallback=data.matrices() if self.matrices else None)


@dataclass(frozen=True)
class Selection:
    """Which scenarios are meant. All conditions must hold."""

    keyword: str = ""
    """An expression of parts of the scenario's name, and of families: `lokr or (lora and not dora)`."""
    families: tuple[str, ...] = ()
    """Names or globs; empty for all."""
    scenarios: tuple[Path, ...] = ()
    """Scenario files, or folders of them, in the place of the matrix."""
    hub: bool = False
    """Include scenarios on real models of the Hub, read from its local cache."""

    def chosen(self, matrix: Matrix) -> list[Declared]:
        """The selected scenarios.

        Raises:
            UsageError: a file is wrong, or no scenario is of one of the families.
        """
        found = matrix.scenarios(self.scenarios or None, hub=self.hub, families=self.families)
        return [one for one in found if self._has_keyword(one)]

    def declared(self, matrix: Matrix, *, hub: bool | None = None) -> list[Declared]:
        """The scenarios of the files that are named, or of the matrix. Keyword and families are not applied.

        Args:
            hub: include scenarios on Hub models, in the place of the selection's own `hub`.

        Raises:
            UsageError: a file is wrong, or has no scenario.
        """
        return matrix.scenarios(self.scenarios or None, hub=self.hub if hub is None else hub)

    def of(self, declared: Iterable[Declared]) -> list[Declared]:
        """Those of these scenarios that keyword and families select.

        Raises:
            UsageError: no scenario is of one of the families.
        """
        return [one for one in of_families(declared, self.families) if self._has_keyword(one)]

    def _has_keyword(self, one: Declared) -> bool:
        return keyword.parse(self.keyword)((one.name, one.family))

    def left_out(self, matrix: Matrix) -> dict[str, str]:
        """Selected scenarios that are skipped because they need a model of the Hub: name → why."""
        if self.hub:
            return {}
        return {one.name: NEEDS_HUB for one in self.of(self.declared(matrix, hub=True)) if one.needs_hub}


@dataclass(frozen=True)
class CheckRequest:
    """Which cells a check has, and how they are computed.

    A cell is one scenario's fixture of one creator, replayed by one loader.
    """

    creators: tuple[str, ...] = ()
    """Whose fixtures; empty: all that have stored ones. With `pair`, environments that make them."""
    loaders: tuple[str, ...] = ("current",)
    """What replays them: names of environments, `peft==0.20.0`, paths of checkouts, `python:PATH`, Git URLs."""
    every_creator: bool = False
    """All creators: those with stored fixtures, and those whose fixtures are made on demand."""
    selection: Selection = Selection()
    cells: tuple[str, ...] = ()
    """Ids of cells, or globs of ids; empty for all."""
    expression: str = ""
    """Which cells by parts of their names, as pytest's -k; see `harness.runner.plan.names_of`."""
    device: str = "cpu"
    settings: Settings = OWN
    """The precision and the attention that loaders compute with."""
    pair: bool = False
    """Make each fixture first, in the creator's environment, and store none."""
    forward: bool = False
    """Also run loaders that are older than a scenario's feature: do they refuse, or load something else? `pair` always
    does so."""
    further: bool = False
    """Run the further probes in every cell. A check of a change runs them in some (`plan.with_further`)."""
    each: bool = False
    """Replay every fixture; do not reuse the result of one that the loader cannot tell apart, or of an earlier run."""
    fresh: bool = False
    """Compute every cell, also those whose observation an earlier run computed (`harness.runner.memory`)."""
    audit: float = 0.02
    """The share of the remembered cells that is computed anew and compared. The sample changes every day."""
    trace: bool = False
    """Record which functions of the libraries each cell executes, where that is not remembered. A check of a change
    does so for its baseline."""
    time_limit: float | None = None
    """Seconds for a cell, in the place of its scenario's limit."""
    startup_timeout: float | None = None
    """Seconds until a worker must have imported its libraries; None for 300, and more on a busy machine."""
    jobs: int = 0
    """Cells at once; 0 for as many as there are cores. With `cluster`, on each node."""
    cluster: str = ""
    """The scheduler of a cluster whose nodes check the cells: `dask://HOST:PORT` (`harness.runner.cluster`)."""
    fail_on_warned: bool = False
    """A new warning is a regression too."""
    resume: bool = False
    """Go on with the newest unfinished run of the same cells."""
    observations: bool = False
    """Keep what each cell observed, to compare it with another loader's (`harness.judge.side_by_side`)."""
    places: Places = Places()
    worker_handler: Path | None = None
    """In the place of the worker's cell module, for tests of everything around it."""

    def __post_init__(self) -> None:
        """Refuse what would be misread.

        Raises:
            UsageError: a number is out of range, or a text is given where several are expected.
        """
        must_be_count("jobs", self.jobs)
        for name in ("time_limit", "startup_timeout"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise UsageError(f"{name}={limit!r}", "a number of seconds above 0", "leave it out for no other limit")
        if not 0 <= self.audit <= 1:
            raise UsageError(f"audit={self.audit!r}", "a share from 0 to 1", "leave it out for 0.02")
        for name in ("creators", "loaders", "cells"):
            if isinstance(value := getattr(self, name), str):
                raise UsageError(f"{name}={value!r}", "a tuple of names", f"write {name}=({value!r},)")

    @property
    def is_narrowed(self) -> bool:
        """True if the user chooses creators, scenarios or cells."""
        selection = self.selection
        chosen = (self.creators, self.cells, self.expression)
        return any((*chosen, selection.keyword, selection.families, selection.scenarios))


def must_be_count(name: str, value: int) -> None:
    """Refuse a number of things at once that is below 0.

    Raises:
        UsageError: it is.
    """
    if value < 0:
        raise UsageError(f"{name}={value!r}", "a whole number, 0 or more", "leave it out for one on each core")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
