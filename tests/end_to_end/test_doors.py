"""Doors from the scenario file to every report: an open one, a broken one, one that does not open, one not there."""

from __future__ import annotations

import pytest

from tests.support.mini.world import World, main, scenario

DOORED = scenario("doored", load_paths=["low-cpu-mem", "hotswap"])


@pytest.fixture
def doored(mini: World) -> World:
    """A world with the fixture of a scenario that declares doors."""
    mini.scenarios(DOORED)
    said = mini.run("create", mini.spec("1.0"), "-k", "doored")
    assert said.code == 0, said
    return mini


def check(world: World, release: str) -> str:
    """What is printed of the scenario under a release."""
    return world.run("check", "--loader", world.spec(release), "-k", "doored").line


def test_a_sound_loader_is_as_exact_as_without_doors(doored: World) -> None:
    check(doored, "2.0")
    cell = doored.cell("doored")
    assert str(cell.verdict) == "exact"
    assert str(cell.probes["door.low-cpu-mem"].verdict) == "exact"
    assert (cell.probes["door.hotswap"].outcome, cell.probes["door.hotswap"].reason) == (
        "skipped",
        "minipeft has no hotswap",
    )


def test_a_scenario_without_doors_tries_none(doored: World) -> None:
    doored.run("check", "--loader", doored.spec("2.9"), "-k", "two-layers")
    assert not [probe for probe in doored.cell("two-layers").probes if probe.startswith("door.")]
    assert str(doored.cell("two-layers").verdict) == "exact"


def test_a_broken_door_is_in_every_report(doored: World) -> None:
    told = check(doored, "2.9")
    cell = doored.cell("doored")
    assert str(cell.verdict) == "silent-wrong"
    assert str(cell.probes["forward"].verdict) == "exact"
    assert {(f.probe, f.kind) for f in cell.findings} == {
        ("door.low-cpu-mem", "low-cpu-mem-differs"),
        ("door.low-cpu-mem", "low-cpu-mem-lost-tensors"),
    }
    words = "by the load path low-cpu-mem (PeftModel.from_pretrained with low_cpu_mem_usage)"
    assert words in told
    assert words in main("show", "doored", str(doored.folder())).line
    folder = doored.folder()
    for name in ("report.md", "report.html", "junit.xml"):
        assert "the load path low-cpu-mem" in (folder / name).read_text(encoding="utf-8"), name


def test_a_door_that_does_not_open_is_a_run_error(doored: World) -> None:
    told = check(doored, "2.10")
    assert str(doored.cell("doored").verdict) == "run-error"
    assert "MemoryError: too sparing" in told
    assert "door.low-cpu-mem" in told


def test_an_expectation_of_one_door_does_not_hide_another(doored: World) -> None:
    doored.expect(scenarios=["doored"], loaders="minipeft==2.9", kinds=["low-cpu-mem-differs"])
    told = doored.run("check", "--loader", doored.spec("2.9"), "-k", "doored")
    assert told.code == 1
    assert not doored.cell("doored").expected


def test_a_slip_in_the_file_is_told_with_what_may_stand_there(mini: World) -> None:
    mini.scenarios(scenario("slip", load_paths=["low-cpu"]))
    said = mini.run("check", "--loader", mini.spec("2.0"))
    assert said.code == 64
    assert "no such load path: low-cpu; load paths are auto, transformers" in said.err + said.out
