"""What a session does when nodes end, fail, are silent, or come later. The engine is a fake; the rest is real."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from harness.core.errors import HarnessError
from harness.core.run import Cell, EnvironmentReport
from harness.core.verdict import Verdict
from harness.envs.environment import EnvFailed, Environment
from harness.judge import cell_result
from harness.runner import pipeline
from harness.runner.cluster import nodes, session
from harness.runner.cluster.batch import Batch, Done
from harness.runner.cluster.engine import ClusterLost, NodeLost
from harness.runner.cluster.nodes import Facts
from harness.runner.cluster.session import ClusterSession
from harness.runner.how import How
from harness.runner.plan import Planned
from tests.runner.cluster.cells import many, planned


@dataclass
class Ran:
    """A batch on a fake node."""

    result_of: Callable[[], Done]
    over: bool = True
    cancelled: bool = False

    def ended(self) -> bool:
        return self.over

    def result(self) -> Done:
        return self.result_of()

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Cluster:
    """Fake nodes, by address.

    Attributes:
        ends: cells that end their node.
        hangs: cells that never end.
        facts_of: what a node says that is unlike the controller.
        restarts: a node that ended comes back under another address.
    """

    there: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 1})
    ends: set[str] = field(default_factory=set)
    hangs: set[str] = field(default_factory=set)
    facts_of: dict[str, Facts | str] = field(default_factory=dict)
    fails: dict[str, HarnessError] = field(default_factory=dict)
    builds_nothing: set[str] = field(default_factory=set)
    restarts: bool = True
    lost: bool = False
    ran: list[tuple[str, Batch]] = field(default_factory=list)
    running: list[Ran] = field(default_factory=list)
    closed: bool = False
    asked: int = 0
    waits: threading.Event | None = None

    def __call__(self, *_: object) -> Cluster:
        return self

    def nodes(self) -> dict[str, int]:
        if self.lost:
            raise ClusterLost("dask://x:1: the connection to the scheduler is lost", "a scheduler that runs on", "…")
        return dict(self.there)

    def scheduler(self) -> Facts | str:
        return self.facts_of.get("scheduler", nodes.facts())

    def facts(self, addresses: Any) -> dict[str, Facts | str]:
        self.asked += 1
        if self.waits is not None:
            self.waits.wait(10)
        return {address: self.facts_of.get(address, nodes.facts()) for address in addresses}

    def call(self, address: str, *_: object) -> list[str]:
        if address not in self.there:
            raise NodeLost(f"{address} does not answer")
        return []

    def run(self, address: str, batch: Batch, _: str) -> Ran:
        self.ran.append((address, batch))
        names = {cell.id.scenario for cell in batch.cells}
        ran = Ran(lambda: self._result(address, batch, names), over=not names & self.hangs)
        self.running.append(ran)
        return ran

    def _result(self, address: str, batch: Batch, names: set[str]) -> Done:
        if names & self.ends:
            threads = self.there.pop(address, 1)
            if self.restarts:
                self.there[f"{address}+"] = threads
            raise NodeLost(f"{address} ended")
        if address in self.fails:
            raise self.fails[address]
        if address in self.builds_nothing:
            error = EnvFailed("current", "build", "no Python 3.9 on this machine")
            cells = tuple(pipeline.failed(cell.id, error) for cell in batch.cells)
            return Done(cells, failed=(EnvironmentReport(name="current", role=("loader",), failed="no Python"),))
        return Done(tuple(cell_result.could_not_tell(cell.id, Verdict.EXACT, "") for cell in batch.cells))

    def close(self) -> None:
        self.closed = True


class Packed:
    """Batches without files."""

    how = How(jobs=1)

    def described(self, spec: str) -> Environment:
        if spec == "broken":
            raise EnvFailed(spec, "resolve", "it does not resolve")
        return Environment(spec, spec, "named", "0", "")

    def keep(self, done: Done) -> None:
        """Remember nothing."""

    def batch(self, cells: Any) -> Batch:
        return Batch(tuple(cells), self.how, {}, frozenset(), frozenset(), None)  # type: ignore[arg-type]


Begin = Callable[..., ClusterSession]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Opens a session on fake nodes; ends it after the test."""
    monkeypatch.setattr(session, "_LOOK_S", 0.002)
    monkeypatch.setattr(session, "_NODES_S", 0.004)
    monkeypatch.setattr(session, "_NO_NODE_S", 0.3)
    monkeypatch.setattr(session, "_FIRST_NODE_S", 0.05)
    opened: list[ClusterSession] = []

    def one(cluster: Cluster, **more: Any) -> ClusterSession:
        monkeypatch.setattr(session, "Engine", cluster)
        made = ClusterSession("dask://x:1", Packed(), said.append, finished.append, **more)  # type: ignore[arg-type]
        opened.append(made)
        return made

    said.clear()
    finished.clear()
    yield one
    for made in opened:
        made.close()


