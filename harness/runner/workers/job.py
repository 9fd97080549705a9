"""One cell's work, and how far a pool has come with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.observation import Done
from harness.worker.files import remove
from harness.worker.shared import PATIENCE

GRACE_S = 15.0
"""Time after the longest that a cell may take until the worker counts as hanging. The worker enforces limits itself."""


@dataclass(frozen=True)
class Job:
    """One cell's work."""

    id: str
    request: Mapping[str, Any]
    scratch: Path
    time_limit_s: float
    fill: Callable[[], object] = lambda: None
    """Fills the scratch folder. Called before a second try: the first one may have changed what was there."""


@dataclass(eq=False)
class Task:
    """A job in a pool."""

    job: Job
    future: Future[Done] = field(default_factory=Future)
    alone: bool = False
    """Run it with nothing beside it: the first try was in flight with others, or the machine was too busy for it."""
    note: str = ""
    sent: float = 0.0
    times_sent: int = 0
    started: bool = False

    def to_be_sent(self) -> None:
        """Records the sending; undoes what an earlier start left.

        Raises:
            HarnessError, OSError: the folder cannot be filled again.
        """
        if self.started:
            remove(self.job.scratch)
            self.job.scratch.mkdir(parents=True)
            self.job.fill()
        self.sent = time.monotonic()
        self.times_sent += 1

    @property
    def may_be_to_blame(self) -> bool:
        """False where the worker died before it started this job for the first time."""
        return self.times_sent > 1 or self.started

    @property
    def overdue(self) -> float:
        """When the worker counts as hanging."""
        return self.sent + PATIENCE * self.job.time_limit_s + GRACE_S
