"""Measures `doctor` on every stored fixture: is it dated rightly, how narrowly, and does it complain without reason?

    python -m benchmarks.doctor

Each adapter is dated three times: with all its files, without its model card, and by keys alone (no `peft_version`
either); then by keys with a table from which its own release is left out, as most releases of users are in no table.
Nothing is asserted; `tests/own/` does that.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from unittest import mock

from harness.core import data
from harness.own import damage, dating, doctor, written_by
from harness.own.damage import Case
from harness.own.dating import Dated
from harness.own.written_by import Table
from harness.store import saved_adapter
from harness.store.adapter import Adapter
from harness.store.adapter_of_fixture import adapter_of
from harness.store.fixtures import Store
from harness.store.saved_adapter import Written

Stored = tuple[Adapter, Written]


def main() -> int:
    """Measure and print."""
    store = Store(data.fixtures())
    stored = list(_stored(store))
    table = written_by.load(data.matrices())
    _print("all files", stored, lambda adapter, _: dating.date(adapter, table))
    _print("without the card", stored, lambda adapter, _: dating.date(_without_card(adapter), table))
    _print("keys alone", stored, lambda adapter, _: dating.date(_keys_alone(adapter), table))
    tables = dict(_without_each([written for _, written in stored], table))
    _print("keys, release left out", stored, lambda adapter, own: dating.date(_keys_alone(adapter), tables[own]))
    complaints = Counter(one.kind for adapter, _ in stored for one in _complaints(adapter))
    print(f"damage: {dict(complaints) or 'no complaint'} about {len(stored)} sound adapters")
    return 0


def _stored(store: Store) -> Iterator[Stored]:
    for creator in store.creators():
        for name in store.scenarios(creator):
            manifest = store.manifest(creator, name)
            yield adapter_of(store, manifest), saved_adapter.read(store, manifest)


def _without_card(adapter: Adapter) -> Adapter:
    return dataclasses.replace(adapter, card="")


def _keys_alone(adapter: Adapter) -> Adapter:
    """Without the card, and with a `peft_version` that says nothing."""
    hidden = {"peft_version": None} if "peft_version" in adapter.config else {}
    return dataclasses.replace(adapter, card="", config={**adapter.config, **hidden})


def _without_each(written: list[Written], table: Table) -> Iterator[tuple[str, Table]]:
    """Release → the table without its adapters."""
    for left_out in {one.release for one in written}:
        yield left_out, written_by.table([one for one in written if one.release != left_out], table.releases)


def _print(what: str, stored: Iterable[Stored], date: Callable[[Adapter, str], Dated]) -> None:
    widths, wrong = [], 0
    for adapter, written in stored:
        found = date(adapter, written.release).releases
        wrong += written.release not in found
        widths.append(len(found))
    widths.sort()
    print(
        f"{what}: {len(widths) - wrong} of {len(widths)} ranges hold the release; {widths.count(1)} are exact; "
        f"median {widths[len(widths) // 2]}, 90 % {widths[len(widths) * 9 // 10]}, widest {widths[-1]} releases"
    )


def _complaints(adapter: Adapter) -> Iterator[damage.Damage]:
    def matching(pattern: str, names: Iterable[str]) -> list[bool]:
        return [re.fullmatch(pattern, name) is not None for name in names]

    with mock.patch.object(damage, "matching", matching):  # our own patterns need no process of their own
        yield from doctor.damage_of(Case(adapter))


if __name__ == "__main__":
    raise SystemExit(main())