said: list[str] = []
finished: list[Cell] = []


def verdicts(made: ClusterSession, cells: list[Planned]) -> dict[str, str]:
    made.start(cells)
    return {cell.id.scenario: str(made.result(cell).verdict) for cell in cells}


def test_every_cell_is_finished_once_and_both_nodes_work(begin: Begin) -> None:
    cluster = Cluster()
    cells = many(100)
    assert set(verdicts(begin(cluster), cells).values()) == {"exact"}
    assert sorted(cell.id for cell in finished) == sorted(str(cell.id) for cell in cells)
    assert {address for address, _ in cluster.ran} == {"a", "b"}


def test_a_node_that_ends_costs_no_result(begin: Begin) -> None:
    cluster = Cluster(restarts=False)
    made = begin(cluster)
    cluster.hangs = {"s000"}
    made.start(many(100))
    until(lambda: cluster.ran)
    address = next(address for address, batch in cluster.ran if batch.cells[0].id.scenario == "s000")
    cluster.hangs = set()
    del cluster.there[address]
    assert set(verdicts(made, many(100)).values()) == {"exact"}
    assert any(f"{address} ended; its" in line for line in said)
    assert len(finished) == 100


def test_of_a_batch_that_ends_every_node_only_the_guilty_cell_is_lost(begin: Begin) -> None:
    cluster = Cluster(ends={"s013"})
    found = verdicts(begin(cluster), many(40))
    assert {name for name, verdict in found.items() if verdict != "exact"} == {"s013"}
    (guilty,) = (cell for cell in finished if cell.scenario == "s013")
    assert guilty.verdict is Verdict.NOT_COMPARABLE
    assert "each node that checked it ended" in guilty.reason
    assert "--cell 's013@v0:current[cpu]'" in guilty.reproduce


def test_without_any_node_the_run_ends(begin: Begin) -> None:
    cluster = Cluster(ends={"s003"}, restarts=False)
    made = begin(cluster)
    cells = many(40)
    made.start(cells)
    with pytest.raises(HarnessError, match=r"all nodes have ended.*\n.*\n.*--resume"):
        made.result(planned("s003", "v0"))
    with pytest.raises(HarnessError, match="all nodes have ended"):
        made.result(planned("later"))


def test_a_cluster_that_is_lost_ends_the_run_and_keeps_what_is_finished(begin: Begin) -> None:
    cluster = Cluster(hangs={"s099"})
    made = begin(cluster)
    made.start(many(100))
    until(lambda: finished)
    cluster.lost = True
    with pytest.raises(ClusterLost, match="the connection to the scheduler is lost"):
        made.result(planned("s099", "v0"))
    assert finished


def test_a_cluster_without_nodes_is_refused(begin: Begin) -> None:
    cluster = Cluster({})
    with pytest.raises(HarnessError, match="dask://x:1: the cluster has no node"):
        begin(cluster)
    assert cluster.closed


def test_a_node_with_another_python_is_left_out_with_a_note(begin: Begin) -> None:
    cluster = Cluster(facts_of={"b": replace(nodes.facts(), python="3.9")})
    verdicts(begin(cluster), many(50))
    assert {address for address, _ in cluster.ran} == {"a"}
    assert f"dask://x:1: b is left out: Python 3.9, and Python {nodes.facts().python} here" in said


