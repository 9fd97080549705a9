"""The pattern of a deviation over several layers, in words and as a value (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.core.pattern import Pattern
from harness.core.text import many
from harness.judge.pattern import factors
from harness.judge.pattern.arrays import Change, Explanation, explain, holds, rounded

_SHOWN = 4

_Group = tuple[str, ...]


@dataclass(frozen=True)
class _Layers:
    """All compared layers, and what explains those that differ."""

    changes: Mapping[str, Change]
    differing: tuple[str, ...]
    explained: Mapping[str, Explanation]
    config: Mapping[str, Any]

    def where(self, names: Iterable[str]) -> str:
        """`in 2 of 4 layers`."""
        return f"in {len(tuple(names))} of {many(len(self.changes), 'layer')}"

    def others(self, names: Iterable[str]) -> tuple[str, ...]:
        """The layers that differ and are not among these."""
        known = set(names)
        return tuple(name for name in self.differing if name not in known)


def of(changes: Mapping[str, Change], config: Mapping[str, Any]) -> Pattern | None:
    """The pattern that most of the differing layers have in common; None if there is none.

    Args:
        changes: layer → its own effect in the golden and now.
        config: the adapter's, as it was saved.
    """
    differing = tuple(name for name, change in changes.items() if change.differs)
    explained = {name: found for name in differing if (found := _explained(changes[name])) is not None}
    layers = _Layers(changes, differing, explained, config)
    groups: dict[_Group, list[str]] = {}
    for name, found in explained.items():
        groups.setdefault(_group(found), []).append(name)
    key = max(groups, key=lambda group: len(groups[group]), default=None)
    if key is None:
        return None
    members = tuple(groups[key])
    pattern = _factor(layers, members) if key == ("factor",) else _plain(layers, members)
    # what explains a minority of the layers is no explanation of the cell
    return pattern if pattern and 2 * len(pattern.layers) > len(differing) else None


def _explained(change: Change) -> Explanation | None:
    return explain(change) or (rounded(change) if change.telling else None)


def _group(found: Explanation) -> _Group:
    return ("factor",) if found.kind == "factor" else (found.kind, found.detail)


def _plain(layers: _Layers, members: tuple[str, ...]) -> Pattern:
    found = layers.explained[members[0]]
    if found.kind in ("zero", "sign"):  # layers that differ too little to tell by themselves
        assert found.factor is not None
        members = tuple(n for n in layers.differing if n in members or holds(layers.changes[n], found.factor))
    return Pattern(
        kind=found.kind,
        says=f"{sentence(found, 'the effect')} {layers.where(members)}{_rest(layers.others(members))}",
        factor=found.factor,
        detail=found.detail,
        layers=members,
        unexplained=layers.others(members),
        compared=len(layers.changes),
        remaining=_left(layers, members),
    )


def _factor(layers: _Layers, members: tuple[str, ...]) -> Pattern:
    """A factor, with the expressions of the config that give it in every layer."""
    of_config = {name: factors.of(layers.config, name) for name in layers.changes}
    common = _common({n: of_config[n] for n in members}, {n: layers.changes[n] for n in members})
    quiet = [n for n in layers.changes if n not in layers.differing]
    # an expression that has another value than 1 in a layer that agrees is right by chance, if one is 1 in all of these
    common = tuple(text for text in common if not any(text in of_config[n] for n in quiet)) or common
    if common:
        first = common[0]
        members = tuple(n for n in layers.differing if holds(layers.changes[n], of_config[n].get(first, 1.0)))
        left = max(_left_by(layers.changes[n], of_config[n].get(first, 1.0)) for n in members)
        values = [of_config[n].get(first, 1.0) for n in members]
    else:
        own = {n: layers.explained[n].factor or 0.0 for n in members}
        one = float(np.median(list(own.values())))
        same = tuple(n for n in layers.differing if holds(layers.changes[n], one))
        members, values = (same, [one]) if set(members) <= set(same) else (members, list(own.values()))
        left = max(_left_by(layers.changes[n], one if len(values) == 1 else own[n]) for n in members)
    silent = [n for n in quiet if common and common[0] not in of_config[n]]
    shown = _shown(values) + "".join(f" = {text}" for text in common[:_SHOWN])
    own_factors = " (each layer has its own)" if not common and len(values) > 1 else ""
    one_there = f", and ×1 in {len(silent)} more" if silent else ""
    return Pattern(
        kind="factor",
        says=f"{shown}{own_factors} {layers.where(members)}{one_there}{_rest(layers.others(members))}",
        factor=values[0] if max(values) - min(values) <= 1e-9 * abs(values[0]) else None,
        expressions=common,
        layers=members,
        unexplained=layers.others(members),
        compared=len(layers.changes),
        remaining=left,
    )


def _common(of_config: Mapping[str, Mapping[str, float]], changes: Mapping[str, Change]) -> tuple[str, ...]:
    """The expressions that give the factor of every layer, in the order of the table of expressions."""
    fits = [[text for text, value in of_config[n].items() if holds(changes[n], value)] for n in changes]
    return tuple(text for text in fits[0] if all(text in other for other in fits[1:]))


def _left_by(change: Change, factor: float) -> float:
    return change.left(factor * change.golden, factor)


def _left(layers: _Layers, members: Iterable[str]) -> float:
    return max((layers.explained[n].left for n in members if n in layers.explained), default=0.0)


def _rest(others: tuple[str, ...]) -> str:
    return f"; {many(len(others), 'other')} differ{'s' if len(others) == 1 else ''} in another way" if others else ""


def _shown(values: list[float]) -> str:
    low, high = multiplied(min(values)), multiplied(max(values))
    return low if low == high else f"{low} to {high}"


def multiplied(factor: float) -> str:
    """A factor with enough digits to show how far it is from 1: `×3.000`, `×1.00010`."""
    away = abs(factor - 1)
    digits = 3 if away >= 0.01 or away == 0 else min(9, 1 - int(np.floor(np.log10(1.01 * away))))
    return f"×{factor:.{digits}f}" if abs(factor) >= 0.1 else f"×{factor:.3g}"


def sentence(found: Explanation, what: str) -> str:
    """An explanation in words.

    Args:
        what: what changed: `the effect`.
    """
    words: Mapping[str, Callable[[], str]] = {
        "not-finite": lambda: f"{what} is {found.detail}",
        "zero": lambda: f"{what} is 0, as if there were no adapter,",
        "sign": lambda: f"{what} has the opposite sign",
        "factor": lambda: f"{what} is multiplied by {multiplied(found.factor or 0.0)[1:]}",
        "bias": lambda: f"{what} differs by the same vector in each row, as a bias does,",
        "permutation": lambda: f"{what} has its values in another order ({found.detail})",
        "shift": lambda: f"{what} is shifted ({found.detail})",
        "clip": lambda: f"{what} is clipped {found.detail}",
        "factors": lambda: f"{what} has another factor for each of its {found.detail}",
        "narrow": lambda: f"{what} differs by as much as rounding to {found.detail}",
    }
    return words[found.kind]()
