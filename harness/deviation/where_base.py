"""Where a base that moved begins to differ: the first of its modules, in execution order (pure).

A golden holds the base's outputs, not those of its modules. So a trace runs the bare base with the creator's libraries
and with the loader's. Modules that the loader renamed are matched by the weights of the base's checkpoint in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.core.model import Model
from harness.core.observation import Array, Observed
from harness.core.run import Figures
from harness.judge import numbers
from harness.judge.numbers import beyond
from harness.judge.renaming import Names, by_order, within
from harness.worker.shared import PRECISIONS

PROBE = "base_trace"
_RESOLUTION = float(np.finfo(np.float32).eps)

Weights = Mapping[str, Mapping[str, Any]]
"""Key of the base's checkpoint → `found` and `at`: the names that have its values in the loaded base."""


class BaseModule(Model):
    """One module of the bare base."""

    name: str
    called: str = ""
    """Its name under the loader, if the creator's differs."""
    class_name: str = ""
    input: Figures | None = None
    output: Figures | None = None
    changed: tuple[str, ...] = ()
    """Weights of the base's checkpoint that belong to it and are not in the loaded base."""
    inner: int = 0
    """How many modules inside it were compared; all of them agree."""

    @property
    def said(self) -> tuple[str, ...]:
        """What is known of it, in words; what changed is last."""
        called = f", named {self.called} by the loader" if self.called else ""
        first = f"in the bare base {self.name} ({self.class_name}{called}) is the first module whose output differs"
        size = f" by {self.output.max_abs:.2g} (allowance {self.output.allowance:.1g})" if self.output else ""
        return (first + size, f"the base changed in {self.name}: {self._why()}")

    def _why(self) -> str:
        if self.changed:
            return f"{', '.join(self.changed[:3])} of the checkpoint is not in the loaded base"
        if self.input is not None and beyond(self.input):
            return "its input differs already, though no module before it does"
        agrees = "its weights equal the checkpoint's and its input agrees" if self.input else "its weights agree"
        own = f", as do the {self.inner} modules inside it" if self.inner else ""
        return f"{agrees}{own}; its own computation changed"


@dataclass(frozen=True)
class Base:
    """The bare base under both sides.

    Attributes:
        names: the creator's module → the loader's.
        places: a layer of the golden that the loader has under no name → where its weights are now.
        fused: such a layer → the parameter of the loader that its weights are a part of.
        first: the first module whose output differs; None if none does, or the creator's side is not known.
        changed: weights of the checkpoint that are not in the loaded base.
        compared: how many modules were compared.
    """

    names: Mapping[str, str]
    places: Mapping[str, str]
    fused: Mapping[str, str]
    first: BaseModule | None = None
    changed: tuple[str, ...] = ()
    compared: int = 0

    @property
    def said(self) -> tuple[str, ...]:
        """Where the base moved, in words."""
        if self.first is not None:
            return self.first.said
        if self.changed:
            return (f"the base changed: {', '.join(self.changed[:3])} of its checkpoint is not in the loaded base",)
        if self.compared:
            return (f"none of the {self.compared} modules of the bare base differs: the change is between them",)
        return ("the creator's environment is not available, so the base's modules were not compared",)


def compare(rows: Sequence[str], now: Observed, creators: Observed | None, quantised: bool = False) -> Base:
    """Compare the bare base module by module.

    Args:
        rows: names of the golden's layers and blocks.
        creators: a trace with the creator's libraries, if there is one.
        quantised: the base is quantised, so that its float64 twin hides what its kernels compute.
    """
    after: Weights = now.fact(PROBE, "weights") or {}
    before: Weights = (creators.fact(PROBE, "weights") if creators else None) or {
        key: {"found": "whole", "at": [key]} for key in after
    }
    inside = {name: _inside(name, before) for name in _modules(creators)}
    inside.update({row: _inside(row, before) or _named_alike(row, before) for row in rows})
    names = _matched(inside, set(rows) - set(_modules(creators)), _modules(now), before, after)
    unnamed = {row: [after[key] for key in sorted(inside[row]) if key in after] for row in rows if row not in names}
    places = {row: place for row, found in unnamed.items() if (place := _place(found))}
    fused = {row: str(one["at"][0]) for row, found in unnamed.items() for one in found if one["found"] == "slice"}
    changed = tuple(key for key in after if _gone(after[key]) and not _gone(before.get(key, {})))
    if creators is None:
        return Base(names, places, fused, changed=changed)
    modules = list(_compared(creators, now, names, quantised))
    return Base(names, places, fused, _first(modules, inside, changed), changed, len(modules))


def _modules(side: Observed | None) -> dict[str, str]:
    """Module → its class, in the order in which the first calls end."""
    return {str(name): str(kind) for name, kind in (side.fact(PROBE, "modules") or [])} if side else {}


