"""What a cell executed, as the memory keeps it: given back exactly, or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.observation import Observed, encoded
from harness.runner import executed, memory
from harness.runner.executed import Executed, Numbers, Trace
from harness.runner.memory import Entry, Memory
from harness.worker.shared import EXECUTED

ONE = Executed(
    {"peft/tuners/lora/layer.py": frozenset({(10, "forward"), (30, "<lambda>")}), "peft/a.py": frozenset({(1, "f")})},
    frozenset({"peft/__init__.py", "peft/tuners/lora/layer.py"}),
)
TWO = Executed({"peft/a.py": frozenset({(1, "f"), (5, "g")})}, frozenset({"peft/a.py"}))


def entry(key: str) -> Entry:
    return Entry(key, "cell", "2026-11-30T21:00:00", "", 1.5, encoded(Observed("lora", {}, {}, {}, {})))


def kept(folder: Path, environment: str = "env", limit: int = memory.LIMIT, **traces: Trace) -> Path:
    opened = Memory(folder, limit=limit)
    opened.keep([entry(key) for key in traces], {}, environment, traces)
    opened.close()
    return opened.path


def traces(folder: Path, *keys: str, files: tuple[str, ...] | None = None) -> dict[str, Trace]:
    return Memory(folder).traces(keys or ("a", "b", "c"), files)


def test_traces_are_given_back_exactly(tmp_path: Path) -> None:
    kept(tmp_path, a=Trace(ONE))
    kept(tmp_path, b=Trace(TWO), c=Trace(None, "it forks"))
    kept(tmp_path, "another", d=Trace(TWO))
    assert traces(tmp_path, "a", "b", "c", "d", "e") == {
        "a": Trace(ONE), "b": Trace(TWO), "c": Trace(None, "it forks"), "d": Trace(TWO),
    }  # fmt: skip


def test_of_some_files_only_what_is_in_them_is_read(tmp_path: Path) -> None:
    kept(tmp_path, a=Trace(ONE), b=Trace(TWO))
    found = traces(tmp_path, "a", "b", files=("peft/a.py",))
    assert found["a"].executed == Executed({"peft/a.py": frozenset({(1, "f")})}, frozenset())
    assert found["b"].executed == TWO


def _set(what: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with sqlite3.connect(path) as db:
            db.execute(what)
        db.close()

    return damage


def _flipped(table: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with sqlite3.connect(path) as db:
            (content,) = db.execute(f"SELECT content FROM {table}").fetchone()
            db.execute(f"UPDATE {table} SET content = ?", (content[:-1] + bytes([content[-1] ^ 1]),))
        db.close()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _flipped("executed"), _flipped("code"), _set("UPDATE executed SET content = 'text'"),
        _set("UPDATE executed SET environment = 'other'"), _set("UPDATE executed SET key = 'a' || 'x', why = NULL"),
        _set("UPDATE executed SET why = 'it forks'"), _set("DELETE FROM code"), _set("DROP TABLE executed"),
        _set("DROP TABLE code"), _set("UPDATE code SET content = x'00', sha256 = ''"),
    ],
)  # fmt: skip
def test_a_damaged_trace_is_none_and_the_next_one_is_kept(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(kept(tmp_path, a=Trace(ONE)))
    assert traces(tmp_path) == {}
    kept(tmp_path, b=Trace(TWO))
    assert traces(tmp_path) == {"b": Trace(TWO)}, "the numbers of the first one may not be read as others"


def test_a_trace_goes_with_its_observation(tmp_path: Path) -> None:
    path = kept(tmp_path, a=Trace(ONE), b=Trace(TWO))
    opened = Memory(tmp_path)
    opened.forget("a")
    opened.close()
    assert traces(tmp_path) == {"b": Trace(TWO)}
    kept(tmp_path, "another", c=Trace(TWO), limit=1)
    with sqlite3.connect(path) as db:
        assert [db.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("executed", "code")] == [(0,), (0,)]
    db.close()


def test_the_size_counts_traces(tmp_path: Path) -> None:
    kept(tmp_path, a=Trace(ONE))
    without = len(entry("a").content)
    assert Memory(tmp_path).size()[0] == 1
    assert Memory(tmp_path).size()[1] > without


def test_an_observation_that_is_computed_again_keeps_its_trace(tmp_path: Path) -> None:
    kept(tmp_path, a=Trace(ONE))
    opened = Memory(tmp_path)
    opened.keep([entry("a")], {}, "env", {})
    opened.close()
    assert traces(tmp_path) == {"a": Trace(ONE)}


def test_numbers_are_those_of_the_environment() -> None:
    numbers = Numbers()
    first, second = numbers.encode(ONE), numbers.encode(TWO)
    again = Numbers(numbers.encoded())
    assert (again.decode(first), again.decode(second)) == (ONE, TWO)
    with pytest.raises(ValueError, match="no code has"):
        Numbers().decode(first)


@pytest.mark.parametrize(
    "said",
    [
        "", "[]", "{}", '{"why": "", "functions": 1, "imported": []}', '{"why": "", "functions": {}, "imported": 3}',
        '{"why": "", "functions": {"a.py": [1]}, "imported": []}', '{"why": "", "functions": {}}',
        '{"why": "", "functions": {"a.py": [["x", "f"]]}, "imported": []}',
    ],
)  # fmt: skip
def test_what_no_worker_wrote_is_no_trace(tmp_path: Path, said: str) -> None:
    (tmp_path / EXECUTED).write_text(said)
    assert executed.read(tmp_path) is None


def test_what_a_worker_wrote_is_read(tmp_path: Path) -> None:
    assert executed.read(tmp_path) is None
    place = tmp_path / EXECUTED
    said = {"functions": {"a.py": [[1, "f"], [9, "g"]]}, "imported": ["a.py", "b.py"]}
    place.write_text(json.dumps({"why": "", **said}))
    assert executed.read(tmp_path) == Trace(
        Executed({"a.py": frozenset({(1, "f"), (9, "g")})}, frozenset({"a.py", "b.py"}))
    )
    place.write_text(json.dumps({"why": "it forks"}))
    assert executed.read(tmp_path) == Trace(None, "it forks")
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert executed.read(tmp_path) is None, "a cell may have put anything in its place"
