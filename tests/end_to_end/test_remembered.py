"""What an earlier run computed is not computed again, is audited, and is judged by today's judge."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core import observation
from harness.core.observation import Observed
from harness.judge import compare
from harness.judge.judgement import Judgement
from harness.runner import memory
from tests.end_to_end.test_environments import named
from tests.support.mini.world import World

__all__ = ["named"]


@pytest.fixture
def world(named: World) -> World:
    """A world in which `current` breaks what `v1` saved, and whose cells have been checked once."""
    assert named.run("create", "v1").code == 0
    assert named.run("check").code == 1
    assert len(named.traced("replay")) >= 2
    return named


def replays(world: World, *more: str) -> int:
    """How many cells the workers replay in one more check."""
    before = len(world.traced("replay"))
    said = world.run("check", *more)
    assert said.code == 1, said
    return len(world.traced("replay")) - before


def stored(tmp_path: Path) -> Path:
    return memory.Memory(tmp_path / "cache" / memory.FOLDER).path


def told(world: World) -> list[dict[str, Any]]:
    """The newest run's cells, without when and how long they were computed."""
    own = {"remembered", "duration_s", "compute_s", "probes"}
    return [cell.model_dump(exclude=own) for cell in world.report().cells]


def test_a_second_run_computes_nothing_and_says_the_same(world: World) -> None:
    first = told(world)
    starts = len(world.traced("start"))
    assert replays(world, "--audit", "0") == 0
    assert len(world.traced("start")) == starts, "no worker has imported anything"
    assert told(world) == first
    assert all(cell.remembered for cell in world.report().cells if cell.verdict.is_judged)
    assert {one.name: bool(one.facts) for one in world.report().environments}["current"]


def test_asked_for_anew_every_cell_is_computed(world: World) -> None:
    count = sum(cell.verdict.is_judged for cell in world.report().cells)
    assert replays(world, "--fresh") >= count
    assert not any(cell.remembered for cell in world.report().cells)
    assert replays(world, "--audit", "100%") == count


def test_another_fixture_or_another_scenario_is_another_cell(world: World) -> None:
    file = next((world.matrices / "scenarios").glob("*.toml"))
    file.write_text(file.read_text().replace("alpha = 3.0", "alpha = 2.0", 1))
    assert world.run("create", "v1", "--replace", "--reason", "another input").code == 0
    assert replays(world, "--audit", "0") >= 1


def _tampered(path: Path, cell: str) -> None:
    """Make the remembered arrays of a cell others, under a right digest."""
    with sqlite3.connect(path) as db:
        ((key, content),) = db.execute("SELECT key, content FROM observation WHERE about LIKE ?", (f"{cell}@%",))
        whole = observation.decoded(content, _Anything({"": None}))
        arrays = {name: array + 1 for name, array in whole.arrays.items()}
        wrong = observation.encoded(Observed(whole.scenario, whole.load, whole.probes, whole.facts, arrays))
        db.execute(
            "UPDATE observation SET content = ?, sha256 = ? WHERE key = ?",
            (wrong, hashlib.sha256(wrong).hexdigest(), key),
        )
    db.close()


class _Anything(dict[str, Any]):
    """A golden that has every array."""

    def __missing__(self, name: str) -> Any:
        return np.zeros(3, np.float32)


def test_an_audit_that_disagrees_is_an_error_that_names_both(world: World, tmp_path: Path) -> None:
    cell = next(cell for cell in world.report().cells if cell.verdict.is_judged)
    _tampered(stored(tmp_path), cell.scenario)
    said = world.run("check", "--cell", cell.id, "--audit", "100")
    assert said.code == 2, said
    (found,) = world.report().cells
    assert found.verdict == "unstable"
    assert "remembered of 20" in found.reason
    assert "and computed now differ: " in found.reason
    assert "--fresh" in found.reason
    assert world.run("check", "--cell", cell.id, "--audit", "100").code == (1 if cell.deviates else 0), (
        "it is forgotten"
    )


def test_another_judge_judges_what_is_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = next(cell for cell in world.report().cells if cell.deviates)
    before = len(world.traced("replay"))
    judge = compare.judge

    def lenient(golden: Observed, _: Observed) -> Judgement:
        return judge(golden, golden)

    monkeypatch.setattr(compare, "judge", lenient)
    assert world.run("check", "--cell", wrong.id, "--audit", "0").code == 0
    assert len(world.traced("replay")) == before


def traces(path: Path) -> list[tuple[str, str]]:
    """The cells whose executed code was recorded, and why it could not be."""
    with sqlite3.connect(path) as db:
        found = db.execute("SELECT about, why FROM executed JOIN observation USING (key) ORDER BY about").fetchall()
    db.close()
    return found


def test_what_cells_execute_is_recorded_once(world: World, tmp_path: Path) -> None:
    """A cell that is remembered already is computed for it, and both observations must be equal."""
    assert traces(stored(tmp_path)) == []
    first = told(world)
    count = sum(cell.verdict.is_judged for cell in world.report().cells)
    assert replays(world, "--trace", "--audit", "0") == count
    assert told(world) == first
    assert len(traces(stored(tmp_path))) == count
    assert {why for _, why in traces(stored(tmp_path))} == {""}
    assert replays(world, "--trace", "--audit", "0") == 0


def test_a_remembered_cell_that_differs_when_it_is_recorded_is_an_error(world: World, tmp_path: Path) -> None:
    cell = next(cell for cell in world.report().cells if cell.verdict.is_judged)
    _tampered(stored(tmp_path), cell.scenario)
    assert world.run("check", "--cell", cell.id, "--audit", "0", "--trace").code == 2
    assert world.report().cells[0].verdict == "unstable"
    assert traces(stored(tmp_path)) == []


def test_cells_that_are_computed_are_recorded_at_once(world: World, tmp_path: Path) -> None:
    stored(tmp_path).unlink()
    assert replays(world, "--trace") >= 2
    known = [cell.id for cell in world.report().cells if cell.verdict.is_judged]
    assert {about for about, _ in traces(stored(tmp_path))} == set(known)
