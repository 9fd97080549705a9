"""Ctrl-C and SIGTERM while something is made that must be there whole or not at all."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """The first signal raises KeyboardInterrupt; what comes while things are cleared away is passed over."""

    def __init__(self) -> None:
        self._passed_over = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        if not self._passed_over:
            self._passed_over = True
            raise KeyboardInterrupt

    def clearing(self) -> None:
        """From now on things are cleared away: nothing may come between."""
        self._passed_over = True


@contextlib.contextmanager
def once() -> Iterator[Interrupts]:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt once within the block."""
    taken = Interrupts()
    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers there
        yield taken
        return
    before: dict[int, Any] = {number: signal.signal(number, taken) for number in SIGNALS}
    try:
        yield taken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
