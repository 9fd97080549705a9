"""The heat map of the HTML page as data: scenarios by family as rows, creators in release order as columns. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.core.run import Cell, Run
from harness.core.verdict import Verdict
from harness.report import summary
from harness.report.labels import creator_labels, loader_labels

LEVELS = 10
"""Shades 0 to 9 by error ÷ allowance: up to 5 within the allowance, from 6 beyond it."""
_WITHIN = (1e-3, 1e-2, 1e-1, 10**-0.5, 1.0)
_BEYOND = (10.0, 1e3, 1e5)
_ROOMY = 3
"""With at most this many creators, a square has room for a figure beside its letter."""

BLOCK = 25
"""Rows of one table. A larger family is split into several."""


@dataclass(frozen=True)
class Column:
    """A creator."""

    name: str
    label: str
    """Its PEFT release, with the name if that is not unique."""
    changed: int = 0
    """How many scenarios have a checkpoint that differs from the previous creator's."""


@dataclass(frozen=True)
class Square:
    """A cell on the map."""

    index: int
    """Of the cell in the run."""
    verdict: Verdict
    level: int
    hatched: bool = False
    """A known break, or unstable."""
    changed: bool = False
    """The checkpoint differs from the previous creator's."""
    size: str = ""


@dataclass(frozen=True)
class Row:
    """A scenario, with None for a creator that was not checked."""

    scenario: str
    squares: tuple[Square | None, ...]


@dataclass(frozen=True)
class Group:
    """A family of methods."""

    family: str
    methods: tuple[str, ...]
    rows: tuple[Row, ...]
    cells: int
    bad: int

    @property
    def blocks(self) -> tuple[tuple[Row, ...], ...]:
        """The rows in portions that a browser can skip while they are out of sight."""
        return tuple(self.rows[start : start + BLOCK] for start in range(0, len(self.rows), BLOCK))


@dataclass(frozen=True)
class Panel:
    """One loader on one device."""

    loader: str
    device: str
    label: str
    groups: tuple[Group, ...]
    cells: int
    bad: int


@dataclass(frozen=True)
class HeatMap:
    """The whole map."""

    columns: tuple[Column, ...]
    panels: tuple[Panel, ...]

    @property
    def roomy(self) -> bool:
        """True if squares show figures and families are side by side."""
        return len(self.columns) <= _ROOMY


def build(run: Run) -> HeatMap:
    """The heat map of a run."""
    creators, loaders = creator_labels(run), loader_labels(run)
    digests = {(cell.scenario, cell.creator): cell.fixture for cell in run.cells if cell.fixture}
    changed = format_changes(digests, list(creators))
    columns = tuple(Column(name, label, sum(key[1] == name for key in changed)) for name, label in creators.items())
    devices = list(dict.fromkeys(cell.place for cell in run.cells))
    found: dict[tuple[str, str], list[tuple[int, Cell]]] = {}
    for index, cell in enumerate(run.cells):
        found.setdefault((cell.loader, cell.place), []).append((index, cell))
    order = [(loader, device) for loader in loaders for device in devices if (loader, device) in found]
    maker = _Maker(columns, changed)
    return HeatMap(columns, tuple(maker.panel(key, loaders[key[0]], len(devices) > 1, found[key]) for key in order))


def format_changes(digests: Mapping[tuple[str, str], str], creators: Sequence[str]) -> frozenset[tuple[str, str]]:
    """The (scenario, creator) pairs whose checkpoint differs from that of the last creator that has one."""
    changed, last = set(), dict[str, str]()
    scenarios = list(dict.fromkeys(scenario for scenario, _ in digests))
    for creator in creators:
        for scenario in scenarios:
            digest = digests.get((scenario, creator))
            if digest and last.setdefault(scenario, digest) != digest:
                changed.add((scenario, creator))
                last[scenario] = digest
    return frozenset(changed)


def level(cell: Cell) -> int:
    """The shade of a cell: log10 of error ÷ allowance in steps. A deviation is never paler than a clean cell."""
    if cell.worst_ratio is None:
        return LEVELS - 1 if cell.verdict.is_deviation else 0
    found = ratio_level(cell.worst_ratio)
    if cell.verdict.is_deviation:
        return max(found, len(_WITHIN) + 1)
    return found


def ratio_level(ratio: float) -> int:
    """0 for no error at all, up to 5 within the allowance, up to 9 beyond it."""
    if ratio == 0:
        return 0
    if math.isnan(ratio):
        return LEVELS - 1
    steps = (*_WITHIN, *_BEYOND)
    return 1 + next((place for place, limit in enumerate(steps) if ratio <= limit), len(steps))


@dataclass(frozen=True)
class _Maker:
    columns: tuple[Column, ...]
    changed: frozenset[tuple[str, str]]

    def panel(self, key: tuple[str, str], label: str, several: bool, cells: Sequence[tuple[int, Cell]]) -> Panel:
        loader, device = key
        families: dict[str, list[tuple[int, Cell]]] = {}
        for index, cell in cells:
            families.setdefault(cell.family or cell.method, []).append((index, cell))
        groups = tuple(self._group(family, families[family]) for family in sorted(families))
        label = label if label == loader else f"{loader} {label}"
        bad = sum(group.bad for group in groups)
        return Panel(loader, device, f"{label} · {device}" if several else label, groups, len(cells), bad)

    def _group(self, family: str, cells: Sequence[tuple[int, Cell]]) -> Group:
        scenarios: dict[str, dict[str, tuple[int, Cell]]] = {}
        for index, cell in cells:
            scenarios.setdefault(cell.scenario, {})[cell.creator] = (index, cell)
        rows = tuple(self._row(scenario, scenarios[scenario]) for scenario in sorted(scenarios))
        methods = tuple(dict.fromkeys(_methods(cell for _, cell in cells)))
        return Group(family, methods, rows, len(cells), sum(cell.deviates for _, cell in cells))

    def _row(self, scenario: str, by_creator: Mapping[str, tuple[int, Cell]]) -> Row:
        found = (by_creator.get(column.name) for column in self.columns)
        return Row(scenario, tuple(self._square(*each) if each else None for each in found))

    def _square(self, index: int, cell: Cell) -> Square:
        return Square(
            index=index,
            verdict=cell.verdict,
            level=level(cell),
            hatched=cell.expected or cell.verdict is Verdict.UNSTABLE,
            changed=(cell.scenario, cell.creator) in self.changed,
            size=summary.size(cell),
        )


def _methods(cells: Iterable[Cell]) -> Iterable[str]:
    return (cell.method for cell in cells if cell.method)
