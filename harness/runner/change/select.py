"""The cells of a check of one change: the scope, narrowed by fixtures and by the user's options, then reduced."""

from __future__ import annotations

import contextlib
import fnmatch
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from harness.core import keyword
from harness.core.comparison import ChangedCode
from harness.core.errors import HarnessError, UsageError
from harness.core.matrix import Declared
from harness.core.run import Run
from harness.core.text import many
from harness.core.versions import version_of
from harness.envs.environments import Environments
from harness.judge import change as judge
from harness.runner import plan, selected
from harness.runner.change import cover, exact, scope
from harness.runner.change.code_diff import Difference
from harness.runner.change.exact import Baseline, Pair
from harness.runner.change.scope import Scope
from harness.runner.change.sides import Sides
from harness.runner.plan import Planned
from harness.runner.request import CheckRequest
from harness.store.manifest import BadFixture

_ANY_LOADER = re.compile(r":[^:\[]*\[")
NAMED = "the cells that --cell names"


@dataclass(frozen=True)
class Cells:
    """The cells that are checked, under both sides.

    Attributes:
        request: with the creators and loaders of these cells.
        left_out: scenarios that are not checked, and why.
        words: what is checked.
        features: scenario → what it covers, if the scenarios were chosen by that.
        creators: scenario → all that have its fixture, from the oldest release to the newest, where the user leaves
            the choice open.
        cells_of: the cells of a scenario and one of these creators.
        code: what changed in code, if they were selected by what they execute.
    """

    request: CheckRequest
    cells: tuple[Planned, ...]
    left_out: Mapping[str, str]
    words: str
    features: Mapping[str, Set[str]]
    creators: Mapping[str, Sequence[str]]
    cells_of: Callable[[str, str], list[Planned]]
    code: ChangedCode | None = None


def asked(request: CheckRequest) -> CheckRequest:
    """The request for either side: `--cell` selects a scenario and a creator, whatever state the change is in."""
    return replace(request, cells=tuple(_ANY_LOADER.sub(":*[", cell, count=1) for cell in request.cells))


def refuse_unknown(request: CheckRequest, environments: Environments, sides: Sides) -> None:
    """Refuse a creator, `--cell` or `-k` that names nothing. Builds nothing.

    Raises:
        UsageError: one of them does.
    """
    if request.every_creator and request.creators:
        raise UsageError("--all and --creator", "one of them", "leave one out")
    selected.creators(request, environments)
    declared = request.selection.chosen(request.places.matrix())
    creators = request.creators or plan.creators_with_fixtures(request.places.store(), (), environments)
    every = replace(asked(request), creators=tuple(creators), every_creator=False, loaders=_loaders(sides))
    selected.cells(declared, every, environments)


def select(
    found: Scope, everything: Scope, declared: Sequence[Declared], request: CheckRequest, environments: Environments,
    sides: Sides, difference: Callable[[Sequence[Planned]], Difference] | None = None,
) -> Cells:  # fmt: skip
    """The cells of a scope, or those that execute what differs.

    Args:
        everything: the scope of every scenario, for cells that the user names, and for `-k` that selects none in scope.
        declared: the scenarios of both.
        difference: what runs differently, given all cells that may be checked; None to go by the scope alone.

    Raises:
        UsageError: no cell is selected.
    """
    among = _Among(declared, request, environments, sides)
    if request.cells:
        found = replace(everything, words=NAMED, rule="affected")
    elif difference is not None and (
        those := _executing(found, everything, among, Baseline(sides, request, environments), difference)
    ):
        return those
    cells, out = among.cells_of(found)
    if not cells and request.expression and found.rule == "affected":
        found = replace(everything, words=f"-k {request.expression!r} selects none of {found.words}", rule="sample")
        cells, out = among.cells_of(found)
    _refuse_none(cells, found)
    if found.rule == "cover" and among.asked:  # who names creators gets all of theirs
        found = replace(found, words=f"{many(len(found.scenarios), 'scenario')}: {found.words}", rule="affected")
    able = list({cell.declared.name: cell.declared for cell in cells}.values())
    if found.rule == "affected" and not request.cells and len(able) < len(found.scenarios):
        found = replace(found, words=f"{len(able):,} of {found.words}")
    found, features = scope.reduced(found, able, among.costs(cells))
    cells = plan.with_further(cell for cell in cells if cell.declared.name in found.scenarios)
    return among.chosen(cells, {**found.left_out, **out}, found.words, features, able)


