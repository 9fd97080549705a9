"""A batch that a node checks gives the cells of a local session, whatever the node has on its disk."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.core.run import Cell
from harness.envs import source_tree
from harness.runner import CheckRequest, check, planned
from harness.runner.cluster import node
from harness.runner.cluster.batch import Batch, Done
from harness.runner.cluster.contents import FOLDER, Contents
from harness.runner.cluster.packing import Packing
from harness.runner.how import How
from harness.runner.request import Places
from tests.end_to_end.test_against import checkout, git
from tests.end_to_end.test_environments import named
from tests.support.mini.world import HANDLER, World, scenario

__all__ = ["named"]
Told = list[dict[str, Any]]


def told(cells: Any) -> Told:
    """Cells without when and how long they were computed."""
    own = {"remembered", "duration_s", "compute_s", "probes"}
    return sorted((cell.model_dump(exclude=own) for cell in cells), key=lambda cell: str(cell["id"]))


def request(world: World, *loaders: str, **more: Any) -> CheckRequest:
    places = Places(world.matrices, world.fixtures, world.reports)
    return CheckRequest(
        loaders=loaders or ("current",), places=places, worker_handler=HANDLER, **{"creators": ("v1",)} | more
    )


class Node:
    """A node with a cache of its own, which gets pickled batches."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = cache
        self._monkeypatch = monkeypatch
        self.sent: list[str] = []

    def run(self, packing: Packing, batch: Batch, **more: Any) -> Done:
        """Send what is missing, and run the batch."""
        with self._monkeypatch.context() as here:
            here.setenv("PEFT_REGRESS_CACHE", str(self.cache))
            sent: Batch = pickle.loads(pickle.dumps(batch))
            missing = node.missing(sent.contents)
            self.sent += missing
            node.take({sha256: packing.read(sha256) for sha256 in missing})
            done: Done = pickle.loads(pickle.dumps(node.run(sent, 2, **more)))
            return done

    def take(self, *contents: bytes) -> None:
        """Send files before a batch needs them."""
        Contents(self.cache / FOLDER).add({hashlib.sha256(data).hexdigest(): data for data in contents})


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path / "other", monkeypatch)


@pytest.fixture
def world(named: World) -> World:
    assert named.run("create", "v1").code == 0
    return named


def packed(asked: CheckRequest, **how: Any) -> tuple[Packing, Batch]:
    environments = asked.places.environments()
    options = f" --matrices {asked.places.matrices} --fixtures {asked.places.fixtures}"
    packing = Packing(environments, asked.places.store(), How(handler=HANDLER, options=options, **how))
    return packing, packing.batch(planned(asked, environments))


def test_a_batch_gives_the_cells_of_a_local_check(world: World, other: Node) -> None:
    asked = request(world)
    packing, batch = packed(asked)
    finished: list[Cell] = []
    done = other.run(packing, batch, on_cell=finished.append)
    assert told(done.cells) == told(check(asked).cells)
    assert sorted(cell.id for cell in finished) == sorted(cell.id for cell in done.cells)
    assert any(cell.verdict.is_deviation for cell in done.cells), "the comparison means something"
    assert [one.name for one in done.environments] == ["current", "v1"]
    assert next(one for one in done.environments if one.name == "current").versions["minipeft"] == "2.1"
    sent = list(other.sent)
    other.run(packing, batch)
    assert other.sent == sent, "a node keeps what it was sent"


