"""How cells are checked, on this machine and on a node of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.runner.remembered import AUDIT


@dataclass(frozen=True)
class How:
    """The options of a session."""

    jobs: int = 0
    """Cells at once; 0 for one on each core."""
    creating: bool = False
    """Make a fixture that is not stored yet, in the creator's environment."""
    forward: bool = False
    """Also run loaders that lack a feature which the scenario requires: do they refuse, or load something else?"""
    observations: bool = False
    """Keep in each cell what it observed."""
    share: bool = True
    """Compute once what the loader can't tell apart (`harness.runner.shared_replay`)."""
    side_by_side: bool = False
    """Take the cells in their order, instead of loader by loader."""
    fresh: bool = False
    """Compute every cell, also those that are remembered."""
    audit: float = AUDIT
    """The share of remembered cells that is computed anew and compared."""
    options: str = ""
    """Options for the command that reproduces a cell: ` --matrices DIR`, with a blank before them."""
    startup_timeout: float | None = None
    """Seconds until a worker must have imported its libraries; None for more on a busy machine."""
    handler: Path | None = None
    """Replaces the worker's own cell module, for tests."""