def _executing(
    found: Scope, everything: Scope, among: _Among, baseline: Baseline,
    difference: Callable[[Sequence[Planned]], Difference],
) -> Cells | None:  # fmt: skip
    """The cells that execute what differs. Where it is not recorded what a cell executes, the scope decides.

    None if that is so for every cell, or if a cell can be affected without executing anything.
    """
    every, out = among.cells_of(everything)
    _refuse_none(every, everything)
    every = plan.with_further(every)
    if among.is_narrowed:
        every = baseline.without_new_further(every)
    changed = difference(every)
    executed = {} if changed.everything else baseline.executed(every, changed.files)
    if not executed:
        return None
    split = exact.split(map(_pair, every), executed, changed)
    hit = (*split.running, *split.importing)
    by_files = [pair for pair in split.unknown if pair[0] in found.scenarios]
    named = {cell.declared.name: cell.declared for cell in every}
    if among.asked:  # who names creators gets all of theirs
        kept, features, left_out = {*hit, *by_files}, dict[str, Set[str]](), dict[str, str]()
    else:
        running, importing, unknown = (
            [name for name, _ in some] for some in (split.running, split.importing, by_files)
        )
        chosen, features, left_out = scope.fewer(running, importing, unknown, named, found, among.costs(every))
        kept = {pair for pair in (*hit, *by_files) if pair[0] in chosen}
    by_files_too = kept != {*hit}
    to_import = changed.files if among.has_other_python else changed.defines
    kept |= exact.importing(to_import, executed, kept, among.costs(every))
    cells = [cell for cell in every if _pair(cell) in kept]
    if by_files_too:  # the first of a family may be left out, and with it the further probes
        cells = plan.with_further(cells)
    why = exact.why_untouched(changed)
    untouched = {name: why for name, _ in split.untouched}
    unaffected = {name: found.left_out.get(name, "") for name, _ in split.unknown}
    left_out = {name: why for name, why in {**everything.left_out, **untouched, **unaffected, **left_out}.items()
                if why and name not in {cell.declared.name for cell in cells}}  # fmt: skip
    code = exact.model(split, changed, len(by_files))
    words = exact.words(code, len({_pair(cell) for cell in cells}), found)
    able = [named[name] for name in dict.fromkeys(name for name, _ in kept)]
    return replace(among.chosen(cells, {**left_out, **out}, words, features, able), code=code)


def every_cell(
    everything: Scope, declared: Sequence[Declared], request: CheckRequest, environments: Environments, sides: Sides
) -> list[Planned]:
    """All cells that may be checked."""
    return _Among(declared, request, environments, sides).cells_of(everything)[0]


def _refuse_none(cells: Sequence[Planned], found: Scope) -> None:
    if not cells:
        raise UsageError(
            "no cell is selected", "a scenario that the change affects, with a fixture",
            f"loosen --creator, --cell, --family or --scenarios, or take --every-scenario ({found.words})",
        )  # fmt: skip


def named(request: CheckRequest, scenarios: Iterable[Declared]) -> list[Declared]:
    """The scenarios that `-k` and `--cell` select by their names."""
    selects, patterns = keyword.parse(request.expression), request.cells
    wanted = [plan.parsed(cell).scenario for cell in patterns]
    return [
        one for one in scenarios
        if selects((one.name, one.file.name, one.family, one.scenario.adapter.config))
        and (not patterns or any(fnmatch.fnmatchcase(one.name, name) for name in wanted))
    ]  # fmt: skip


def _loaders(sides: Sides) -> tuple[str, ...]:
    return (sides.change.spec, *(() if sides.run else (sides.baseline.spec,)))


