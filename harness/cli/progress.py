"""How far a run is: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from harness.core.run import Cell

_KNOWN = ", known breaks included"
"""Whether a deviation is new is known at the end."""


class Listener:
    """Shows progress on a console. Use it as a context manager; leaving it removes the bar."""

    EVERY_S = 10.0

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.total = self.done = 0
        self.deviating = 0
        self._last = time.monotonic()
        self._news = self._said = ""
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def planned(self, total: int, resumed: int) -> None:
        """The run has `total` cells, and `resumed` are done from before."""
        self.total, self.done = total, resumed
        if self.quiet:
            return
        if resumed:
            self.console.print(f"resuming: {resumed} of {total} cells are done")
        if self.console.is_terminal:
            columns = (
                TextColumn("replaying"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("importing the libraries …", total=total)

    def grown(self, total: int, why: str) -> None:
        """The run has `total` cells by now. Several threads call this."""
        with self._lock:
            self.total, self._news = total, why

    def finished(self, cell: Cell) -> None:
        """One cell is done. Several threads call this."""
        with self._lock:
            self.done += 1
            self.deviating += cell.verdict.is_deviation
            if not self.quiet:
                self._show()

    def _show(self) -> None:
        if self._bar:
            what = f"{self.deviating} deviate{_KNOWN}"
            self._bar.update(self._task, completed=self.done, total=self.total, description=what)
        if self.done < self.total and time.monotonic() - self._last <= self.EVERY_S:
            return
        self._last = time.monotonic()
        if not self._bar:
            self.console.print(f"replayed {self.done} of {self.total} cells, {self.deviating} deviate{_KNOWN}")
        if self._news != self._said:
            self._said = self._news
            self.console.print(self._news, soft_wrap=True)
