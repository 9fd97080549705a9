"""What is sent to a node, and what it returns. Dask pickles both; controller and node run the same code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.run import Cell, EnvironmentReport
from harness.envs.environment import Environment
from harness.runner.how import How
from harness.runner.plan import Planned
from harness.runner.remembered import Entries


@dataclass(frozen=True)
class Batch:
    """Cells of one loader, and what a node needs to check them."""

    cells: tuple[Planned, ...]
    how: How
    environments: Mapping[str, Environment]
    """Specification → description. The trees of checkouts are in `trees`."""
    on_demand: frozenset[str]
    """Those of them whose fixtures are made on demand."""
    declared: frozenset[str]
    """Those of them that have a name of the matrix."""
    store: Path
    """The controller's folder of fixtures, for messages."""
    fixtures: Mapping[str, str] = field(default_factory=dict)
    """File in that folder → SHA-256."""
    trees: Mapping[str, str] = field(default_factory=dict)
    """Digest of a source tree → SHA-256 of the tar file that holds it."""
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Digest of a saved adapter beside a scenario → its files and their SHA-256."""

    remembered: Entries = field(default_factory=Entries)
    """What the controller remembers of the cells."""

    @property
    def contents(self) -> list[str]:
        """The SHA-256 of every file."""
        given = (sha256 for files in self.given.values() for sha256 in files.values())
        return list(dict.fromkeys([*self.fixtures.values(), *self.trees.values(), *given]))


@dataclass(frozen=True)
class Done:
    """A checked batch."""

    cells: tuple[Cell, ...]
    environments: tuple[EnvironmentReport, ...] = ()
    failed: tuple[EnvironmentReport, ...] = ()
    """Environments that could not be built."""
    import_seconds: Mapping[str, float] = field(default_factory=dict)
    remembered: Entries = field(default_factory=Entries)
    """What the node observed, for the controller's memory."""
