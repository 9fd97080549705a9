"""Which cells the next batch has, and what follows from the death of a node. Pure.

A unit is what stays together: the cells of one scenario under one loader, which share replays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from harness.runner.plan import Planned

Unit = tuple[Planned, ...]

LEAST, MOST = 8, 64
"""Cells of a batch for each thread of its node. Fewer are not worth an import; of more, too many are lost with it."""
_ROUNDS = 2
"""Batches that each node shall still get, so that all nodes end at about the same time."""
_DEATHS = 2
"""A batch that ends this many nodes is split; a single cell that does so is not tried again."""


@dataclass(frozen=True)
class Piece:
    """The cells of a batch, and why the nodes ended that had it before."""

    units: tuple[Unit, ...]
    ends: tuple[str, ...] = ()
    node: str = ""
    """The last node that had it."""

    @property
    def cells(self) -> Unit:
        """All cells."""
        return tuple(cell for unit in self.units for cell in unit)

    @property
    def loader(self) -> str:
        """The specification of their loader."""
        return self.units[0][0].loader_spec

    def halves(self) -> tuple[Piece, Piece]:
        """Two pieces. A piece of one unit is split too, and its cells then share no replays."""
        units = self.units if len(self.units) > 1 else tuple((cell,) for cell in self.cells)
        half = len(units) // 2
        return replace(self, units=units[:half]), replace(self, units=units[half:])


@dataclass
class Waiting:
    """Cells that no node has yet, by loader in the order in which they were added."""

    _units: dict[str, list[Unit]] = field(default_factory=dict)
    _again: list[Piece] = field(default_factory=list)
    _running: Counter[str] = field(default_factory=Counter)

    def add(self, cells: Iterable[Planned]) -> None:
        """Add cells."""
        for unit in units_of(cells):
            self._units.setdefault(unit[0].loader_spec, []).append(unit)

    def take(self, nodes: int, threads: int, last: str = "", node: str = "") -> Piece | None:
        """The cells for a node that is free; None if none wait.

        Args:
            nodes: how many nodes there are.
            threads: of this node.
            last: the loader of its last batch, which it has built.
            node: its address. It gets nothing again that it failed at, unless it is the only node.
        """
        again = next((one for one in self._again if one.node != node or nodes < 2), None)
        if again is not None:
            self._again.remove(again)
        piece = again or self._next(nodes, threads, last)
        if piece is None:
            return None
        self._running[piece.loader] += 1
        return replace(piece, node=node)

    def _next(self, nodes: int, threads: int, last: str) -> Piece | None:
        if not self._units:
            return None
        # a loader that no other node has, if there is one: its environment is then built once
        by_load = {loader: self._cells(units) / (1 + self._running[loader]) for loader, units in self._units.items()}
        loader = last if last in self._units else max(by_load, key=lambda one: by_load[one])
        share = math.ceil(sum(map(self._cells, self._units.values())) / (_ROUNDS * max(1, nodes)))
        wanted = max(LEAST * threads, min(share, MOST * threads))
        taken: list[Unit] = []
        waiting = self._units[loader]
        while waiting and self._cells(taken) < wanted:
            taken.append(waiting.pop(0))
        if not waiting:
            del self._units[loader]
        return Piece(tuple(taken))

    def done(self, piece: Piece) -> None:
        """Record that a node has returned a piece."""
        self._running[piece.loader] -= 1

    def back(self, piece: Piece) -> None:
        """Take back the cells of a node that did not begin with them."""
        self.done(piece)
        self._again.append(piece)

    def ended(self, piece: Piece, why: str) -> Planned | None:
        """Take back the cells of a node that ended; the cell that is given up, if it is known to end nodes."""
        self.done(piece)
        again = replace(piece, ends=(*piece.ends, why))
        if len(again.ends) < _DEATHS:
            self._again.append(again)
        elif len(again.cells) == 1:
            return again.cells[0]
        else:
            # each half has ended one node, as far as is known: a second time it is split again
            self._again += [replace(half, ends=(why,)) for half in again.halves()]
        return None

    @staticmethod
    def _cells(units: Sequence[Unit]) -> int:
        return sum(map(len, units))


def units_of(cells: Iterable[Planned]) -> list[Unit]:
    """The cells by what stays together."""
    found: dict[tuple[str, ...], list[Planned]] = {}
    for cell in cells:
        found.setdefault((cell.loader_spec, cell.id.place, cell.id.scenario), []).append(cell)
    return [tuple(unit) for unit in found.values()]