def test_what_one_machine_remembers_no_other_one_computes(
    world: World, other: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(world)
    packing, batch = packed(asked)
    assert not batch.remembered.entries
    done = other.run(packing, batch)
    assert len(done.remembered.entries) == len([cell for cell in done.cells if cell.fixture])
    packing.keep(done)
    computed = len(world.traced("replay"))
    assert {bool(cell.remembered) for cell in check(replace(asked, audit=0)).cells if cell.fixture} == {True}, "built?"
    again, sent = packed(asked)
    assert len(sent.remembered.entries) == len(done.remembered.entries)
    third = Node(tmp_path / "third", monkeypatch).run(again, sent)
    assert len(world.traced("replay")) == computed, "neither here nor on a third machine"
    assert told(third.cells) == told(done.cells)
    assert not third.remembered.entries, "nothing that the controller does not have"


def test_only_what_the_cells_need_is_sent(world: World) -> None:
    asked = request(world)
    _, every = packed(asked)
    one = f"{planned(asked)[0].id}"
    _, few = packed(request(world, cells=(one,)))
    assert set(few.contents) < set(every.contents)
    assert "v1.jsonl" in few.fixtures


def test_a_damaged_and_a_missing_blob_are_told_as_here(world: World, other: Node) -> None:
    blobs = sorted(path for path in (world.fixtures / "blobs").rglob("*") if path.is_file())
    for path in blobs[::2]:
        path.write_bytes(b"x" + path.read_bytes()[1:])
    for path in blobs[1::2]:
        path.unlink()
    asked = request(world)
    done = other.run(*packed(asked))
    assert "bad-fixture" in {cell.verdict for cell in done.cells}
    assert told(done.cells) == told(check(asked).cells)


@pytest.mark.parametrize("in_git", [True, False])
def test_a_checkout_travels_by_content(world: World, other: Node, in_git: bool) -> None:
    tree = checkout(world, "2.1")
    if in_git:  # a file in a folder that is left out where git does not know it, a link, and a program
        (tree / "build").mkdir()
        (tree / "build" / "tracked.txt").write_text("x")
        (tree / "link").symlink_to("pyproject.toml")
        (tree / "program").write_text("x")
        (tree / "program").chmod(0o755)
        git(tree, "init", "-q")
        git(tree, "add", "-A", "-f")
    asked = request(world, str(tree))
    packing, batch = packed(asked)
    here = told(check(asked).cells)
    (sha256,) = batch.trees.values()
    sent = packing.read(sha256)
    shutil.rmtree(tree)
    other.take(sent)
    done = other.run(packing, batch)
    assert told(done.cells) == here
    assert {cell.loader for cell in done.cells} == {batch.environments[str(tree)].name}
    assert any(cell.verdict.is_deviation for cell in done.cells)


def test_a_tree_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    for entry in (tarfile.TarInfo("../outside"), tarfile.TarInfo("/outside"), tarfile.TarInfo("a/../../outside")):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            tar.addfile(entry)
        with pytest.raises(ValueError, match="leads out of the tree"):
            source_tree.unpack(data.getvalue(), tmp_path / "tree")
    assert not list(tmp_path.rglob("outside"))


def test_a_checkout_that_changes_is_not_sent(world: World) -> None:
    tree = checkout(world)
    packing, batch = packed(request(world, str(tree)))
    (tree / "more.py").write_text("x = 1")
    with pytest.raises(HarnessError, match="changed during the run"):
        packing.read(next(iter(batch.trees.values())))


def test_an_interpreter_of_this_machine_is_refused(world: World) -> None:
    asked = request(world, world.spec("2.0"))
    with pytest.raises(UsageError, match="cannot use an interpreter of this machine"):
        packed(asked)


def test_fixtures_can_be_made_on_the_node(world: World, other: Node) -> None:
    asked = request(world, creators=("v1",), pair=True)
    packing, batch = packed(asked, creating=True, forward=True)
    assert not batch.fixtures
    done = other.run(packing, batch)
    assert told(done.cells) == told(check(asked).cells)
    assert {cell.fixture_origin for cell in done.cells if cell.fixture} == {"created"}


def test_a_batch_that_is_not_wanted_any_more_ends(world: World, other: Node) -> None:
    world.scenarios(scenario("waits", fault="wait"))
    assert world.run("create", "v1", "-k", "waits").code == 0
    asked = request(world)
    packing, batch = packed(asked)
    wanted = threading.Event()
    threading.Timer(4, wanted.set).start()
    with pytest.raises(node.Stopped):
        other.run(packing, batch, wanted=lambda: not wanted.is_set())


def test_a_content_that_arrives_damaged_is_refused_and_one_that_is_damaged_later_is_deleted(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    sha256 = hashlib.sha256(b"right").hexdigest()
    with pytest.raises(HarnessError, match=f"SHA-256 {sha256}"):
        contents.add({sha256: b"wrong"})
    assert contents.missing([sha256]) == [sha256]
    contents.add({sha256: b"right"})
    assert contents.missing([sha256]) == []
    contents.path(sha256).write_bytes(b"later")
    with pytest.raises(HarnessError, match="SHA-256"):
        contents.lay_out({"file": sha256}, tmp_path / "out")
    assert contents.missing([sha256]) == [sha256]


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    contents = Contents(tmp_path, limit=300)
    names = []
    for number in range(4):
        data = bytes([number]) * 90
        names.append(hashlib.sha256(data).hexdigest())
        contents.add({names[-1]: data})
        os.utime(contents.path(names[-1]), (number, number))
        contents.missing(names[:1])  # used now
    assert contents.missing(names) == names[1:2] or contents.missing(names) == names[1:3]
