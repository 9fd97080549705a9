"""Expressions that select by name, as pytest's -k: `lokr or loha`, `lora and not (dora or vera)`. Pure."""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Callable, Iterable

from harness.core.errors import UsageError

Names = Iterable[str]
Selects = Callable[[Names], bool]
_TOKEN = re.compile(r"[()]|[^\s()]+")
_OPERATORS = {"and", "or", "not", "(", ")"}
_DEEPEST = 50
"""Parentheses and `not` may be nested this deeply."""


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Selects:
    """A function that says whether names match an expression. A word matches if it is part of a name; case is ignored.

    An empty expression matches everything.

    Raises:
        UsageError: it is no expression.
    """
    if not text.strip():
        return lambda _: True
    parser = _Parser(text)
    selects = parser.either()
    if parser.tokens:
        raise parser.wrong()
    return lambda names: selects([name.lower() for name in names])


def words(text: str) -> list[str]:
    """The words of an expression, without its operators."""
    return [token for token in _TOKEN.findall(text) if token not in _OPERATORS]


class _Parser:
    """A recursive descent; `tokens` are those that are left."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.tokens: deque[str] = deque(_TOKEN.findall(text))

    def either(self, depth: int = 0) -> Selects:
        parts = [self._both(depth)]
        while self._next("or"):
            parts.append(self._both(depth))
        return lambda names: any(part(names) for part in parts)

    def _both(self, depth: int) -> Selects:
        parts = [self._one(depth)]
        while self._next("and"):
            parts.append(self._one(depth))
        return lambda names: all(part(names) for part in parts)

    def _one(self, depth: int) -> Selects:
        if depth > _DEEPEST:
            raise self.wrong(": nested too deeply")
        if self._next("not"):
            inner = self._one(depth + 1)
            return lambda names: not inner(names)
        if self._next("("):
            found = self.either(depth + 1)
            if not self._next(")"):
                raise self.wrong()
            return found
        if not self.tokens or self.tokens[0] in _OPERATORS:
            raise self.wrong()
        word = self.tokens.popleft().lower()
        return lambda names: any(word in name for name in names)

    def _next(self, token: str) -> bool:
        found = bool(self.tokens) and self.tokens[0] == token
        if found:
            self.tokens.popleft()
        return found

    def wrong(self, why: str = "") -> UsageError:
        place = why or (f" at {self.tokens[0]!r}" if self.tokens else " at its end")
        return UsageError(
            f"-k {self._text!r}: not an expression{place}", "words with `and`, `or`, `not` and parentheses",
            "for example -k 'lokr or (lora and not dora)'",
        )  # fmt: skip