def _gone(where: Mapping[str, Any]) -> bool:
    return bool(where.get("found", "nowhere") == "nowhere")


def _matched(
    inside: Mapping[str, set[str]], alone: set[str], modules: Iterable[str], before: Weights, after: Weights
) -> dict[str, str]:
    """The creator's module → the loader's: by name, by the weights inside, by its place in such a module, or in order.

    Args:
        alone: names that only the golden has, since its base was wrapped: two names may be one module.
    """
    there = {name: _inside(name, after) for name in modules}
    found = {name: name for name in inside if name in there and name not in alone}
    taken = set(found.values())
    both = {key for key in before if key in after and before[key]["at"] and after[key]["at"]}
    for names, places in (
        ([name for name in inside if name not in found and name not in alone], [n for n in there if n not in taken]),
        (sorted(alone), list(there)),
    ):
        right = _by_weights({name: there[name] for name in places}, both)
        for keys, own in _by_weights({name: inside[name] for name in names}, both).items():
            same = right.get(keys, [])
            if len(same) == len(own):  # modules around each other have the same weights: the outermost comes first
                found.update(zip(sorted(own, key=len), sorted(same, key=len), strict=True))
    for name in inside:
        around = next((outer for outer in _around(name) if outer in found), "")
        if name not in found and around and (place := found[around] + name[len(around) :]) in there:
            found[name] = place
    ordered = Names(found)
    by_order(ordered, [name for name in inside if name not in alone], list(there))
    return ordered.now


def _around(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _by_weights(inside: Mapping[str, set[str]], keys: set[str]) -> dict[frozenset[str], list[str]]:
    found: dict[frozenset[str], list[str]] = {}
    for name, own in inside.items():
        if own & keys:
            found.setdefault(frozenset(own & keys), []).append(name)
    return found


def _inside(name: str, weights: Weights) -> set[str]:
    """The keys whose tensors are in a module."""
    return {key for key, where in weights.items() if any(within(at, name) for at in where["at"])}


def _named_alike(row: str, weights: Weights) -> set[str]:
    """The keys that are named like a layer but for its first parts: the golden's wrapper, or a prefix of saving."""
    parts = row.split(".")
    for start in range(len(parts) - 1):
        if found := {key for key in weights if within(key, ".".join(parts[start:]))}:
            return found
    return set()


def _place(found: Sequence[Mapping[str, Any]]) -> str:
    """Where the weights of a layer are now, in words; empty if that is not known."""
    at = list(dict.fromkeys(name for where in found for name in where["at"][:1]))
    if not at:
        return ""
    part = "part of " if any(where["found"] == "slice" for where in found) else ""
    return f"{part}{', '.join(at[:3])}{' …' if len(at) > 3 else ''}"


def _compared(
    creators: Observed, now: Observed, names: Mapping[str, str], quantised: bool
) -> Iterable[tuple[BaseModule, bool]]:
    """Each module that both sides have, and whether its output differs; in the creator's order of execution."""
    for name, kind in _modules(creators).items():
        here = names.get(name, "")
        output = _figures("output", name, here, creators, now, quantised)
        if output is not None:
            called = here if here != name else ""
            given = _figures("input", name, here, creators, now, quantised)
            yield BaseModule(name=name, called=called, class_name=kind, input=given, output=output), beyond(output)


def _figures(what: str, name: str, here: str, creators: Observed, now: Observed, quantised: bool) -> Figures | None:
    """How far a module's input or output is from the creator's; None if a side has none."""
    sides = ((creators, name), (now, here))
    narrow, wide = (
        [side.arrays.get(f"{PROBE}/{precision}/{what}/{module}") for side, module in sides] for precision in PRECISIONS
    )
    before, after = narrow if quantised or any(array is None for array in wide) else wide
    if before is None or after is None:
        return None
    own, others = (_noise(*pair) for pair in zip(narrow, wide, strict=True))
    resolution = numbers.BELIEVED * _RESOLUTION * numbers.greatest(before)
    allowance = own + min(others, numbers.BELIEVED * own) + resolution
    return numbers.difference(f"{what} of {name}", before, after, allowance)


def _noise(narrow: Array | None, wide: Array | None) -> float:
    if narrow is None or wide is None or narrow.shape != wide.shape:
        return 0.0
    return numbers.greatest(np.abs(narrow - wide))


def _first(
    modules: Sequence[tuple[BaseModule, bool]], inside: Mapping[str, set[str]], changed: tuple[str, ...]
) -> BaseModule | None:
    for at, (module, differs) in enumerate(modules):
        if differs:
            inner = [other for other, _ in modules[:at] if within(other.name, module.name)]
            own = tuple(key for key in changed if key in inside[module.name])
            return module.model_copy(update={"inner": len(inner), "changed": own})
    return None
