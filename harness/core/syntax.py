"""Parses Python source that others wrote, without running it."""

from __future__ import annotations

import ast


def module(text: str) -> ast.Module:
    """The syntax tree of a text.

    Raises:
        SyntaxError: it is not Python, or nested too deeply, or holds a NUL.
    """
    try:
        return ast.parse(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from error
