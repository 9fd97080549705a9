"""Newer creators for scenarios that deviate under the baseline: there a change cannot make the first adapter redder.

Such a scenario is blind: what the change breaks hides behind what is broken already. So the newest creator's adapter is
checked as well, and one from the middle if that deviates too. A cell of the baseline is known from the cache, from an
earlier run, or when it finishes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from harness.core.run import Cell
from harness.core.text import listed, many
from harness.core.verdict import Verdict
from harness.runner.plan import Planned

CREATORS = 3
"""How many creators a scenario has at most."""


class NewerCreators:
    """Says which cells to check as well, given the baseline's cells one by one. Threads may share it.

    Args:
        creators: scenario → the creators that may be used, from the oldest release to the newest.
        cells_of: the cells of a scenario and a creator, under both sides.
    """

    def __init__(
        self, creators: Mapping[str, Sequence[str]], cells_of: Callable[[str, str], Sequence[Planned]]
    ) -> None:
        self._creators, self._cells_of = creators, cells_of
        self._seen: dict[str, dict[str, Cell]] = {}
        self._asked: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def after(self, cell: Cell) -> Sequence[Planned]:
        """The cells to check as well, now that this cell of the baseline is known."""
        with self._lock:
            seen = self._seen.setdefault(cell.scenario, {})
            asked = self._asked.setdefault(cell.scenario, [cell.creator])
            if cell.creator in seen or not hides(cell):
                seen[cell.creator] = cell
                return ()
            seen[cell.creator] = cell
            for creator in _order(self._creators.get(cell.scenario, ()), asked[0]):
                if creator not in asked and len(asked) < CREATORS and (cells := self._cells_of(cell.scenario, creator)):
                    asked.append(creator)
                    return cells
            return ()

    @property
    def words(self) -> str:
        """`+12 cells: 6 of 85 deviate on the baseline too, so a newer creator's adapter is checked as well`."""
        with self._lock:
            first = [seen[asked[0]] for name, asked in self._asked.items() if asked[0] in (seen := self._seen[name])]
            more = sum(len(asked) - 1 for asked in self._asked.values())
        hidden = sum(map(hides, first))
        deviate = f"{hidden:,} of {len(first):,} {'deviates' if hidden == 1 else 'deviate'} on the baseline too"
        return f"+{many(2 * more, 'cell')}: {deviate}, so a newer creator's adapter is checked as well" if more else ""

    def blind(self) -> dict[str, str]:
        """Scenarios that deviate under the baseline with every adapter that was tried → how."""
        every = {name: list(seen.values()) for name, seen in self._seen.items()}
        return {name: _how(cells) for name, cells in sorted(every.items()) if cells and all(map(hides, cells))}


def hides(cell: Cell) -> bool:
    """True if a cell of the baseline hides what a change breaks."""
    return cell.verdict.is_deviation or cell.verdict is Verdict.NOT_COMPARABLE


def _order(creators: Sequence[str], first: str) -> list[str]:
    """The creators to try: the newest, then the one in the middle between it and the first."""
    newer = list(creators[creators.index(first) + 1 :] if first in creators else creators)
    between = newer[:-1]
    return [*newer[-1:], *between[len(between) // 2 :], *between[: len(between) // 2]]


def _how(cells: Sequence[Cell]) -> str:
    """`silent-wrong with the adapters of v061, v0140 and v0212`."""
    verdicts: dict[str, list[str]] = {}
    for cell in cells:
        verdicts.setdefault(str(cell.verdict), []).append(cell.creator)
    return "; ".join(
        f"{verdict} with the {'adapter' if len(names) == 1 else 'adapters'} of {listed(names)}"
        for verdict, names in verdicts.items()
    )
