"""Compares what creators saved: two of them (`diff`), or each scenario over all of them (`history`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.core import matrix
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.matrix import Declared
from harness.runner.request import Places, Selection
from harness.store import integrity, saved_adapter, saved_diff, saved_history
from harness.store.fixtures import Store, recorded_versions
from harness.store.manifest import BadFixture, Manifest, NoFixture
from harness.store.saved_adapter import Written
from harness.store.saved_diff import Change
from harness.store.saved_history import History, Storage


@dataclass(frozen=True)
class Diff:
    """What creator `b` saved differently from creator `a`.

    Attributes:
        changes: each common scenario → its changes.
        only_a: scenario that only `a` has fixtures of → why `b` has none.
        only_b: the same for `b`.
        problems: what cannot be read, and was not compared.
    """

    a: str
    b: str
    changes: Mapping[str, tuple[Change, ...]]
    only_a: Mapping[str, str]
    only_b: Mapping[str, str]
    problems: tuple[str, ...] = ()

    @property
    def different(self) -> list[str]:
        """Scenarios with a change other than in version strings."""
        return [name for name, every in self.changes.items() if any(change.differs for change in every)]

    @property
    def incomplete(self) -> list[str]:
        """Scenarios with something that could not be compared."""
        return [name for name, every in self.changes.items() if any(change.kind == "unknown" for change in every)]


@dataclass(frozen=True)
class Histories:
    """How each scenario's adapter changed over the creators, and the size of the store.

    Attributes:
        on_disk: bytes of manifests and blobs.
        problems: what cannot be read, and is in no history.
    """

    scenarios: tuple[History, ...]
    storage: Storage
    on_disk: int
    problems: tuple[str, ...] = ()


class NoHistory(HarnessError):
    """No fixture was selected."""

    exit_code = ExitCode.CANNOT_TELL


def diff(a: str, b: str, places: Places = Places(), selection: Selection = Selection()) -> Diff:
    """Compare what two creators saved, scenario by scenario.

    Raises:
        UsageError: one of them has no fixtures.
        BadFixture: one of them has no fixture that can be found, because its file is damaged.
    """
    store, declared = places.store(), places.matrix().scenarios()
    problems = _Problems()
    names = {creator: selected(store, creator, declared, selection) for creator in (a, b)}
    side_a, side_b = (_read(store, creator, names[creator], problems) for creator in (a, b))
    for creator in names:
        problems.add(store.damage(creator))
    common = sorted(set(side_a) & set(side_b))
    return Diff(
        a,
        b,
        {name: saved_diff.changes(side_a[name], side_b[name]) for name in common},
        {name: _why_missing(store, b, name, declared) for name in sorted(set(side_a) - set(common))},
        {name: _why_missing(store, a, name, declared) for name in sorted(set(side_b) - set(common))},
        problems.found(),
    )


def history(
    patterns: Sequence[str] = (), places: Places = Places(), selection: Selection = Selection()
) -> Histories:  # fmt: skip
    """How the saved adapter of each scenario changed over the creators.

    Args:
        patterns: names of scenarios, or globs; empty for all that are selected.

    Raises:
        NoHistory: there is no fixture of them.
    """
    store, declared = places.store(), places.matrix().scenarios()
    problems = _Problems()
    every: list[Manifest] = []
    written: list[Written] = []
    for creator in store.creators():
        problems.add(store.damage(creator))
        with problems.noted():
            wanted = set(_matching(selected(store, creator, declared, selection), patterns))
            for name in store.scenarios(creator):
                with problems.noted():
                    every.append(store.manifest(creator, name))
                    written += [saved_adapter.read(store, every[-1])] if name in wanted else []
    if not written and not problems.found():
        raise NoHistory(
            f"{store.folder}: no fixture of {', '.join(patterns) or 'any scenario'}", "at least one", "correct the name"
        )
    return Histories(
        saved_history.of(written), saved_history.storage(every), integrity.size(store), problems.found()
    )  # fmt: skip


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if not patterns or any(fnmatchcase(name, each) for each in patterns)]


class _Problems:
    """Collects what cannot be read, each once."""

    def __init__(self) -> None:
        self._messages: dict[str, None] = {}

    def add(self, errors: Iterable[BadFixture]) -> None:
        """Note these."""
        self._messages |= dict.fromkeys(map(str, errors))

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note a fixture that the block cannot read, and go on after the block."""
        try:
            yield
        except BadFixture as error:
            self.add([error])

    def found(self) -> tuple[str, ...]:
        """All messages."""
        return tuple(self._messages)


def selected(store: Store, creator: str, declared: Sequence[Declared], selection: Selection) -> list[str]:
    """The creator's scenarios that are selected. One that is not declared any more is selected by its name.

    Raises:
        UsageError: the creator has no fixtures.
        BadFixture: its file is damaged so that no fixture is found.
    """
    names = store.scenarios(creator)
    if not names:
        for error in store.damage(creator):
            raise error
        known = ", ".join(store.creators()) or "(there is none)"
        raise UsageError(f"{creator} has no fixtures", f"one of {known}", "correct the name")
    known_names = {one.name for one in declared}
    chosen = {one.name for one in selection.of(declared)}
    parts = [part.strip() for part in selection.keyword.split(" or ")]
    undeclared = {name for name in names if name not in known_names and any(part in name for part in parts)}
    return [name for name in names if name in chosen or (name in undeclared and not selection.families)]


def _read(store: Store, creator: str, names: Iterable[str], problems: _Problems) -> dict[str, Written]:
    found = {}
    for name in names:
        with problems.noted():
            found[name] = saved_adapter.read(store, store.manifest(creator, name))
    return found


def _why_missing(store: Store, creator: str, scenario: str, declared: Sequence[Declared]) -> str:
    """Why a creator has no usable fixture of a scenario, according to the store and the declarations."""
    try:
        saved_adapter.read(store, store.manifest(creator, scenario))
    except NoFixture:
        pass
    except BadFixture:
        return f"the fixture of {creator} is damaged"
    one = next((each for each in declared if each.name == scenario), None)
    if one is None:
        return "the scenario is not declared any more"
    return matrix.unstored(one, recorded_versions(store, creator)) or "no fixture was made"
