"""Python as text: a script made of parts, and literals (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness.core.observation import Array

WIDTH = 110


@dataclass(frozen=True)
class Part:
    """Lines of a script, and what they need before them.

    Attributes:
        lines: part of the script's body.
        imports: whole lines, such as `from peft import PeftModel`.
        helpers: name of a function or class → its text, placed before the body.
    """

    lines: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    helpers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def then(self, other: Part) -> Part:
        """This part followed by another."""
        return Part((*self.lines, *other.lines), (*self.imports, *other.imports), {**self.helpers, **other.helpers})

    def needing(self, other: Part) -> Part:
        """This part with the imports and helpers of another, without its lines."""
        return replace(self, imports=(*other.imports, *self.imports), helpers={**other.helpers, **self.helpers})


def joined(parts: Iterable[Part]) -> Part:
    """Several parts in order."""
    whole = Part()
    for part in parts:
        whole = whole.then(part)
    return whole


def part(*lines: str, imports: Sequence[str] = ()) -> Part:
    """Lines that need these imports."""
    return Part(tuple(lines), tuple(imports))


def arguments(values: Mapping[str, Any]) -> str:
    """Keyword arguments: `r=4, lora_alpha=6`; names that are not identifiers are passed with `**`."""
    plain = [f"{name}={literal(value)}" for name, value in values.items() if name.isidentifier()]
    others = {name: value for name, value in values.items() if not name.isidentifier()}
    return ", ".join([*plain, *([f"**{literal(others)}"] if others else [])])


def literal(value: Any) -> str:
    """A TOML value as a Python literal."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def imported(lines: Iterable[str]) -> list[str]:
    """Sorted import lines without repetition: the standard library first; one `from X import` line for each X."""
    modules: set[str] = set()
    names: dict[str, set[str]] = {}
    for line in lines:
        if line.startswith("from "):
            _, module, _, given = line.split(" ", 3)
            names.setdefault(module, set()).update(part.strip() for part in given.split(","))
        else:
            modules.add(line.removeprefix("import "))
    found = [(f"import {module}", module) for module in modules]
    found += [(f"from {module} import {', '.join(sorted(given))}", module) for module, given in names.items()]
    first = sorted(line for line, module in found if module.split(".")[0] in _STANDARD)
    rest = sorted((line for line, module in found if module.split(".")[0] not in _STANDARD), key=_order)
    return [*first, *([""] if first and rest else []), *rest]


_STANDARD = frozenset({"copy", "json", "logging", "os", "sys", "warnings", "math"})


def _order(line: str) -> tuple[bool, str]:
    return line.startswith("from "), line.lower()


LITERAL = 64
"""Inputs with at most this many elements are literals; larger ones are in a file."""


def is_literal(array: Array) -> bool:
    """True if an input is written into the script."""
    return array.size <= LITERAL and array.dtype.kind in "ifbu" and bool(np.isfinite(array).all())


def tensor(array: Array) -> str:
    """An array as `torch.tensor([[1, 2], [3, 4]])`, with all digits of its type."""
    return f"torch.tensor({_listed(array)})"


def _listed(array: Array) -> str:
    if array.ndim == 0:
        return "True" if array.dtype.kind == "b" and bool(array) else _number(array)
    return "[" + ", ".join(_listed(np.asarray(row)) for row in array) + "]"


def _number(array: Array) -> str:
    if array.dtype.kind == "b":
        return str(bool(array))
    return np.format_float_positional(array.dtype.type(array), trim="0") if array.dtype.kind == "f" else str(int(array))
