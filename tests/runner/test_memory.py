"""The memory of observations: what it gives back, and that nothing which is wrong with its file is more than a miss."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.core.observation import Array, Observed, encoded
from harness.runner import memory
from harness.runner.alike import equal
from harness.runner.memory import Entry, Known, Memory

GOLDEN: dict[str, Array] = {
    "forward/float32/logits": np.arange(6, dtype=np.float32),
    "forward/float64/logits": np.arange(6, dtype=np.float64),
}
FACTS = {"forward": {"sketch": [1, 2]}, "autocasts": True}


def observed(more: dict[str, Array] | None = None) -> Observed:
    arrays = {**GOLDEN, "merged/float32/logits": np.full(6, 0.5, np.float32), **(more or {})}
    return Observed("lora", {"float32": {"outcome": "ok"}}, {"forward": {"float32": {"outcome": "ok"}}}, FACTS, arrays)


def entry(key: str, what: Observed | None = None) -> Entry:
    return Entry(key, "lora@v061:current[cpu]", "2026-11-30T21:00:00", "", 1.5, encoded(what or observed(), GOLDEN))


def recalled(folder: Path, key: str = "a") -> Known | None:
    opened = Memory(folder)
    try:
        return opened.recall(key, GOLDEN)
    finally:
        opened.close()


def kept(folder: Path, *entries: Entry, limit: int = memory.LIMIT) -> Path:
    opened = Memory(folder, limit=limit)
    opened.keep(entries or [entry("a")], {"env": {"threads": 1}})
    opened.close()
    return opened.path


def test_what_was_kept_is_recalled_to_the_bit(tmp_path: Path) -> None:
    what = observed({"forward/float32/nan": np.array([np.nan, -0.0], np.float32)})
    kept(tmp_path, entry("a", what))
    found = recalled(tmp_path)
    assert found is not None
    assert (found.computed, found.seconds) == ("2026-11-30T21:00:00", 1.5)
    assert equal(found.observed, what)
    assert recalled(tmp_path, "b") is None
    assert Memory(tmp_path).facts("env") == {"threads": 1}


def test_arrays_that_are_equal_to_the_goldens_take_no_room() -> None:
    large: dict[str, Array] = {"forward/float32/logits": np.random.default_rng(0).random(10_000, np.float32)}
    same = Observed("lora", {}, {}, {}, large)
    assert len(encoded(same, large)) < 1_000 < len(encoded(same))
    wrong_golden = {**large, "forward/float32/logits": large["forward/float32/logits"] * 2}
    assert len(encoded(same, wrong_golden)) > 10_000, "a golden of other values is no reference"


def test_an_entry_whose_golden_is_gone_is_a_miss(tmp_path: Path) -> None:
    kept(tmp_path)
    opened = Memory(tmp_path)
    assert opened.recall("a", {}) is None
    assert opened.recall("a", GOLDEN) is None, "it is deleted, so that it is computed anew"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _no_database(path: Path) -> None:
    path.write_bytes(b"no database" * 1_000)


def _flipped(path: Path) -> None:
    """One byte of an entry, which SQLite does not notice."""
    with sqlite3.connect(path) as db:
        (content,) = db.execute("SELECT content FROM observation").fetchone()
        wrong = content[:20] + bytes([content[20] ^ 1]) + content[21:]
        db.execute("UPDATE observation SET content = ?", (wrong,))
    db.close()


def _text(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE observation SET content = 'text'")
    db.close()


def _no_table(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE observation")
    db.close()


def _other_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE observation (key TEXT PRIMARY KEY, other INTEGER)")
    db.close()


@pytest.mark.parametrize("damage", [_cut, _no_database, _flipped, _text, _no_table, _other_tables])
def test_a_damaged_memory_is_a_miss_and_works_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(kept(tmp_path))
    assert recalled(tmp_path) is None
    kept(tmp_path)
    assert recalled(tmp_path) is not None


def test_a_folder_in_its_place_is_said_once_and_harms_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    opened = Memory(tmp_path, log=said.append)
    opened.path.mkdir()
    opened.keep([entry("a")], {})
    assert opened.recall("a", GOLDEN) is None
    opened.close()
    assert len(said) == 1
    assert "not remembered" in said[0]


def test_a_memory_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, said = kept(tmp_path), list[str]()
    monkeypatch.setattr(os, "access", lambda place, mode: not (Path(place) == tmp_path and mode == os.W_OK))
    before = path.read_bytes()
    opened = Memory(tmp_path, log=said.append)
    assert opened.recall("a", GOLDEN) is not None
    opened.close()
    assert said == []
    opened.keep([entry("b")], {})
    assert opened.recall("a", GOLDEN) is not None
    opened.close()
    assert len(said) == 1
    assert "readonly database; what is computed now is not remembered" in said[0]
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name]


def _on_a_full_disk(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as a disk that is full: a write fails
    noise = np.random.default_rng(0).random(20_000, np.float32)
    opened = Memory(folder)
    for key in "bcdef":
        opened.keep([entry(key, observed({"forward/float32/noise": noise}))], {})
    opened.close()


def test_what_does_not_fit_on_the_disk_is_not_kept_and_the_rest_is_there(tmp_path: Path) -> None:
    kept(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=_on_a_full_disk, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert recalled(tmp_path) is not None


def _keep_many(folder: Path, name: str) -> None:
    for number in range(20):
        kept(folder, entry(f"{name}{number}"))


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=_keep_many, args=(tmp_path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert Memory(tmp_path).size()[0] == 40


def test_beyond_the_limit_what_was_not_used_for_the_longest_time_goes(tmp_path: Path) -> None:
    size = len(entry("a").content)
    for key in "abcd":
        kept(tmp_path, entry(key))
    assert recalled(tmp_path, "a") is not None, "used last"
    kept(tmp_path, entry("e"), limit=4 * size)
    assert {key for key in "abcde" if recalled(tmp_path, key)} == {"a", "d", "e"}


def test_the_file_of_another_format_is_not_read_and_is_deleted_on_demand(tmp_path: Path) -> None:
    old = kept(tmp_path).rename(tmp_path / "observations-0.sqlite")
    assert recalled(tmp_path) is None
    assert memory.other_formats(tmp_path, dry_run=True) == [old]
    assert old.exists()
    assert memory.other_formats(tmp_path, dry_run=False) == [old]
    assert not old.exists()
    assert Memory(tmp_path).path.exists()
