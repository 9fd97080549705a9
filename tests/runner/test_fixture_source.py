"""Where a cell's fixture comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from harness.core.matrix import Matrix
from harness.envs.environments import Environments
from harness.runner import fixture_source, plan
from harness.runner.how import How
from harness.runner.request import CheckRequest
from harness.runner.session import Session
from harness.store.fixtures import Store
from harness.worker import in_use
from tests.support import manifests
from tests.support.mini.world import HANDLER, World


class MovingOn(Environments):
    """Environments of which one is declared to have its fixtures made on demand: an interpreter, for the test."""

    moving = ""

    def names(self) -> list[str]:
        return [*super().names(), self.moving]

    def makes_fixtures_on_demand(self, name: str) -> bool:
        return name == self.moving


@pytest.fixture
def environments(mini: World, tmp_path: Path) -> MovingOn:
    made = MovingOn(mini.matrices, tmp_path / "cache")
    made.moving = mini.spec("1.0")
    return made


@pytest.fixture
def session(environments: MovingOn, tmp_path: Path) -> Iterator[Session]:
    with Session(
        environments, Store(tmp_path / "nothing"), tmp_path / "scratch", How(handler=HANDLER), log=lambda line: None  # noqa: ARG005
    ) as one:  # fmt: skip
        yield one


def folders(environments: MovingOn) -> list[Path]:
    return [path for path in fixture_source.fixtures_cache(environments).iterdir() if path.is_dir()]


def checked(mini: World, environments: MovingOn, session: Session) -> dict[str, tuple[str, str]]:
    asked = CheckRequest((mini.spec("1.0"),), (mini.spec("2.0"),), pair=True)
    cells = plan.plan(Matrix(mini.matrices).scenarios(), asked, environments)
    found = {cell.declared.name: session.result(cell) for cell in cells}
    return {name: (str(cell.verdict), cell.fixture_origin) for name, cell in found.items()}


def test_a_fixture_that_is_not_committed_is_made_into_the_cache_and_told_apart(
    mini: World, environments: MovingOn, session: Session
) -> None:
    assert checked(mini, environments, session) == {
        "two-layers": ("exact", "created"),
        "one-layer": ("exact", "created"),
        "later": ("unsupported", ""),
    }
    assert sorted(mini.traced("create")) == ["one-layer", "two-layers"]
    (folder,) = folders(environments)
    assert Store(folder).creators() == [mini.name("1.0")]
    assert not session.store.folder.exists()


def test_the_cache_is_used_again_and_what_is_damaged_is_made_anew(
    mini: World, environments: MovingOn, session: Session
) -> None:
    checked(mini, environments, session)
    session.close()
    (folder,) = folders(environments)
    manifests.damage(folder, mini.name("1.0"), "one-layer", lambda line: line[:50])
    made = len(mini.traced("create"))
    with Session(
        environments, session.store, session.scratch, How(handler=HANDLER), log=lambda line: None  # noqa: ARG005
    ) as second:  # fmt: skip
        assert checked(mini, environments, second)["one-layer"] == ("exact", "created")
    assert mini.traced("create")[made:] == ["one-layer"]


def test_another_worker_makes_its_own(
    mini: World, environments: MovingOn, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixture_source, "worker_digest", lambda: "0" * 64)
    checked(mini, environments, session)
    (folder,) = folders(environments)
    assert folder.name.endswith("-000000000000")


def test_all_creators_are_those_with_fixtures_and_those_that_make_them(
    mini: World, environments: MovingOn, tmp_path: Path
) -> None:
    store = Store(mini.fixtures)
    assert plan.creators_with_fixtures(store, ()) == (mini.name("1.0"),)
    assert plan.creators_with_fixtures(store, (), environments) == (mini.name("1.0"), mini.spec("1.0"))
    assert plan.creators_with_fixtures(Store(tmp_path), (), environments) == (mini.spec("1.0"),)
    assert plan.creators_with_fixtures(store, ("x",), environments) == ("x",)


def test_a_missing_committed_fixture_is_never_made(mini: World, environments: MovingOn, tmp_path: Path) -> None:
    environments.moving = "nobody"
    manifests.remove(mini.fixtures, mini.name("1.0"), "one-layer")
    asked = CheckRequest((mini.name("1.0"),), (mini.spec("2.0"),))
    cells = plan.plan(Matrix(mini.matrices).scenarios(), asked, environments)
    with Session(
        environments, Store(mini.fixtures), tmp_path / "scratch", How(handler=HANDLER), log=lambda line: None  # noqa: ARG005
    ) as session:  # fmt: skip
        found = {cell.declared.name: str(session.result(cell).verdict) for cell in cells}
    assert found == {"two-layers": "exact", "one-layer": "no-fixture", "later": "unsupported"}


def test_what_another_lock_or_worker_left_is_out_of_date(
    mini: World, environments: MovingOn, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked(mini, environments, session)
    monkeypatch.setattr(environments, "names", lambda: [environments.moving])
    assert fixture_source.out_of_date(environments) == []
    monkeypatch.setattr(fixture_source, "worker_digest", lambda: "0" * 64)
    assert fixture_source.out_of_date(environments) == folders(environments)


def test_what_a_run_made_is_kept_while_it_runs(mini: World, environments: MovingOn, session: Session) -> None:
    checked(mini, environments, session)
    (folder,) = folders(environments)
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(in_use.lock_path(str(folder)), timeout=0).acquire()
    in_use.release(str(folder))
