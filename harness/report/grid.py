"""Creators × loaders as data: a box per pair, and what old loaders did with newer checkpoints, by cause. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.core.run import Cell, Run
from harness.core.text import clip, many
from harness.core.verdict import Reading, Verdict, worst
from harness.core.versions import version_of
from harness.judge import load_behaviour
from harness.judge.causes import Calendar, Releases, normalised
from harness.report import labels, summary

_READINGS: tuple[Reading, ...] = ("refused", "dropped", "ignored", "read")
"""What an older loader does with a newer checkpoint, in the order in which the report shows it."""
_TITLE = 160
LEGEND = (
    "letter of the worst verdict, then either the cells to look at out of all judged cells, or the cells that agree; "
    "in brackets: known breaks"
)


@dataclass(frozen=True)
class Box:
    """One creator under one loader."""

    creator: str
    loader: str
    verdict: Verdict | None
    """The worst of its cells without the known breaks; None if it has no cell."""
    concerning: int
    """Unexpected breaks, and cells that could not be judged."""
    agreeing: int
    expected: int
    unsupported: int
    forward: bool
    """The creator's PEFT is newer than the loader's."""

    @property
    def text(self) -> str:
        """`=85`, `S3/85 (2)`, `·85`: see `LEGEND`."""
        if self.verdict is None:
            return ""
        judged = self.concerning + self.agreeing + self.expected
        agreeing = self.unsupported if self.verdict is Verdict.UNSUPPORTED else self.agreeing
        count = f"{self.concerning}/{judged}" if self.concerning else f"{agreeing or ''}"
        return f"{self.verdict.letter}{count}" + (f" ({self.expected})" if self.expected else "")

    @property
    def counts(self) -> str:
        """The same in words."""
        parts = (
            (self.concerning, "to look at"), (self.agreeing, "agreeing"), (self.expected, "known"),
            (self.unsupported, "unsupported"),
        )  # fmt: skip
        return ", ".join(f"{count} {word}" for count, word in parts if count)


@dataclass(frozen=True)
class Row:
    """A creator under all loaders."""

    creator: str
    label: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Outcome:
    """One way in which older loaders fail to read newer checkpoints, with all cells that show it."""

    reading: str
    title: str
    cells: tuple[Cell, ...]
    creators: Releases
    loaders: Releases

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the scenarios, sorted."""
        return tuple(sorted({cell.scenario for cell in self.cells}))

    @property
    def verdicts(self) -> str:
        """The verdicts: `12 unsupported, 3 silent-wrong`."""
        return summary.by_verdict(self.cells)

    @property
    def reach(self) -> str:
        """`creators 0.14.0–0.21.2, loader 0.6.1`."""
        sides = (("creator", self.creators), ("loader", self.loaders))
        return ", ".join(f"{word}{'s' * (len(side.bad) > 1)} {side.ranges}" for word, side in sides)


@dataclass(frozen=True)
class Grid:
    """The grid, and what older loaders did with newer checkpoints."""

    id: ClassVar[str] = "grid"
    title: ClassVar[str] = "Creators under loaders"
    note: ClassVar[str] = LEGEND
    loaders: tuple[tuple[str, str], ...]
    """Name and label of each, in release order."""
    rows: tuple[Row, ...]
    forward: str
    """What older loaders did with newer checkpoints, in one line; empty if there were none."""
    outcomes: tuple[Outcome, ...]


def build(run: Run) -> Grid | None:
    """The grid of a run with several creators and several loaders; None for any other run."""
    creators, loaders = labels.creator_labels(run), labels.loader_labels(run)
    if len(creators) < 2 or len(loaders) < 2:
        return None
    newer = _newer(run)
    pairs: dict[tuple[str, str], list[Cell]] = {}
    for cell in run.cells:
        pairs.setdefault((cell.creator, cell.loader), []).append(cell)
    rows = tuple(
        Row(name, label, tuple(_box(name, loader, pairs.get((name, loader), []), newer) for loader in loaders))
        for name, label in creators.items()
    )
    forward = [cell for cell in run.cells if newer(cell.creator, cell.loader)]
    return Grid(tuple(loaders.items()), rows, _summary(forward), outcomes(run, forward))