class _Among:
    """Selects cells among the scenarios and creators of a request.

    Attributes:
        asked: the creators that the user names; empty for the reference.
        creators: all that may be used, from the oldest release to the newest.
    """

    def __init__(
        self, declared: Sequence[Declared], given: CheckRequest, environments: Environments, sides: Sides
    ) -> None:
        self._declared, self._environments, self._sides = declared, environments, sides
        self._given, self._request = given, asked(given)
        self._store = given.places.store()
        self.asked = self._asked()
        self.creators = self.asked or list(plan.creators_with_fixtures(self._store, ()))

    @property
    def has_other_python(self) -> bool:
        """True if the baseline has another Python than this process, which may refuse what this one parses."""
        return not f"{platform.python_version()}.".startswith(f"{self._sides.baseline.python}.")

    @property
    def is_narrowed(self) -> bool:
        """True if the user chooses creators, scenarios or cells."""
        return self._given.is_narrowed

    def _asked(self) -> list[str]:
        request, run = self._request, self._sides.run
        if request.creators:
            return list(request.creators)
        if request.every_creator:
            return list(plan.creators_with_fixtures(self._store, (), self._environments))
        named = [plan.parsed(cell).creator for cell in request.cells]
        if named and not any(set(name) & set("*?[") for name in named):
            return list(dict.fromkeys(named))
        return list(dict.fromkeys(cell.creator for cell in run.cells)) if run else []

    def cells_of(self, found: Scope) -> tuple[list[Planned], dict[str, str]]:
        """The cells of a scope that the options select, and scenarios without any."""
        chosen = list(found.scenarios)
        readable, unreadable = ({}, {}) if self.asked else self._having(chosen)
        pairs, out = scope.pair(chosen, readable | unreadable, self.asked)
        every = self._planned(pairs)
        if self._sides.run is None:
            return every, out
        kept, gone = _only_those_of(self._sides.run, every)
        return kept, out | gone

    def cells_by(self, scenario: str, creator: str) -> list[Planned]:
        """The cells of one scenario and creator that the options select."""
        every = self._planned({(scenario, creator)})
        return _only_those_of(self._sides.run, every)[0] if self._sides.run else every

    def chosen(
        self, cells: Sequence[Planned], left_out: Mapping[str, str], words: str, features: Mapping[str, Set[str]],
        able: Sequence[Declared],
    ) -> Cells:  # fmt: skip
        """The cells with all that a plan needs.

        Args:
            able: the scenarios that may get cells of newer creators.
        """
        used, names = {cell.id.creator for cell in cells}, self.selectable()
        request = replace(
            self._given, creators=tuple(name for name in self.creators if name in used), every_creator=False,
            loaders=_loaders(self._sides),
        )  # fmt: skip
        left_out = {name: why for name, why in left_out.items() if name in names}
        free = not (self.asked or self._given.cells)
        creators = self.creators_by_scenario([one.name for one in able]) if free else {}
        return Cells(request, tuple(cells), left_out, words, features, creators, self.cells_by)

    def _planned(self, pairs: Set[Pair]) -> list[Planned]:
        """The cells of these scenarios and creators that the options select, of both sides."""
        names, used = {name for name, _ in pairs}, {creator for _, creator in pairs}
        request = replace(
            self._request, creators=tuple(name for name in self.creators if name in used), every_creator=False,
            loaders=_loaders(self._sides),
        )  # fmt: skip
        scenarios = [one for one in self._declared if one.name in names]
        every = plan.plan(scenarios, replace(request, cells=(), expression=""), self._environments)
        pairs = pairs & {_pair(cell) for cell in every if plan.is_selected(cell, request)}
        return [cell for cell in every if _pair(cell) in pairs]

    def creators_by_scenario(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Scenario → the creators that have its fixture and are no newer than the baseline."""
        newest = version_of(self._sides.baseline.versions.get("peft", ""))
        known = {
            creator: scenarios for creator, scenarios in self._having(names)[0].items()
            if newest is None or plan.release(self._store, creator) <= newest
        }  # fmt: skip
        return {name: [creator for creator in known if name in known[creator]] for name in names}

    def selectable(self) -> set[str]:
        """The scenarios that `-k` and `--cell` select by their names. Of the others, nothing need be said."""
        return {one.name for one in named(self._request, self._declared)}

    def _having(self, chosen: Sequence[str]) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
        """Creator → scenarios that it has fixtures of; and creators whose file is not readable, with all.

        The latter are chosen only for what nobody else has, or if they are the reference; their cells report the file.
        """
        having: dict[str, frozenset[str]] = {}
        unreadable: dict[str, frozenset[str]] = {}
        for creator in self.creators:
            try:
                having[creator] = frozenset(self._store.scenarios(creator))
            except BadFixture:
                unreadable[creator] = frozenset(chosen)
        return having, unreadable

    def costs(self, cells: Iterable[Planned]) -> dict[str, float]:
        """Scenario → what its cell costs, by the size of its golden."""
        return {cell.declared.name: cover.cost(cell.declared, self._golden_bytes(cell)) for cell in cells}

    def _golden_bytes(self, cell: Planned) -> int:
        with contextlib.suppress(HarnessError):
            manifest = self._store.manifest(cell.id.creator, cell.id.scenario)
            return sum(file.size for golden in manifest.goldens.values() for file in golden.values())
        return 0


def _pair(cell: Planned) -> Pair:
    return cell.id.scenario, cell.id.creator


def _only_those_of(baseline: Run, cells: Sequence[Planned]) -> tuple[list[Planned], dict[str, str]]:
    """The cells that an earlier run has too, and the scenarios that it does not have."""
    before = {judge.key_of(cell) for cell in baseline.cells}
    kept = [cell for cell in cells if (cell.id.scenario, cell.id.creator, cell.id.place) in before]
    gone = {cell.id.scenario for cell in cells} - {cell.id.scenario for cell in kept}
    return kept, dict.fromkeys(sorted(gone), "the baseline's run has no cell of it")
