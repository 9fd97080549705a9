"""How a change saves adapters, compared with the baseline, and what older releases make of that (pure).

A new entry of the config with its default is no difference: every release adds some. All else is: a key, a type, a
shape, a value, a file, an entry that is gone or says something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.core.comparison import Reader, Writes, WrittenChange
from harness.core.observation import Observed
from harness.core.run import Cell
from harness.judge import causes, change
from harness.store import saved_diff
from harness.store.saved_adapter import Written, is_version
from harness.store.saved_diff import KINDS, Change

_SHOWN = 4
"""Full keys that are named of one difference."""


def of(now: Observed) -> Writes | None:
    """What a replay saved when it created the scenario anew; None if that did not work."""
    shapes, dtypes, digests = (now.fact("fresh", fact) or {} for fact in ("keys", "dtypes", "digests"))
    if now.outcome("fresh") != "ok" or not shapes or shapes.keys() != digests.keys():
        return None
    return Writes(
        files=tuple(now.fact("fresh", "files") or ()),
        tensors={key: (dtypes[key], tuple(shape), digests[key]) for key, shape in shapes.items()},
        config=now.fact("fresh", "config") or {},
    )


def differences(before: Iterable[Cell], now: Iterable[Cell]) -> tuple[WrittenChange, ...]:
    """What the change's cells write differently from the baseline's, the same difference of several scenarios once."""
    old = {change.key_of(cell): cell.writes for cell in before}
    found: dict[str, Sequence[Change]] = {}
    for cell in now:
        was = old.get(change.key_of(cell))
        if was is not None and cell.writes is not None and was != cell.writes:
            found.setdefault(cell.scenario, _differences(was, cell.writes))
    return tuple(
        WrittenChange(
            kind=KINDS[each.kind],
            what=each.what,
            scenarios=each.scenarios,
            details=next(iter(each.details.values()))[:_SHOWN],
        )
        for each in saved_diff.shared(found)
    )


def _differences(before: Writes, now: Writes) -> list[Change]:
    found = [each for each in saved_diff.changes(_written(before), _written(now)) if each.differs]
    retyped = {key for each in found if each.kind == "dtype" for key in each.details}
    return [
        each
        for each in found
        if not (each.kind == "config" and each.what.startswith("+ "))
        # another type rounds the values: that is one difference
        if not (each.kind == "value" and set(each.details) <= retyped)
    ]


def _written(side: Writes) -> Written:
    return Written(
        scenario="",
        creator="",
        release="",
        files=dict.fromkeys(side.files, ""),
        shapes={key: shape for key, (_, shape, _) in side.tensors.items()},
        dtypes={key: dtype for key, (dtype, _, _) in side.tensors.items()},
        digests={key: digest for key, (_, _, digest) in side.tensors.items()},
        config={key: value for key, value in side.config.items() if not is_version(key)},
    )


def examples(changes: Iterable[WrittenChange], limit: int) -> list[str]:
    """Scenarios that show every difference, if the limit allows: those with most differences first, then others."""
    every = list(changes)
    left = list(every)
    chosen: list[str] = []
    while left and len(chosen) < limit:
        count: dict[str, int] = {}
        for each in left:
            for name in each.scenarios:
                count[name] = count.get(name, 0) + 1
        best = max(sorted(count), key=lambda name: count[name])
        chosen.append(best)
        left = [each for each in left if best not in each.scenarios]
    others = {name: None for each in every for name in each.scenarios if name not in chosen}
    return [*chosen, *others][:limit]


def readers(before: Iterable[Cell], now: Iterable[Cell], releases: Mapping[str, str]) -> tuple[Reader, ...]:
    """What each release makes of the adapters that the change wrote.

    Args:
        before: the same releases with the adapters that the baseline wrote.
        releases: loader → its words, in the order to show.
    """
    old = {(cell.scenario, cell.loader): cell for cell in before}
    order = list(releases)
    cells = sorted(now, key=lambda cell: (order.index(cell.loader), cell.scenario))
    return tuple(_reader(old.get((cell.scenario, cell.loader)), cell, releases[cell.loader]) for cell in cells)


def _reader(before: Cell | None, now: Cell, release: str) -> Reader:
    compared = change.compared(before, now, strict=False)
    worse = compared is not None and compared.change == "regressed"
    return Reader(
        scenario=now.scenario,
        release=release,
        before=before.verdict if before else None,
        now=now.verdict,
        worse=worse,
        why=((compared.why if compared else "") or causes.title(now)) if worse else now.reason,
    )
