"""A session: one worker for each loader, each cell reported once, and no report of cancelled cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness.core import matrix
from harness.core.matrix import Matrix
from harness.core.run import Cell
from harness.envs.environments import Environments
from harness.runner import plan
from harness.runner.how import How
from harness.runner.plan import Planned
from harness.runner.request import CheckRequest
from harness.runner.session import Session
from harness.store.fixtures import Store, recorded_versions
from tests.support import manifests
from tests.support.mini.world import HANDLER, World, scenario, until

Begin = Callable[..., tuple[Session, list[Planned], list[Cell]]]


@pytest.fixture
def begin(mini: World, tmp_path: Path) -> Iterator[Begin]:
    """Makes a session and its cells; ends it after the test."""
    sessions: list[Session] = []

    def one(release: str = "2.0", creating: bool = False) -> tuple[Session, list[Planned], list[Cell]]:
        finished: list[Cell] = []
        environments = Environments(mini.matrices)
        store = Store(tmp_path / "new" if creating else mini.fixtures)
        session = Session(
            environments, store, tmp_path / "scratch", How(creating=creating, handler=HANDLER),
            finished=finished.append, log=lambda line: None,  # noqa: ARG005
        )  # fmt: skip
        sessions.append(session)
        creator = mini.spec("1.0") if creating else mini.name("1.0")
        request = CheckRequest((creator,), (mini.spec(release),), pair=creating)
        return session, plan.plan(Matrix(mini.matrices).scenarios(), request, environments), finished

    yield one
    for session in sessions:
        session.close()


def test_cells_are_finished_as_they_finish(begin: Begin, mini: World) -> None:
    session, cells, finished = begin()
    session.start(cells)
    assert [session.result(cell).verdict for cell in cells] == ["exact", "exact", "unsupported"]
    assert sorted(cell.scenario for cell in finished) == ["later", "one-layer", "two-layers"]
    session.start(cells)
    assert len(finished) == 3
    assert len(mini.traced("start")) == 1
    assert set(session.import_seconds()) == {mini.name("2.0")}
    session.close()
    assert not session.scratch.exists()


def test_what_is_broken_off_is_not_finished(begin: Begin, mini: World) -> None:
    mini.scenarios(scenario("slow", fault="wait"))
    assert mini.run("create", mini.spec("1.0"), "-k", "slow").code == 0
    session, cells, finished = begin()
    session.start(cells)
    until(lambda: "slow" in mini.traced("replay") and len(finished) == 3)
    session.cancel()
    session.close()
    assert "slow" not in [cell.scenario for cell in finished]
    until(lambda: not mini.processes(), f"still there: {mini.processes()}")


def test_our_own_mistake_costs_one_cell_and_says_so(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    session, cells, _ = begin()
    real = matrix.unsupported

    def broken(declared: matrix.Declared, versions: Mapping[str, str], *, creating: bool = False) -> str:
        if declared.name == "one-layer":
            raise RuntimeError("a bug")
        return real(declared, versions, creating=creating)

    monkeypatch.setattr(matrix, "unsupported", broken)
    found = {cell.declared.name: session.result(cell) for cell in cells}
    assert found["one-layer"].verdict == "not-comparable"
    assert found["one-layer"].reason == "peft-regress itself failed: RuntimeError: a bug"
    assert found["two-layers"].verdict == "exact"


def test_a_fixture_is_created_once_for_all_loaders(begin: Begin, mini: World) -> None:
    session, cells, _ = begin("1.0", creating=True)
    again = [Planned(c.id, c.declared, c.creator_spec, c.loader_spec) for c in cells]
    session.start([*cells, *again])
    assert [session.result(cell).verdict for cell in cells] == ["exact", "exact", "unsupported"]
    assert sorted(mini.traced("create")) == ["one-layer", "two-layers"]
    assert session.result(cells[0]).reproduce.startswith("peft-regress pair --cell ")
    reports = {one.name: one for one in session.environment_reports()}
    assert reports[mini.name("1.0")].role == ("creator", "loader")


def test_the_versions_of_a_creator_are_those_of_its_fixtures(mini: World) -> None:
    store = Store(mini.fixtures)
    assert recorded_versions(store, mini.name("1.0"))["minipeft"] == "1.0"
    assert recorded_versions(store, "nobody") == {}
    for name in store.scenarios(mini.name("1.0")):
        manifests.damage(mini.fixtures, mini.name("1.0"), name, lambda line: line[:100])
    assert recorded_versions(store, mini.name("1.0")) == {}
