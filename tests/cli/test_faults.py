"""What a cell does to its process, and what somebody did to a fixture, costs that cell and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core import matrix
from harness.core.run import Cell, Run
from harness.store.blobs import Blobs, content
from harness.store.manifest import StoredFile
from tests.support import manifests
from tests.support.mini.world import Said, World, filled, gone, scenario, until

FAULTS = [
    # fault, verdict, what the reason says, what the log says
    ("sigkill", "crash", "SIGKILL", ""),
    ("sigsegv", "crash", "SIGSEGV", "Segmentation fault"),
    ("exit0", "crash", "exit code 0 before its work was done", ""),
    ("loop", "timeout", "killed at 2 s", "in _loop"),
    ("kill-parent", "crash", "SIGKILL", ""),
    ("forge", "crash", "a line that is no reply", ""),
    ("raise", "not-comparable", "a mistake of the harness", ""),
    ("nan", "silent-wrong", "", ""),
    ("inf", "silent-wrong", "", ""),
    ("chatter", "exact", "", ""),
    ("garbage", "exact", "", ""),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> Run:
    """One run of cells of which each does something bad, with two sound ones among them."""
    world = filled(tmp_path_factory.mktemp("faults"), created, loaders)
    world.scenarios(*(scenario(fault, fault=fault) for fault, *_ in FAULTS), file="faults")
    assert world.run("create", world.spec("1.0"), "--family", "faults").code == 0
    said = world.run("check", "--loader", world.spec("2.0"), "--time-limit", "2", "--jobs", "2")
    assert said.code == 1, said
    return world.report()


def cell(run: Run, name: str) -> Cell:
    (found,) = (cell for cell in run.cells if cell.scenario == name)
    return found


@pytest.mark.parametrize(("fault", "verdict", "said", "log"), FAULTS, ids=[row[0] for row in FAULTS])
def test_a_fault_costs_its_own_cell(run: Run, fault: str, verdict: str, said: str, log: str) -> None:
    found = cell(run, fault)
    assert found.verdict == verdict, found
    assert said in found.reason
    assert log in found.log_tail


def test_all_others_are_judged(run: Run) -> None:
    assert cell(run, "two-layers").verdict == cell(run, "one-layer").verdict == "exact"
    assert not run.not_run
    assert not run.interrupted


def test_numbers_that_are_not_finite_are_infinitely_far(run: Run) -> None:
    for fault in ("nan", "inf"):
        assert any(f.figures is not None and f.figures.max_abs == float("inf") for f in cell(run, fault).findings)


def test_who_was_run_twice_says_so(run: Run) -> None:
    noted = [c.scenario for c in run.cells if any("run twice" in note for note in c.notes)]
    assert {"kill-parent", "forge"} & set(noted) or not noted  # with nothing beside it there is nobody to suspect


# -- damaged fixtures --------------------------------------------------------------------------------------------------


def blob(world: World, name: str, file: str) -> Path:
    """The blob of one of the fixture's files."""
    data = manifests.read(world.fixtures, world.name("1.0"), name)
    files = {**data["files"], **{f"golden/{part}": stored for part, stored in data["goldens"]["cpu"].items()}}
    sha256: str = files[file]["sha256"]
    return Blobs(world.fixtures / "blobs").path(sha256)


def truncated(world: World, name: str) -> None:
    path = blob(world, name, "golden/arrays.safetensors")
    path.write_bytes(path.read_bytes()[:-10])


