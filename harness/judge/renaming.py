"""Which layer or block of a loaded model is which one of the golden, if the loader gave it another name (pure).

Adapter layers are matched by the base's weights in them, which the worker does, else by their name within a renamed
block. Blocks are matched by the adapter layers inside them, then by their place in the order of execution. Adapter
layers never are: releases run query, key and value in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Rows = Sequence[tuple[str, str]]
"""(name, kind) of adapter layers and blocks in execution order."""


@dataclass
class Names:
    """The golden's names in the loaded model.

    Attributes:
        now: name in the golden → name in the loaded model.
        unclear: name in the golden → the names that it may have, if the order does not decide.
    """

    now: dict[str, str] = field(default_factory=dict)
    unclear: dict[str, tuple[str, ...]] = field(default_factory=dict)


def names(before: Rows, after: Rows, known: Mapping[str, str]) -> Names:
    """Match the rows of the golden with those of the loaded model.

    Args:
        known: name in the golden → name in the loaded model, found by weights.
    """
    there = {name for name, _ in after}
    found = Names({name: name for name, _ in before if name in there})
    found.now.update({name: now for name, now in known.items() if name not in found.now})
    old = [name for name, kind in before if kind == "block"]
    new = [name for name, kind in after if kind == "block"]
    _by_layers_inside(found, old, new)
    by_order(found, old, new)
    _by_block(found, [name for name, _ in before], there)
    return found


def _by_layers_inside(found: Names, old: Iterable[str], new: Sequence[str]) -> None:
    """A block is the one that has the same layers in it; of blocks within each other the outermost comes first."""
    inside: dict[frozenset[str], list[str]] = {}
    for block in _unmatched(found, old):
        if layers := frozenset(now for name, now in found.now.items() if within(name, block) and name != block):
            inside.setdefault(layers, []).append(block)
    taken = set(found.now.values())
    for layers, blocks in inside.items():
        places = [block for block in new if block not in taken and all(within(name, block) for name in layers)]
        others = set(found.now.values()) - layers
        places = [block for block in places if not any(within(name, block) for name in others if name not in new)]
        if len(places) == len(blocks):
            found.now.update(zip(sorted(blocks, key=len), sorted(places, key=len), strict=True))


def _by_block(found: Names, rows: Iterable[str], there: set[str]) -> None:
    """A layer has the same name in its block, if the block alone was renamed: its base may have lost its weights."""
    for name in _unmatched(found, rows):
        blocks = [block for block in found.now if within(name, block) and found.now[block] != block]
        for block in sorted(blocks, key=len, reverse=True)[:1]:
            if (now := found.now[block] + name[len(block) :]) in there:
                found.now[name] = now


def by_order(found: Names, old: Sequence[str], new: Sequence[str]) -> None:
    """Between two that are matched, those that are not are matched in order if there are as many."""
    taken = set(found.now.values())
    gaps_before, gaps_after = _gaps(old, set(found.now)), _gaps(new, taken)
    for previous, blocks in gaps_before.items():
        places = gaps_after.get(found.now.get(previous, ""), [])
        if len(places) == len(blocks):
            found.now.update(zip(blocks, places, strict=True))
        elif places:
            found.unclear.update({block: tuple(places) for block in blocks})


def _gaps(blocks: Iterable[str], matched: set[str]) -> dict[str, list[str]]:
    """The block before each gap (empty for the first) → the unmatched blocks in it."""
    gaps: dict[str, list[str]] = {}
    previous = ""
    for block in blocks:
        if block in matched:
            previous = block
        else:
            gaps.setdefault(previous, []).append(block)
    return gaps


def _unmatched(found: Names, rows: Iterable[str]) -> list[str]:
    return [name for name in rows if name not in found.now]


def within(name: str, module: str) -> bool:
    """True if a module or parameter is in a module, or is that module."""
    return f"{name}.".startswith(f"{module}.") if module else True
