"""Selects the cells of a change by the code that they execute under the baseline.

A cell that executes nothing of what a change changed observes under it what it observed before. So it need not be
replayed. What a cell executes is in the memory of observations (`harness.runner.executed`). Without it, the changed
files decide (`harness.runner.change.touched`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.comparison import ChangedCode
from harness.core.matrix import CellId
from harness.core.text import many
from harness.envs.environments import Environments
from harness.runner import remembered
from harness.runner.change import files as changed_files
from harness.runner.change.code_diff import Difference
from harness.runner.change.files import Changed
from harness.runner.change.scope import Scope
from harness.runner.change.sides import Contents, Sides
from harness.runner.executed import Executed
from harness.runner.plan import Planned
from harness.runner.request import CheckRequest

Pair = tuple[str, str]
"""A scenario and a creator."""


class Baseline:
    """What the memory has of the baseline's cells."""

    def __init__(self, sides: Sides, request: CheckRequest, environments: Environments) -> None:
        self._sides, self._request, self._environments = sides, request, environments
        self._besides: list[bytes] | None = None

    def known(self, cells: Iterable[Planned]) -> set[str]:
        """The ids of the baseline's cells that earlier runs have computed."""
        if self._request.fresh or self._request.each:
            return set()
        return remembered.known(
            self._cells(cells), self._environments, self._request.places.store(), self._request.worker_handler
        )

    def without_new_further(self, cells: Sequence[Planned]) -> list[Planned]:
        """The cells, without the further probes where the baseline is remembered without them only.

        For who selects cells: the first of a family is then another one than before, and would be computed once more.
        """
        asked = [cell for cell in self._cells(cells) if cell.further]
        there = self.known(asked)
        plain = [replace(cell, further=False) for cell in asked if str(cell.id) not in there]
        turned = self.known(plain)
        pairs = {(cell.id.scenario, cell.id.creator) for cell in plain if str(cell.id) in turned}
        return [replace(c, further=c.further and (c.id.scenario, c.id.creator) not in pairs) for c in cells]

    def executed(self, cells: Iterable[Planned], files: Collection[str] | None = None) -> dict[Pair, Executed]:
        """What the baseline executed of each adapter, where that is known.

        Args:
            cells: of either side.
            files: only what is in these files.
        """
        found = {str(cell.id): cell.id for cell in self._cells(cells)}
        traces = remembered.executed_of(
            self._cells(cells), self._environments, self._request.places.store(), self._request.worker_handler,
            files=files,
        )  # fmt: skip

        return {(found[cell].scenario, found[cell].creator): executed for cell, executed in traces.items()}

    def mentions(self, cells: Sequence[Planned], package: Collection[str], name: str) -> bool:
        """True if a name occurs in a file besides the package that one of the cells imports.

        Args:
            package: the names that the package installs.
        """
        if self._besides is None:
            self._besides = self._texts_besides(cells, package)
        word = re.compile(rb"\b%s\b" % re.escape(name.encode()))
        return any(name.encode() in text and word.search(text) for text in self._besides)

    def _texts_besides(self, cells: Sequence[Planned], package: Collection[str]) -> list[bytes]:
        imported = set[str]().union(*(one.imported for one in self.executed(cells).values()))
        built = self._environments.built(self._sides.baseline)
        sites = list(built.python.parent.parent.glob("lib/python*/site-packages")) if built else []
        names = [name for name in sorted(imported) if name.partition("/")[0] not in package]
        own = Path(remembered.__file__).parent.parent / "worker"
        return [_content(file) for file in (*(site / name for name in names for site in sites), *own.rglob("*.py"))]

    def _cells(self, cells: Iterable[Planned]) -> list[Planned]:
        """The baseline's cells of these adapters."""
        side = self._sides.baseline
        found: dict[CellId, Planned] = {}
        for cell in cells:
            one = replace(cell, id=replace(cell.id, loader=side.name), loader_spec=side.spec)
            found[one.id] = one
        return list(found.values())


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def names(files: Changed | None, both: Contents, request: CheckRequest) -> tuple[str, ...] | None:
    """The changed files, if they are all that differs between both sides; None where the code does not say enough.

    That is so if further files differ that are no part of the change, if a file is not installed, and for all that is
    to be computed anew.
    """
    if files is None or both.now is None or both.before is None or request.every_creator:
        return None
    if request.fresh or request.each:
        return None
    other = {*changed_files.of_other_bytes(both.before, both.now)}
    differing = changed_files.differing(both.before, both.now)
    return differing if {*differing} <= {*files.names} <= other else None


