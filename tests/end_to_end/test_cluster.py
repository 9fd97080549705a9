"""A check on two nodes, started by Dask's own commands, gives the report of a check here: also if one is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_against import checkout
from tests.end_to_end.test_environments import named
from tests.support.cluster import Cluster, told
from tests.support.mini.world import World, ended, gone, interrupt, scenario, until

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

__all__ = ["named"]


@pytest.fixture
def world(named: World) -> World:
    """A world with fixtures of `v1`, one of which waits for the gate when it is replayed."""
    named.scenarios(scenario("waits", fault="wait"), *(scenario(f"more-{number}") for number in range(20)))
    assert named.run("create", "v1").code == 0
    return named


@pytest.fixture
def cluster_of(tmp_path: Path) -> Iterator[Callable[[World], Cluster]]:
    """Starts a cluster of two nodes; ends it after the test."""
    started: list[Cluster] = []

    def one(world: World) -> Cluster:
        started.append(Cluster(world.environ(), tmp_path / "cluster"))
        for name in ("one", "two"):
            started[-1].node(name, "--no-nanny", PEFT_REGRESS_CACHE=str(tmp_path / f"cache-{name}"))
        return started[-1]

    yield one
    for cluster in started:
        cluster.end()


def replays(world: World) -> list[int]:
    """The processes that have begun to replay the cell that waits."""
    lines = world.trace.read_text().splitlines() if world.trace.exists() else []
    return [int(line.split()[-1]) for line in lines if line.startswith("replay waits ")]


def test_a_killed_node_an_interrupted_run_and_a_killed_scheduler(
    world: World, cluster_of: Callable[[World], Cluster]
) -> None:
    cluster = cluster_of(world)
    world.gate.touch()
    assert world.spawn("check").code == 1
    here = told(world.report())
    world.gate.unlink()
    before = len(replays(world))
    cluster.ready()

    run = world.start("check", "--cluster", cluster.address, "--fresh")
    until(lambda: len(replays(world)) > before)
    killed = cluster.at(replays(world)[-1])
    cluster.kill(killed)
    until(lambda: len(replays(world)) > before + 1, "its batch is given to the other node")
    assert cluster.at(replays(world)[-1]) != killed
    world.gate.touch()
    said = ended(run)
    assert said.code == 1, said
    assert "ended; its" in said.err
    assert told(world.report()) == here

    world.gate.unlink()
    before = len(replays(world))
    run = world.start("check", "--cluster", cluster.address, "--fresh")
    until(lambda: len(replays(world)) > before)
    assert interrupt(run).code == 130
    until(lambda: gone(replays(world)[-1]), "the node ends what nobody wants any more")
    assert world.report().interrupted

    before = len(replays(world))
    run = world.start("check", "--cluster", cluster.address, "--fresh")
    until(lambda: len(replays(world)) > before)
    os.kill(cluster.scheduler.pid, signal.SIGKILL)
    said = ended(run)
    assert said.code == 2, said
    assert "the connection to the scheduler is lost" in said.err
    assert "--resume" in said.err
    until(lambda: gone(replays(world)[-1]), "the node ends what nobody wants any more")
    world.gate.touch()
    assert world.spawn("check", "--resume").code == 1
    assert told(world.report()) == here


def test_a_change_and_new_fixtures_are_checked_on_nodes(
    named: World, cluster_of: Callable[[World], Cluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named.run("create", "v1").code == 0
    tree = checkout(named, "2.1")
    change: tuple[str, ...] = (
        "check",
        "--against",
        str(tree),
        "--baseline",
        "minipeft==2.0 over current",
        "--every-scenario",
    )
    pair: tuple[str, ...] = ("pair", "--creator", "v1", "--loader", "current")
    here = []
    for words in (change, pair):
        assert named.spawn(*words).code == 1
        here.append(told(named.report()))
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "a cache that remembers nothing"))
    cluster = cluster_of(named)
    cluster.ready()
    for words, found in zip((change, pair), here, strict=True):
        said = named.spawn(*words, "--cluster", cluster.address)
        assert said.code == 1, said
        assert told(named.report()) == found
