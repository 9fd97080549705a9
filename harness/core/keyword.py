"""Expressions that select by name, as pytest's -k: `lokr or loha`, `lora and not (dora or vera)`. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

from harness.core.errors import UsageError

Names = Iterable[str]
Selects = Callable[[Names], bool]
_TOKEN = re.compile(r"[()]|[^\s()]+")
_OPERATORS = {"and", "or", "not", "(", ")"}


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
        self.tokens: list[str] = _TOKEN.findall(text)

    def either(self) -> Selects:
        found = self._both()
        while self._next("or"):
            found = _either(found, self._both())
        return found

    def _both(self) -> Selects:
        found = self._one()
        while self._next("and"):
            found = _both(found, self._one())
        return found

    def _one(self) -> Selects:
        if self._next("not"):
            inner = self._one()
            return lambda names: not inner(names)
        if self._next("("):
            found = self.either()
            if not self._next(")"):
                raise self.wrong()
            return found
        if not self.tokens or self.tokens[0] in _OPERATORS:
            raise self.wrong()
        word = self.tokens.pop(0).lower()
        return lambda names: any(word in name for name in names)

    def _next(self, token: str) -> bool:
        found = self.tokens[:1] == [token]
        del self.tokens[: int(found)]
        return found

    def wrong(self) -> UsageError:
        place = f" at {self.tokens[0]!r}" if self.tokens else " at its end"
        return UsageError(
            f"-k {self._text!r}: not an expression{place}", "words with `and`, `or`, `not` and parentheses",
            "for example -k 'lokr or (lora and not dora)'",
        )  # fmt: skip


def _either(one: Selects, other: Selects) -> Selects:
    return lambda names: one(names) or other(names)


def _both(one: Selects, other: Selects) -> Selects:
    return lambda names: one(names) and other(names)
