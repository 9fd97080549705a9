"""Load paths from the scenario file to every report: sound, broken, raising, and not available."""

from __future__ import annotations

import pytest

from tests.support.mini.world import World, main, scenario

MANY_PATHS = scenario("many-paths", load_paths=["low-cpu-mem", "hotswap"])


@pytest.fixture
def pathed(mini: World) -> World:
    """A world with the fixture of a scenario that declares load paths."""
    mini.scenarios(MANY_PATHS)
    said = mini.run("create", mini.spec("1.0"), "-k", "many-paths")
    assert said.code == 0, said
    return mini


def check(world: World, release: str) -> str:
    """What is printed of the scenario under a release."""
    return world.run("check", "--loader", world.spec(release), "-k", "many-paths").line


def test_a_sound_loader_is_as_exact_as_without_load_paths(pathed: World) -> None:
    check(pathed, "2.0")
    cell = pathed.cell("many-paths")
    assert str(cell.verdict) == "exact"
    assert str(cell.probes["door.low-cpu-mem"].verdict) == "exact"
    assert (cell.probes["door.hotswap"].outcome, cell.probes["door.hotswap"].reason) == (
        "skipped",
        "minipeft has no hotswap",
    )


def test_a_scenario_without_load_paths_tries_none(pathed: World) -> None:
    pathed.run("check", "--loader", pathed.spec("2.9"), "-k", "two-layers")
    assert not [probe for probe in pathed.cell("two-layers").probes if probe.startswith("door.")]
    assert str(pathed.cell("two-layers").verdict) == "exact"


def test_a_broken_load_path_is_in_every_report(pathed: World) -> None:
    told = check(pathed, "2.9")
    cell = pathed.cell("many-paths")
    assert str(cell.verdict) == "silent-wrong"
    assert str(cell.probes["forward"].verdict) == "exact"
    assert {(f.probe, f.kind) for f in cell.findings} == {
        ("door.low-cpu-mem", "low-cpu-mem-differs"),
        ("door.low-cpu-mem", "low-cpu-mem-lost-tensors"),
    }
    words = "by the load path low-cpu-mem (PeftModel.from_pretrained with low_cpu_mem_usage)"
    assert words in told
    assert words in main("show", "many-paths", str(pathed.folder())).line
    folder = pathed.folder()
    for name in ("report.md", "report.html", "junit.xml"):
        assert "the load path low-cpu-mem" in (folder / name).read_text(encoding="utf-8"), name


def test_a_load_path_that_does_not_open_is_a_run_error(pathed: World) -> None:
    told = check(pathed, "2.10")
    assert str(pathed.cell("many-paths").verdict) == "run-error"
    assert "MemoryError: too sparing" in told
    assert "door.low-cpu-mem" in told


def test_an_expectation_of_one_load_path_does_not_hide_another(pathed: World) -> None:
    pathed.expect(scenarios=["many-paths"], loaders="minipeft==2.9", kinds=["low-cpu-mem-differs"])
    told = pathed.run("check", "--loader", pathed.spec("2.9"), "-k", "many-paths")
    assert told.code == 1
    assert not pathed.cell("many-paths").expected


def test_a_slip_in_the_file_is_told_with_what_may_stand_there(mini: World) -> None:
    mini.scenarios(scenario("slip", load_paths=["low-cpu"]))
    said = mini.run("check", "--loader", mini.spec("2.0"))
    assert said.code == 64
    assert "no such load path: low-cpu; load paths are auto, transformers" in said.err + said.out