def nothing(both: Contents, known: int) -> ChangedCode | None:
    """What is said of a change in comments and docstrings; None if nothing is known of the baseline."""
    assert both.before is not None
    assert both.now is not None
    files = len(changed_files.of_other_bytes(both.before, both.now))
    return ChangedCode(remembered=known, text_only=files) if known and files else None


def difference(names: Sequence[str], both: Contents, baseline: Baseline, cells: Sequence[Planned]) -> Difference:
    """What runs differently in these files.

    Args:
        cells: all that may be checked.
    """
    assert both.before is not None
    assert both.now is not None
    others = functools.partial(baseline.mentions, cells, both.now.tops)
    return changed_files.difference(names, both.before, both.now, others)


@dataclass(frozen=True)
class Split:
    """The adapters of a check by what they have to do with a change.

    Attributes:
        running: those that run a function which changed.
        importing: those that only import a file which changed elsewhere.
        untouched: those that do neither.
        unknown: those without a record of what they execute.
    """

    running: tuple[Pair, ...]
    importing: tuple[Pair, ...]
    untouched: tuple[Pair, ...]
    unknown: tuple[Pair, ...]


def split(pairs: Iterable[Pair], executed: Mapping[Pair, Executed], difference: Difference) -> Split:
    """Sort adapters by what they execute."""
    found: dict[str, list[Pair]] = {"runs": [], "imports": [], "": [], "unknown": []}
    for pair in dict.fromkeys(pairs):
        found[difference.met_by(executed[pair]) if pair in executed else "unknown"].append(pair)
    return Split(*(tuple(some) for some in found.values()))


def importing(
    files: Iterable[str], executed: Mapping[Pair, Executed], kept: Collection[Pair], cost: Mapping[str, float]
) -> set[Pair]:
    """Adapters to check as well, so that one imports each of these files: it may not be importable.

    Args:
        kept: those that are checked anyway.
        cost: scenario → what it costs to check.
    """
    added: set[Pair] = set()
    for file in sorted(files):
        able = [pair for pair, one in executed.items() if file in one.imported]
        if able and not {*kept, *added}.intersection(able):
            added.add(min(able, key=lambda pair: (cost.get(pair[0], 0.0), pair)))
    return added


def why_untouched(difference: Difference) -> str:
    """Why an adapter that executes nothing of a difference is left out."""
    count = len(difference.functions)
    if difference.modules or not count:
        return "it executes nothing that changed"
    return f"it does not execute {difference.functions[0]}" if count == 1 else (
        f"it executes none of the {count:,} changed functions"
    )  # fmt: skip


def model(split: Split, difference: Difference, by_files: int) -> ChangedCode:
    """What the report says of it.

    Args:
        by_files: how many adapters the changed files select: it is not recorded what they execute.
    """
    elsewhere = (f"{what} ({file})" for file, what in difference.modules.items())
    return ChangedCode(
        functions=tuple(map(str, difference.functions)), elsewhere=tuple(elsewhere), executing=len(split.running),
        importing=len(split.importing), untouched=len(split.untouched), unknown=by_files,
    )  # fmt: skip


def words(code: ChangedCode, chosen: int, files: Scope) -> str:
    """Which adapters are checked, and why these.

    Args:
        chosen: how many.
        files: the scope by the changed files.
    """
    several = "a changed function" if len(code.functions) > 1 else "the changed function"
    parts = (
        [f"{many(code.executing, 'adapter')} {_verb(code.executing, 'execute')} {several}"] if code.functions else []
    )
    if code.importing:
        what = "a file that changed outside of functions"
        parts.append(f"{many(code.importing, 'adapter')} {_verb(code.importing, 'import')} {what}")
    if code.unknown:
        parts.append(f"of {code.unknown:,} it is not recorded what they execute, and {files.words}")
    if not code.executing + code.importing + code.unknown and chosen:
        parts.append(f"{many(chosen, 'adapter')} {_verb(chosen, 'show')} that it can be imported")
    if chosen < code.executing + code.importing + code.unknown:
        parts.append(f"{chosen:,} of these were chosen")
    return "; ".join(parts)


def _verb(count: int, verb: str) -> str:
    return f"{verb}s" if count == 1 else verb
