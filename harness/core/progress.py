"""Where messages about progress go."""

from __future__ import annotations

from collections.abc import Callable

Log = Callable[[str], None]
"""Gets a line for each step that takes time, such as building an environment."""


def quiet(_: str) -> None:
    """Log nothing."""