def outcomes(run: Run, cells: Iterable[Cell]) -> tuple[Outcome, ...]:
    """What was refused, dropped and ignored, grouped by cause; in each the widest first."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if cell.reading in _SIGNATURES:
            groups.setdefault((cell.reading, *_SIGNATURES[cell.reading](cell)), []).append(cell)
    calendar, order = Calendar(run), list[str](_READINGS)
    found = [
        Outcome(key[0], _title(key[0], group), tuple(group), calendar.creators(group), calendar.loaders(group))
        for key, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda each: (order.index(each.reading), -len(each.cells), each.title)))


def _newer(run: Run) -> Callable[[str, str], bool]:
    """Whether a creator's PEFT is newer than a loader's; False if a version is unknown."""
    versions = {one.name: version_of(one.versions.get("peft", "")) for one in run.environments}

    def newer(creator: str, loader: str) -> bool:
        made, read = versions.get(creator), versions.get(loader)
        return made is not None and read is not None and made > read

    return newer


def _box(creator: str, loader: str, cells: Sequence[Cell], newer: Callable[[str, str], bool]) -> Box:
    judged = [cell for cell in cells if cell.verdict is not Verdict.UNSUPPORTED]
    open_ = [cell for cell in judged if not cell.expected]
    concerning = sum(cell.verdict.is_deviation or cell.verdict.cannot_tell for cell in open_)
    agreeing = sum(cell.verdict.is_clean or cell.verdict is Verdict.REFUSED for cell in open_)
    return Box(
        creator=creator,
        loader=loader,
        verdict=worst(cell.verdict for cell in open_ or judged or cells) if cells else None,
        concerning=concerning,
        agreeing=agreeing,
        expected=len(judged) - len(open_),
        unsupported=len(cells) - len(judged),
        forward=newer(creator, loader),
    )


def _summary(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    counts = Counter[str](cell.reading for cell in cells)
    said = [f"{counts[word]:,} {word}" for word in reversed(_READINGS) if counts[word]]
    said += [f"{counts['']:,} not tried or not judged"] if counts[""] else []
    return f"{many(len(cells), 'checkpoint')} loaded by an older PEFT than the one that saved them: {', '.join(said)}"


def _refusal(cell: Cell) -> tuple[str, ...]:
    assert cell.error is not None
    return (cell.error.stage, cell.error.type, normalised(cell.error.message))


def _dropped(cell: Cell) -> tuple[str, ...]:
    return (cell.family, *_endings(cell.keys.lost if cell.keys else ()))


def _endings(keys: Iterable[str]) -> list[str]:
    """The last two parts of keys, without numbers: `lora_A.weight`, of however many layers."""
    return sorted({".".join(key.split(".")[-2:]) for key in map(normalised_key, keys)})


def normalised_key(key: str) -> str:
    """A checkpoint's key without its layer's number: `layers.*.q_proj.lora_A.weight`."""
    return ".".join("*" if part.isdigit() else part for part in key.split("."))


_SIGNATURES: dict[str, Callable[[Cell], tuple[str, ...]]] = {
    "refused": _refusal,
    "dropped": _dropped,
    "ignored": load_behaviour.ignored_keys,
}


def _title(kind: str, cells: Sequence[Cell]) -> str:
    if kind == "refused":
        said = {
            " ".join(f"{e.stage} · {e.type}: {e.message}".split()) for cell in cells if (e := cell.error) is not None
        }
        first = sorted(said)[0]
        return clip(first if len(said) == 1 else normalised(first), _TITLE)
    first_cell = cells[0]
    if kind == "dropped":
        lost = first_cell.keys.lost if first_cell.keys else ()
        return f"{first_cell.family} · {', '.join(_endings(lost))}"
    return f"config keys {', '.join(load_behaviour.ignored_keys(first_cell))}"
