"""Cells as few blocks. A condition names scenarios, creators, loaders and devices, and selects all combinations.

The cells that somebody picked are seldom such a block. Here they are split into blocks that contain nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from harness.core.run import Cell

Place = tuple[str, str, str, str]
"""Scenario, creator, loader, device."""
Axes = tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str]]


@dataclass(frozen=True)
class Block:
    """All combinations of some scenarios, creators, loaders and devices."""

    scenarios: frozenset[str]
    creators: frozenset[str]
    loaders: frozenset[str]
    devices: frozenset[str]

    @property
    def axes(self) -> Axes:
        """The four sets, in the order of a `Place`."""
        return (self.scenarios, self.creators, self.loaders, self.devices)

    def places(self) -> Iterable[Place]:
        """Every combination."""
        return itertools.product(self.scenarios, self.creators, self.loaders, self.devices)

    def holds(self, place: Place) -> bool:
        """True if the block contains the combination."""
        return all(one in axis for one, axis in zip(place, self.axes, strict=True))


def place_of(cell: Cell) -> Place:
    """The place of a cell."""
    return (cell.scenario, cell.creator, cell.loader, cell.place)


def blocks(wanted: Collection[Place], harmless: Collection[Place] = ()) -> tuple[Block, ...]:
    """Blocks that contain all wanted places, and otherwise only harmless ones; in the order of the wanted places.

    They are few, though not always the fewest possible.

    Args:
        harmless: places for which no condition can be wrong: those that are unsupported.
    """
    found = [Block(*(frozenset([one]) for one in place)) for place in dict.fromkeys(wanted)]
    count = 0
    while len(found) != count:
        count = len(found)
        for axis in (2, 1, 0, 3):
            found = _joined(found, axis)
    allowed = {*wanted, *harmless}
    while (pair := _joinable(found, allowed)) is not None:
        one, other, both = pair
        found = [both if block is one else block for block in found if block is not other]
    order = {place: index for index, place in enumerate(wanted)}
    return tuple(sorted(found, key=lambda block: min(order.get(place, len(order)) for place in block.places())))


def _joined(found: list[Block], axis: int) -> list[Block]:
    """The blocks, after merging those that differ in one axis only."""
    groups: dict[tuple[frozenset[str], ...], list[frozenset[str]]] = {}
    for block in found:
        rest = tuple(other for index, other in enumerate(block.axes) if index != axis)
        groups.setdefault(rest, []).append(block.axes[axis])
    joined = ([*rest[:axis], frozenset[str]().union(*parts), *rest[axis:]] for rest, parts in groups.items())
    return [Block(*axes) for axes in joined]


def _joinable(found: list[Block], allowed: set[Place]) -> tuple[Block, Block, Block] | None:
    """Two blocks and the block around both, if that contains only allowed places."""
    for one, other in itertools.combinations(found, 2):
        both = Block(*(a | b for a, b in zip(one.axes, other.axes, strict=True)))
        if all(place in allowed for place in both.places()):
            return one, other, both
    return None