def altered(world: World, name: str) -> None:
    path = blob(world, name, "adapter/adapter_model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def blob_missing(world: World, name: str) -> None:
    blob(world, name, "golden/observation.json").unlink()


def manifest_missing(world: World, name: str) -> None:
    manifests.remove(world.fixtures, world.name("1.0"), name)


def manifest_broken(world: World, name: str) -> None:
    manifests.damage(world.fixtures, world.name("1.0"), name, lambda line: line[:100])


def manifest_newer(world: World, name: str) -> None:
    data = manifests.read(world.fixtures, world.name("1.0"), name)
    manifests.write(world.fixtures, world.name("1.0"), name, {**data, "format": 99})


def scenario_changed(world: World, name: str) -> None:
    path = world.matrices / "scenarios" / "damaged.toml"
    before, mark, after = path.read_text().partition(f'name = "{name}"')
    path.write_text(before + mark + after.replace("alpha = 3.0", "alpha = 4.0", 1).replace('"r": 4', '"r": 4', 1))


def keys_unexpected(world: World, name: str) -> None:
    """As if a fixture had come into the store that does not hold what its own declaration expects."""
    path = world.matrices / "scenarios" / "damaged.toml"
    before, mark, after = path.read_text().partition(f'name = "{name}"')
    path.write_text(before + mark + after.replace("\n", '\nexpects = { keys = { "*_A" = 3, "*_B" = 2 } }\n', 1))
    data = manifests.read(world.fixtures, world.name("1.0"), name)
    shared = StoredFile(**data["shared"].pop("resolved"))
    resolved = json.loads(content(Blobs(world.fixtures / "blobs").path(shared.sha256), shared.size))
    resolved["expects"] = {"*_A": 3, "*_B": 2}
    digest = matrix.digest(resolved)
    changed = {**data, "resolved": resolved, "scenario_digest": digest}
    manifests.write(world.fixtures, world.name("1.0"), name, changed)


DAMAGES: list[tuple[Callable[[World, str], None], str, str]] = [
    (truncated, "bad-fixture", "truncated"),
    (altered, "bad-fixture", "altered"),
    (blob_missing, "bad-fixture", "no such file"),
    (manifest_missing, "no-fixture", "no scenario 'manifest-missing'"),
    (manifest_broken, "bad-fixture", "not a complete line of a fixture"),
    (manifest_newer, "bad-fixture", "format 99"),
    (scenario_changed, "bad-fixture", "the scenario's declaration changed after the fixture was made"),
    (keys_unexpected, "bad-fixture", "expected 3 keys like '*_A', found 2"),
]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> tuple[Said, Run]:
    """A run of fixtures each of which is damaged, and one that is not, where all of them would deviate."""
    world = filled(tmp_path_factory.mktemp("damaged"), created, loaders)
    names = [damage.__name__.replace("_", "-") for damage, *_ in DAMAGES]
    world.scenarios(*(scenario(name) for name in names), file="damaged")
    assert world.run("create", world.spec("1.0"), "--family", "damaged").code == 0
    for damage, *_ in DAMAGES:
        damage(world, damage.__name__.replace("_", "-"))
    said = world.run("check", "--loader", world.spec("2.1"), "-k", "damaged or one-layer")
    return said, world.report()


@pytest.mark.parametrize(("damage", "verdict", "said"), DAMAGES, ids=[row[0].__name__ for row in DAMAGES])
def test_a_damaged_fixture_is_never_compared(damaged: tuple[Said, Run], damage: Any, verdict: str, said: str) -> None:
    found = cell(damaged[1], damage.__name__.replace("_", "-"))
    assert found.verdict == verdict
    assert said in found.reason
    assert "expected: " in found.reason
    assert "next: " in found.reason
    assert not found.probes


def test_damaged_fixtures_do_not_affect_an_intact_one(damaged: tuple[Said, Run]) -> None:
    said, run = damaged
    assert cell(run, "one-layer").verdict == "exact"
    assert said.code == run.exit_code == 2
    assert "COULD NOT TELL: 8 could not be judged" in said.line


def test_verify_finds_the_damage_too(mini: World) -> None:
    assert mini.run("fixtures", "verify").code == 0
    altered(mini, "two-layers")
    said = mini.run("fixtures", "verify")
    assert said.code == 2
    assert "altered" in said.out


def test_nothing_is_left_running(mini: World) -> None:
    mini.run("check", "--loader", mini.spec("2.0"))
    assert mini.traced("start")
    assert all(gone(int(pid)) for pid in mini.traced("start"))
    until(lambda: not mini.processes(), f"still there: {mini.processes()}")
