"""A check on two nodes, started by Dask's own commands, gives the report of a check here: also if one is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_against import checkout
from tests.end_to_end.test_environments import figures, named
from tests.support.mini.world import World, ended, gone, interrupt, scenario, until

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

__all__ = ["named"]
_WAIT_S = 60.0


class Cluster:
    """A scheduler and its nodes, as processes."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.scheduler = self._started("scheduler", "scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    @property
    def address(self) -> str:
        """What --cluster takes."""
        return f"dask://127.0.0.1:{self.port}"

    def node(self, name: str) -> None:
        """Start a node, with a cache of its own."""
        self.nodes[name] = self._started(
            name, "worker", f"tcp://127.0.0.1:{self.port}", "--no-nanny", "--nthreads", "2", "--name", name,
            "--local-directory", str(self._folder / name),
        )  # fmt: skip

    def ready(self) -> None:
        """Wait until the nodes that were started are there."""
        said = self._folder / "scheduler.log"
        end = time.monotonic() + _WAIT_S
        while said.read_text().count("Register worker") < len(self.nodes):
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.05)

    def at(self, pid: int) -> str:
        """The node that a process belongs to."""
        numbers = {process.pid: name for name, process in self.nodes.items()}
        while pid > 1:
            if pid in numbers:
                return numbers[pid]
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        raise LookupError("it is of no node")

    def kill(self, name: str) -> None:
        """End a node at once."""
        process = self.nodes.pop(name)
        process.kill()
        process.wait()

    def end(self) -> None:
        """End all of it."""
        for process in (*self.nodes.values(), self.scheduler):
            process.kill()
            process.wait()

    def _started(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        environ = self._world.environ() | {"PEFT_REGRESS_CACHE": str(self._folder / f"cache-{name}")}
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--no-dashboard"], env=environ, cwd=self._folder, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip


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
        (tmp_path / "cluster").mkdir()
        started.append(Cluster(world, tmp_path / "cluster"))
        for name in ("one", "two"):
            started[-1].node(name)
        return started[-1]

    yield one
    for cluster in started:
        cluster.end()


def told(world: World) -> dict[str, Any]:
    """The newest report, without times, names of folders and what a second run remembers."""
    own = {"id", "created", "command", "timings", "notices", "duration_s"}
    found = figures(world.report().model_dump(mode="json", exclude=own))
    found["cells"] = sorted(
        ({key: value for key, value in cell.items() if key not in ("remembered", "probes")} for cell in found["cells"]),
        key=lambda cell: str(cell["id"]),
    )
    assert isinstance(found, dict)
    return found


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
    here = told(world)
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
    assert told(world) == here

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
    assert told(world) == here


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
        here.append(told(named))
    monkeypatch.setenv("PEFT_REGRESS_CACHE", str(tmp_path / "a cache that remembers nothing"))
    cluster = cluster_of(named)
    cluster.ready()
    for words, found in zip((change, pair), here, strict=True):
        said = named.spawn(*words, "--cluster", cluster.address)
        assert said.code == 1, said
        assert told(named) == found
