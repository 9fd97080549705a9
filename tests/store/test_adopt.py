"""All fixtures of another store are copied, or none; existing fixtures do not change."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import HarnessError
from harness.store import integrity
from harness.store.adopt import adopting
from harness.store.blobs import Blobs
from harness.store.fixtures import Store
from harness.store.manifest import StoredFile
from tests.store.test_fixtures import ADAPTER, blank, content, parts


def put(store: Store, scenario: str, **more: str) -> None:
    adapter = {**ADAPTER, "mine.bin": scenario.encode()}
    with parts(adapter=adapter) as (a, b, g):
        store.save(blank(scenario, **more), a, b, g)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Store, Store]:
    """A store with one fixture, and another with two of another creator that share its base and golden."""
    store, other = Store(tmp_path / "store"), Store(tmp_path / "other")
    put(store, "old")
    put(other, "one", creator="v070")
    put(other, "two", creator="v070")
    return store, other


def test_all_are_copied(both: tuple[Store, Store]) -> None:
    store, other = both
    before = integrity.size(store)
    with adopting(store, other, "v070", ["one", "two"]) as size:
        pass
    assert store.scenarios("v070") == ["one", "two"]
    assert integrity.size(store) - before == size > 0
    assert integrity.verify(store) == []
    assert store.manifest("v070", "one") == other.manifest("v070", "one")
    with adopting(store, other, "v070", ["one"]) as again:
        assert again == 0, "it is there already"


@pytest.mark.parametrize("error", [HarnessError("no"), KeyboardInterrupt()])
def test_none_is_copied_if_the_block_fails(both: tuple[Store, Store], error: BaseException) -> None:
    store, other = both
    before = content(store.folder)
    taken = adopting(store, other, "v070", ["one", "two"])
    taken.__enter__()
    assert store.scenarios("v070") == ["one", "two"]
    assert not taken.__exit__(type(error), error, None), "it goes on"
    assert content(store.folder) == before
    assert not (store.folder / "v070.jsonl").exists()


@pytest.mark.parametrize("file", range(1, 9))
def test_none_is_copied_if_it_is_interrupted(
    both: tuple[Store, Store], file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C right after the nth file was written."""
    store, other = both
    before, count, write = content(store.folder), iter(range(1, 99)), Blobs.write

    def stopping(self: Blobs, stored: StoredFile, data: bytes, compress: bool) -> None:
        write(self, stored, data, compress)
        if next(count) == file:
            raise KeyboardInterrupt

    monkeypatch.setattr(Blobs, "write", stopping)
    with pytest.raises(KeyboardInterrupt), adopting(store, other, "v070", ["one", "two"]):
        pass
    assert content(store.folder) == before


def test_a_different_fixture_is_refused_and_the_others_are_removed(both: tuple[Store, Store]) -> None:
    store, other = both
    put(store, "two", creator="v070", lock_digest="m" * 64)
    before = content(store.folder)
    with (
        pytest.raises(HarnessError, match="differs from the stored one"),
        adopting(store, other, "v070", ["one", "two"]),
    ):
        pass
    assert content(store.folder) == before


def test_copying_and_saving_exclude_each_other(both: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes while fixtures may still be taken back: so nobody comes to name what then goes."""
    store, other = both
    monkeypatch.setattr("harness.store.fixtures.LOCK_TIMEOUT_S", 0.1)
    with (
        adopting(store, other, "v070", ["one"]),
        pytest.raises(HarnessError, match="another process has been writing"),
    ):
        put(Store(store.folder), "new")
