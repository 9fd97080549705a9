"""Compares what creators saved: two of them (`diff`), or each scenario over all of them (`history`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.core import matrix
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.matrix import Declared
from harness.runner.request import Places, Selection
from harness.store import integrity, saved_adapter, saved_diff, saved_history
from harness.store.fixtures import Store, recorded_versions
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
    """

    a: str
    b: str
    changes: Mapping[str, tuple[Change, ...]]
    only_a: Mapping[str, str]
    only_b: Mapping[str, str]

    @property
    def different(self) -> list[str]:
        """Scenarios with a change other than in version strings."""
        return [name for name, every in self.changes.items() if any(change.differs for change in every)]

    @property
    def incomplete(self) -> list[str]:
        """Scenarios of which something could not be compared."""
        return [name for name, every in self.changes.items() if any(change.kind == "unknown" for change in every)]


@dataclass(frozen=True)
class Histories:
    """How each scenario's adapter changed over the creators, and the size of the store.

    Attributes:
        on_disk: bytes of manifests and blobs.
    """

    scenarios: tuple[History, ...]
    storage: Storage
    on_disk: int


class NoHistory(HarnessError):
    """No fixture was selected."""

    exit_code = ExitCode.CANNOT_TELL


def diff(a: str, b: str, places: Places = Places(), selection: Selection = Selection()) -> Diff:
    """Compare what two creators saved, scenario by scenario.

    Raises:
        UsageError: one of them has no fixtures.
        BadFixture: a fixture cannot be read.
    """
    store, declared = places.store(), places.matrix().scenarios()
    side_a, side_b = (_read(store, name, selected(store, name, declared, selection)) for name in (a, b))
    common = sorted(set(side_a) & set(side_b))
    return Diff(
        a,
        b,
        {name: saved_diff.changes(side_a[name], side_b[name]) for name in common},
        {name: _why_missing(store, b, name, declared) for name in sorted(set(side_a) - set(common))},
        {name: _why_missing(store, a, name, declared) for name in sorted(set(side_b) - set(common))},
    )


def history(
    patterns: Sequence[str] = (), places: Places = Places(), selection: Selection = Selection()
) -> Histories:  # fmt: skip
    """How the saved adapter of each scenario changed over the creators.

    Args:
        patterns: names of scenarios, or globs; empty for all that are selected.

    Raises:
        NoHistory: there is no fixture of them.
        BadFixture: a fixture cannot be read.
    """
    store, declared = places.store(), places.matrix().scenarios()
    names = [(creator, name) for creator in store.creators() for name in selected(store, creator, declared, selection)]
    wanted = [(c, name) for c, name in names if not patterns or any(fnmatchcase(name, each) for each in patterns)]
    if not wanted:
        raise NoHistory(
            f"{store.folder}: no fixture of {', '.join(patterns) or 'any scenario'}", "at least one", "correct the name"
        )
    every = (store.manifest(creator, name) for creator in store.creators() for name in store.scenarios(creator))
    written = (saved_adapter.read(store, store.manifest(*one)) for one in wanted)
    return Histories(saved_history.of(written), saved_history.storage(every), integrity.size(store))


def selected(store: Store, creator: str, declared: Sequence[Declared], selection: Selection) -> list[str]:
    """The creator's scenarios that are selected. One that is not declared any more is selected by its name.

    Raises:
        UsageError: the creator has no fixtures.
    """
    names = store.scenarios(creator)
    if not names:
        known = ", ".join(store.creators()) or "(there is none)"
        raise UsageError(f"{creator} has no fixtures", f"one of {known}", "correct the name")
    known_names = {one.name for one in declared}
    chosen = {one.name for one in selection.of(declared)}
    parts = [part.strip() for part in selection.keyword.split(" or ")]
    undeclared = {name for name in names if name not in known_names and any(part in name for part in parts)}
    return [name for name in names if name in chosen or (name in undeclared and not selection.families)]


def _read(store: Store, creator: str, names: Iterable[str]) -> dict[str, Written]:
    return {name: saved_adapter.read(store, store.manifest(creator, name)) for name in names}


def _why_missing(store: Store, creator: str, scenario: str, declared: Sequence[Declared]) -> str:
    """Why a creator has no fixture of a scenario, according to the declarations."""
    one = next((each for each in declared if each.name == scenario), None)
    if one is None:
        return "the scenario is not declared any more"
    return matrix.unstored(one, recorded_versions(store, creator)) or "no fixture was made"
