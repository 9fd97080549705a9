"""How the saved adapter of each scenario changed over the releases (pure)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.core.versions import release_order
from harness.store import saved_diff
from harness.store.manifest import Manifest
from harness.store.saved_adapter import Written
from harness.store.saved_diff import Change


@dataclass(frozen=True)
class Stretch:
    """Consecutive creators that saved the same, except for version strings and values."""

    creators: tuple[Written, ...]
    changes: tuple[Change, ...]
    """Changes from the stretch before; empty for the first."""

    @property
    def span(self) -> str:
        """`0.3.0–0.7.1`, or one release; the creator's name if its release is unknown."""
        names = [one.release or one.creator for one in self.creators]
        return names[0] if names[0] == names[-1] else f"{names[0]}–{names[-1]}"

    @property
    def form(self) -> str:
        """`adapter_model.bin, 8 keys`."""
        one = self.creators[0]
        count = len(one.shapes)
        return f"{', '.join(sorted(one.weights)) or 'no weights'}, {count} key{'s' * (count != 1)}"


@dataclass(frozen=True)
class History:
    """One scenario over its creators, by release."""

    scenario: str
    method: str
    written: tuple[Written, ...]
    stretches: tuple[Stretch, ...]

    @property
    def weights(self) -> int:
        """How many different contents the files with tensors have."""
        return len({tuple(sorted(one.weights.items())) for one in self.written})

    @property
    def keys(self) -> int:
        """How many different sets of keys with shapes there are."""
        return len({tuple(sorted(one.shapes.items())) for one in self.written})

    @property
    def configs(self) -> int:
        """How many different configs there are, without version strings."""
        return len({json.dumps(one.config, sort_keys=True) for one in self.written})


@dataclass(frozen=True)
class Storage:
    """The size of a store, and what sharing equal files saves."""

    fixtures: int
    blobs: int
    stored: int
    """Bytes of all different blobs."""
    unshared: int
    """Bytes if each fixture had its own files."""


def of(written: Iterable[Written]) -> tuple[History, ...]:
    """The history of each scenario, sorted by name."""
    by_scenario: dict[str, list[Written]] = {}
    for one in written:
        by_scenario.setdefault(one.scenario, []).append(one)
    return tuple(_history(name, every) for name, every in sorted(by_scenario.items()))


def _history(name: str, every: Sequence[Written]) -> History:
    ordered = tuple(sorted(every, key=lambda one: release_order(one.release, one.creator)))
    stretches: list[Stretch] = []
    for one in ordered:
        last = stretches[-1].creators[-1] if stretches else None
        # values differ because each release fills its new keys itself; a stretch is about the form
        changes = tuple(c for c in saved_diff.changes(last, one) if c.differs and c.kind != "value") if last else ()
        if last is None or changes:
            stretches.append(Stretch((one,), changes))
        else:
            stretches[-1] = Stretch((*stretches[-1].creators, one), stretches[-1].changes)
    return History(name, ordered[-1].method, ordered, tuple(stretches))


def kinds(scenarios: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Groups of creators that have scenarios in common, directly or through others; the largest group first.

    Args:
        scenarios: creator → its scenarios.
    """
    groups: list[tuple[list[str], set[str]]] = []
    for creator, names in scenarios.items():
        joined = [group for group in groups if not group[1].isdisjoint(names)]
        groups = [group for group in groups if group not in joined]
        members = [creator, *(member for group in joined for member in group[0])]
        groups.append((sorted(members), set(names).union(*(group[1] for group in joined))))
    return [members for members, names in sorted(groups, key=lambda group: (-len(group[1]), group[0]))]


def storage(manifests: Iterable[Manifest]) -> Storage:
    """The storage of these fixtures."""
    manifests = list(manifests)
    sizes: Mapping[str, int] = {file.sha256: file.size for each in manifests for _, file in each.contents()}
    unshared = sum(file.size for each in manifests for _, file in each.contents())
    return Storage(len(manifests), len(sizes), sum(sizes.values()), unshared)