def test_a_scheduler_with_another_peft_regress_is_refused(begin: Begin) -> None:
    cluster = Cluster(facts_of={"scheduler": "peft-regress is not installed there"})
    with pytest.raises(HarnessError, match="dask://x:1: the scheduler: peft-regress is not installed there"):
        begin(cluster)
    assert cluster.closed


def test_no_node_that_fits_is_an_error(begin: Begin) -> None:
    cluster = Cluster(facts_of=dict.fromkeys("ab", "peft-regress is not installed there"))
    with pytest.raises(HarnessError, match="no node can be used\n  a: peft-regress is not installed there"):
        begin(cluster)


def test_a_node_that_comes_later_is_used(begin: Begin) -> None:
    cluster = Cluster({"a": 1}, hangs={"s000"})
    made = begin(cluster)
    made.start(many(100))
    until(lambda: len(cluster.ran) == 1)
    cluster.there["c"] = 1
    made.result(planned("s099", "v0"))
    assert {address for address, _ in cluster.ran} == {"a", "c"}


def test_a_silent_node_is_given_up_and_its_cells_are_checked_elsewhere(begin: Begin) -> None:
    cluster = Cluster({"a": 1}, hangs={"s000"})
    made = begin(cluster, silent_s=-114.8)
    made.start([planned("s000", "v0")])
    until(lambda: cluster.ran)
    cluster.hangs = set()
    cluster.there["b"] = 1
    assert made.result(planned("s000", "v0")).verdict == "exact"
    assert [address for address, _ in cluster.ran] == ["a", "b"]
    assert cluster.running[0].cancelled
    assert any("a said nothing for 0 s, and is not used any more" in line for line in said)


def test_a_full_disk_on_a_node_costs_nothing_if_another_node_has_room(begin: Begin) -> None:
    full = HarnessError("/cache: no space left", "a cache with room", "free some space there")
    assert set(verdicts(begin(Cluster(fails={"a": full})), many(60)).values()) == {"exact"}
    finished.clear()
    cluster = Cluster(fails={"a": full, "b": full})
    assert set(verdicts(begin(cluster), many(20)).values()) == {"not-comparable"}
    assert "no space left" in finished[0].reason


def test_an_environment_that_one_node_cannot_build_is_built_on_another(begin: Begin) -> None:
    made = begin(Cluster(builds_nothing={"a"}))
    assert set(verdicts(made, many(60)).values()) == {"exact"}
    assert not made.failed_environments()
    made = begin(Cluster(builds_nothing={"a", "b"}))
    assert set(verdicts(made, many(20)).values()) == {"env-failed"}
    assert made.failed_environments()


def test_a_silent_new_node_keeps_nobody_waiting(begin: Begin) -> None:
    cluster = Cluster({"a": 1})
    made = begin(cluster)
    gate = threading.Event()
    cluster.waits = gate
    cluster.there["silent"] = 1
    until(lambda: cluster.asked == 2)
    assert set(verdicts(made, many(40)).values()) == {"exact"}
    gate.set()


def test_an_environment_that_cannot_be_described_fails_its_cells_only(begin: Begin) -> None:
    made = begin(Cluster())
    found = verdicts(made, [planned("good"), planned("bad", loader="broken")])
    assert found == {"good": "exact", "bad": "env-failed"}
    assert [one.spec for one in made.failed_environments()] == ["broken"]


def test_a_cancelled_session_reports_nothing_and_stops_the_nodes(begin: Begin) -> None:
    cluster = Cluster(hangs={"s000"})
    made = begin(cluster)
    made.start(many(8))
    until(lambda: cluster.running)
    waiter = threading.Thread(target=made.cancel)
    waiter.start()
    with pytest.raises(CancelledError):
        made.result(planned("s000", "v0"))
    waiter.join()
    made.close()
    assert cluster.running[0].cancelled
    assert cluster.closed
    assert not finished


def test_a_mistake_of_ours_costs_a_batch_and_hangs_nothing(begin: Begin) -> None:
    cluster = Cluster()
    made = begin(cluster)
    cluster.fails = dict.fromkeys("ab", ValueError("a mistake"))  # type: ignore[arg-type]
    assert set(verdicts(made, many(5)).values()) == {"not-comparable"}
    assert "a mistake" in finished[0].reason


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
