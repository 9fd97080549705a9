"""Compares what the known breaks say of an adapter's own files with the cells that they cover.

    python -m benchmarks.known_breaks                      every stored fixture under every declared environment
    python -m benchmarks.known_breaks --run report.json    what a run found, cell by cell

A break's rule (`adapter` in its file) says which adapters it is about. Its conditions say which cells of this
repository deviate. Both must select the same stored fixtures: a rule that selects more cries wolf, and one that selects
less is silent. A cell may have only one break, so a rule may select a cell that another break covers.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.core import data, matrix, versions
from harness.core.errors import HarnessError
from harness.core.run import Run
from harness.judge import breaks, expected
from harness.judge.adapter_rule import AdapterRule
from harness.judge.adapter_uses import USES
from harness.judge.applies import applying
from harness.judge.breaks import Break, Condition
from harness.own import dating, written_by
from harness.runner.request import Places
from harness.store.adapter import Adapter
from harness.store.adapter_of_fixture import adapter_of


@dataclass(frozen=True)
class Fixture:
    """One stored adapter, with what its scenario does and what wrote it."""

    scenario: str
    creator: str
    adapter: Adapter
    resolved: Mapping[str, Any]
    versions: Mapping[str, str]


Creators = Callable[[Fixture], Sequence[Mapping[str, str]]]


@dataclass(frozen=True)
class Cells:
    """The loaders under which a break covers one fixture, and those under which its rule says that it applies."""

    known: str
    fixture: Fixture
    covered: frozenset[str]
    ruled: frozenset[str]
    hidden: str


class Stored:
    """All stored fixtures, and the declared environments that can load them."""

    def __init__(self, places: Places | None = None) -> None:
        places = places or Places()
        store = places.store()
        self.declared = {one.name: one for one in places.matrix().scenarios()}
        self.fixtures = [
            Fixture(name, creator, adapter_of(store, manifest), manifest.resolved, manifest.versions)
            for creator in store.creators()
            for name in store.scenarios(creator)
            for manifest in [store.manifest(creator, name)]
        ]
        self.loaders: dict[str, Mapping[str, str]] = {}
        for name in (environments := places.environments()).names():
            try:
                self.loaders[name] = environments.locked_versions(name)
            except HarnessError:
                continue
        self.breaks = breaks.load(places.matrices_folder)
        self._supported: dict[str, frozenset[str]] = {}

    def supported(self, scenario: str) -> frozenset[str]:
        """The environments that have the feature of a scenario. Those of TRL load only what TRL trained."""
        if scenario not in self._supported:
            one = self.declared[scenario]
            loaders = {name: has for name, has in self.loaders.items() if one.scenario.sft or "trl" not in has}
            able = (name for name, has in loaders.items() if not matrix.unsupported(one, has))
            self._supported[scenario] = frozenset(able)
        return self._supported[scenario]

    def cells(self, known: Sequence[Break] | None = None) -> Iterator[Cells]:
        """Each break with each fixture that it covers, or that its rule selects."""
        for one in self.breaks if known is None else known:
            on_cpu = [condition for condition in one.condition if "cpu" in (condition.devices or ["cpu"])]
            of = [(condition, one.rule(condition), self._loading(condition)) for condition in on_cpu]
            admitted = {id(condition): self._creators(condition) for condition, _, _ in of}
            for fixture in self.fixtures:
                mine = [part for part in of if fixture.creator in admitted[id(part[0])]]
                if mine and (cells := self._of(one, fixture, mine)):
                    yield cells

    def _of(
        self, known: Break, fixture: Fixture, conditions: Sequence[tuple[Condition, AdapterRule | None, frozenset[str]]]
    ) -> Cells | None:
        covered: set[str] = set()
        ruled: set[str] = set()
        hidden = ""
        for condition, rule, loaders in conditions:
            if any(fnmatchcase(fixture.scenario, glob) for glob in condition.scenarios):
                covered |= loaders
            if rule and does(rule, fixture.resolved) and rule.about(fixture.adapter) is not False:
                ruled |= loaders
                hidden = hidden or _hidden(rule, fixture)
        able = self.supported(fixture.scenario)
        if not (covered | ruled) & able:
            return None
        return Cells(known.id, fixture, frozenset(covered & able), frozenset(ruled & able), hidden)

    def _creators(self, condition: Condition) -> frozenset[str]:
        has = {fixture.creator: fixture.versions for fixture in self.fixtures}
        return frozenset(name for name, found in has.items() if _admits(condition.creators, name, found))

    def _loading(self, condition: Condition) -> frozenset[str]:
        return frozenset(name for name, has in self.loaders.items() if _admits(condition.loaders, name, has))


def does(rule: AdapterRule, resolved: Mapping[str, Any]) -> bool:
    """True if a scenario does with its adapter what a rule says that the user must do."""
    return all(USES[use].done(resolved) for use in rule.only_if)


def _hidden(rule: AdapterRule, fixture: Fixture) -> str:
    name = f"{fixture.scenario}@{fixture.creator}"
    return next((reason for glob, reason in rule.hidden.items() if fnmatchcase(name, glob)), "")


def _admits(rule: str | list[str], name: str, has: Mapping[str, str]) -> bool:
    if isinstance(rule, list):
        return any(fnmatchcase(name, glob) for glob in rule)
    return versions.parse(rule).holds(has)


@dataclass(frozen=True)
class Disagreement:
    """Fixtures of one scenario that a break covers without its rule, or the other way round."""

    known: str
    scenario: str
    silent: bool
    creators: tuple[str, ...]
    loaders: tuple[str, ...]

    def __str__(self) -> str:
        what = "covered, but the rule does not select it" if self.silent else "selected by the rule, but not covered"
        creators, loaders = ", ".join(self.creators), ", ".join(self.loaders)
        return f"{self.known}: {self.scenario}: {what}\n    creators {creators}\n    loaders {loaders}"


def disagreements(cells: Iterable[Cells]) -> list[Disagreement]:
    """Where rules and conditions select other cells."""
    there = list(cells)
    deviates: dict[tuple[str, str], set[str]] = {}
    for one in there:
        deviates.setdefault((one.fixture.creator, one.fixture.scenario), set()).update(one.covered)
    found: dict[tuple[str, str, bool], tuple[set[str], set[str]]] = {}
    for one in there:
        elsewhere = deviates[one.fixture.creator, one.fixture.scenario]
        wrong = {True: one.covered - one.ruled, False: frozenset() if one.hidden else one.ruled - elsewhere}
        for silent, loaders in wrong.items():
            if loaders:
                creators, all_loaders = found.setdefault((one.known, one.fixture.scenario, silent), (set(), set()))
                creators.add(one.fixture.creator)
                all_loaders.update(loaders)
    return [
        Disagreement(*key, tuple(sorted(creators)), tuple(sorted(loaders)))
        for key, (creators, loaders) in sorted(found.items())
    ]


@dataclass(frozen=True)
class Agreement:
    """What rules say of each cell of a run, and what the run found there.

    Attributes:
        agree: cells of which both say the same: a known break applies, and it is the one; or none applies.
        hidden: cells without a deviation that a rule selects, and whose reason is in the data.
        may_deviate: cells that deviate, and the break may apply: the release that wrote them is not known exactly.
        may_be_clean: cells that are clean, and a break may apply.
        warned: (break, scenario) → cells that are clean, although the break applies according to its rule.
        missed: (break, scenario) → cells that deviate, although its rule does not select them.
    """

    cells: int = 0
    deviating: int = 0
    agree: int = 0
    hidden: int = 0
    may_deviate: int = 0
    may_be_clean: int = 0
    warned: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)


def agreement(stored: Stored, run: Run, creators: Creators | None = None) -> Agreement:
    """Compare the rules with a run's cells of stored fixtures.

    Args:
        creators: what can have written a fixture; default: what did.
    """
    fixtures = {(one.creator, one.scenario): one for one in stored.fixtures}
    loaders = {one.name: one.versions for one in run.environments}
    wrote = creators or (lambda fixture: [fixture.versions])
    result: Counter[str] = Counter()
    warned: Counter[tuple[str, str]] = Counter()
    missed: Counter[tuple[str, str]] = Counter()
    for cell in run.cells:
        fixture = fixtures.get((cell.creator, cell.scenario))
        if fixture is None or not (cell.verdict.is_deviation or cell.verdict.is_clean):
            continue
        found = [
            one
            for one in applying(fixture.adapter, wrote(fixture), loaders[cell.loader], stored.breaks)
            if does(one.rule, fixture.resolved)
        ]
        result["cells"] += 1
        if cell.verdict.is_deviation:
            result["deviating"] += 1
            sure = {one.known.id: one.certain for one in found}.get(cell.expectation)
            missed[cell.expectation or "no known break", cell.scenario] += sure is None
            result["agree"] += sure is True
            result["may_deviate"] += sure is False
            continue
        plain = [one for one in found if not _hidden(one.rule, fixture)]
        wrong = [one for one in plain if one.certain]
        warned.update((one.known.id, cell.scenario) for one in wrong)
        result["may_be_clean"] += bool(plain) and not wrong
        result["agree"] += not plain
        result["hidden"] += bool(found) and not plain
    return Agreement(**result, warned=+warned, missed=+missed)


def as_dated(fixture: Fixture) -> list[dict[str, str]]:
    """What can have written a fixture, as `doctor` finds out."""
    return dating.date(fixture.adapter, _written_by()).creators


@functools.cache
def _written_by() -> written_by.Table:
    return written_by.load(data.matrices())


def judged(stored: Stored, run: Run) -> Run:
    """The run with the known breaks as they are now."""
    environments: dict[str, Mapping[str, str]] = {one.creator: one.versions for one in stored.fixtures}
    environments |= {one.name: one.versions for one in run.environments}
    cells, _ = expected.apply(run.cells, stored.breaks, environments, date.fromisoformat(run.created[:10]))
    return run.model_copy(update={"cells": cells})


def main() -> int:
    """Print the agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a report.json to compare with")
    parser.add_argument("--dated", action="store_true", help="with --run: do not tell the rules who wrote a fixture")
    parser.add_argument("--break", dest="known", default="*", help="glob of breaks to list (default: all)")
    arguments = parser.parse_args()
    stored = Stored()
    if arguments.run:
        run = judged(stored, Run.model_validate_json(arguments.run.read_bytes()))
        return _print_run(agreement(stored, run, as_dated if arguments.dated else None))
    cells = list(stored.cells())
    wrong = disagreements(cells)
    for one in wrong:
        if fnmatchcase(one.known, arguments.known):
            print(one)
    covered = sum(len(one.covered) for one in cells)
    both = sum(len(one.covered & one.ruled) for one in cells)
    rules = len(stored.breaks) - len(breaks.without_rule(stored.breaks))
    print(f"{rules} of {len(stored.breaks)} known breaks have a rule; {len(stored.fixtures)} stored fixtures")
    print(f"{covered} cells are covered by a known break; its rule selects {both}; {len(wrong)} disagreements")
    return 1 if wrong else 0


def _print_run(found: Agreement) -> int:
    for what, cells in (("a rule warns, but the run is clean", found.warned), ("the rules are silent", found.missed)):
        print(f"{what}: {cells.total()} cells")
        for (known, scenario), number in sorted(cells.items()):
            print(f"    {known}: {scenario}: {number}")
    print(f"{found.cells} cells of stored fixtures, {found.deviating} of them deviate")
    print(f"rules and run agree on {found.agree}; {found.hidden} of them are clean for a reason that is in the data")
    if found.may_deviate or found.may_be_clean:
        print(f"a break may apply to {found.may_deviate} that deviate, and to {found.may_be_clean} that do not")
    return 1 if found.warned or found.missed else 0


if __name__ == "__main__":
    sys.exit(main())
