"""Fixtures of a sound release under all others: each break has its verdict, its exit code and its words."""

from __future__ import annotations

import errno
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from harness.core.run import Cell, Run
from tests.support.mini.releases import FOR_ONE_TEST, RELEASES
from tests.support.mini.world import REPOSITORY, Said, World, main, scenario

Key = tuple[str, str]

TRIED = tuple(release for release in RELEASES if release not in FOR_ONE_TEST)


@pytest.fixture(scope="module")
def said_of_all(tmp_path_factory: pytest.TempPathFactory, created: Path, loaders: Path) -> tuple[Said, World]:
    """The fixtures of 1.0 under every release, in one run."""
    world = World(tmp_path_factory.mktemp("all"), loaders)
    (world.root / "matrices").symlink_to(created.parent / "matrices")
    world.fixtures.symlink_to(created)
    options = [f"--loader={world.spec(release)}" for release in TRIED]
    return world.run("check", "-v", *options), world


@pytest.fixture(scope="module")
def run_of_all(said_of_all: tuple[Said, World]) -> Run:
    """Its report."""
    return said_of_all[1].report()


@pytest.fixture(scope="module")
def cells(said_of_all: tuple[Said, World], run_of_all: Run) -> Mapping[Key, Cell]:
    """Scenario and release of the loader → cell."""
    releases = {said_of_all[1].name(release): release for release in TRIED}
    return {(cell.scenario, releases[cell.loader]): cell for cell in run_of_all.cells}


VERDICTS = [
    # release, verdict of two-layers, of one-layer, what a finding of two-layers says
    ("1.0", "exact", "exact", ""),
    ("1.1", "exact", "exact", ""),
    ("2.0", "exact", "exact", ""),
    ("2.0.1", "close", "close", ""),
    ("2.1", "silent-wrong", "exact", "the adapter's own effect differs in 2 layers"),
    ("2.2", "silent-wrong", "exact", "2 of 4 tensors of the checkpoint are nowhere in the loaded model"),
    ("2.3", "contract", "contract", "entries of the config differ"),
    ("2.4", "load-error", "load-error", "KeyError"),
    ("2.5", "warned", "warned", "this adapter is of an old kind"),
    ("2.6", "base-moved", "base-moved", "the adapter's effect agrees"),
    ("2.7", "run-error", "run-error", "merged raised RuntimeError: no merging"),
    ("2.8", "env-failed", "env-failed", ""),
    ("3.0", "exact", "exact", ""),
]


@pytest.mark.parametrize(("release", "two", "one", "said"), VERDICTS, ids=[row[0] for row in VERDICTS])
def test_the_verdict_of_each_release(cells: Mapping[Key, Cell], release: str, two: str, one: str, said: str) -> None:
    assert (cells["two-layers", release].verdict, cells["one-layer", release].verdict) == (two, one)
    assert cells["later", release].verdict == "unsupported"
    assert cells["later", release].reason == "creator: needs minipeft>=2.0, has minipeft 1.0"
    assert any(said in finding.message for finding in cells["two-layers", release].findings) or not said


def test_the_list_of_breaks_is_whole() -> None:
    assert [row[0] for row in VERDICTS] == list(TRIED)


def test_a_break_is_reported_with_size_place_and_allowance(cells: Mapping[Key, Cell]) -> None:
    cell = cells["two-layers", "2.1"]
    (output,) = (f.figures for f in cell.findings if f.probe == "forward")
    assert output is not None
    assert (output.array, output.elements, output.differing) == ("forward/float32/output", 12, 12)
    assert output.max_abs > 1e4 * output.allowance > 0
    assert len(output.index) == 2
    assert output.golden is not None
    assert output.now is not None
    assert abs(output.now - output.golden) == pytest.approx(output.max_abs)
    assert cell.first_difference == "layer1"
    assert cell.adapter_delta is not None
    assert cell.adapter_delta > 0.01
    assert cell.base_delta == 0.0
    assert [row.name for row in cell.layers] == ["layer1", "layer2", "layer3"]


def test_lost_tensors_are_named(cells: Mapping[Key, Cell]) -> None:
    keys = cells["two-layers", "2.2"].keys
    assert keys is not None
    assert (keys.total, keys.arrived) == (4, 2)
    assert keys.lost == ("layer3.low_rank_A", "layer3.low_rank_B")


def test_a_moved_base_is_no_moved_adapter(cells: Mapping[Key, Cell]) -> None:
    cell = cells["two-layers", "2.6"]
    assert cell.adapter_delta == 0.0
    assert cell.base_delta is not None
    assert cell.base_delta > 1e-5


def test_a_probe_that_raises_hides_no_other(cells: Mapping[Key, Cell]) -> None:
    probes = cells["two-layers", "2.7"].probes
    assert {name: probe.verdict for name, probe in probes.items()} == {
        "merged": "run-error",
        **dict.fromkeys(["forward", "layers", "base", "accounting", "structure", "roundtrip"], "exact"),
    }


def test_a_load_error_has_stage_type_and_traceback(cells: Mapping[Key, Cell]) -> None:
    error = cells["two-layers", "2.4"].error
    assert error is not None
    assert (error.stage, error.type) == ("adapter", "KeyError")
    assert "load_adapter" in error.traceback


def test_an_environment_that_does_not_import_says_its_last_words(cells: Mapping[Key, Cell], run_of_all: Run) -> None:
    cell = cells["two-layers", "2.8"]
    assert "the environment does not import: ImportError: libfrobnicate.so.3: no such file" in cell.reason
    assert "\n" not in cell.reason
    assert "Traceback" in cell.log_tail
    (failed,) = (one for one in run_of_all.environments if one.failed)
    assert failed.name == cell.loader
    assert "libfrobnicate" in failed.failed


def test_the_report_holds_all_that_a_reader_needs(said_of_all: tuple[Said, World]) -> None:
    said, world = said_of_all
    assert said.code == 1
    data = json.loads((world.folder() / "report.json").read_text())
    jsonschema.validate(data, json.loads((REPOSITORY / "docs" / "report.schema.json").read_text()))
    needed = {
        "id",
        "scenario",
        "creator",
        "loader",
        "device",
        "verdict",
        "expected",
        "probes",
        "findings",
        "duration_s",
    }
    assert all(needed <= cell.keys() for cell in data["cells"])
    assert data["cells"][0]["id"] == world.id("two-layers", "1.0")
    assert {"environments", "plan", "counts", "exit_code"} <= data.keys()
    assert data["counts"]["planned"] == len(data["plan"]) == len(data["cells"]) == 39
    assert data["exit_code"] == 1
    assert {probe["verdict"] for probe in data["cells"][0]["probes"].values()} == {"exact"}
    assert all(cell["duration_s"] > 0 for cell in data["cells"])


def test_environments_name_every_package_and_what_numbers_hang_on(
    run_of_all: Run, said_of_all: tuple[Said, World]
) -> None:
    found = {one.name: one for one in run_of_all.environments}
    world = said_of_all[1]
    creator, loader = found[world.name("1.0")], found[world.name("2.1")]
    assert creator.role == ("creator", "loader")
    assert loader.role == ("loader",)
    assert loader.versions["minipeft"] == "2.1"
    assert {"numpy", "safetensors"} <= loader.versions.keys()
    assert loader.facts["pins"]["OMP_NUM_THREADS"] == "1"
    assert loader.facts["pins"]["PYTHONHASHSEED"] == "0"
    assert "executable" not in str(loader.facts), "no path of this machine gets into a report"


def test_the_other_formats_say_the_same(said_of_all: tuple[Said, World], run_of_all: Run) -> None:
    said, world = said_of_all
    assert "REGRESSED:" in "".join(said.out.splitlines()[-6:])
    assert "REGRESSED" in (world.folder() / "report.md").read_text()
    root = ElementTree.parse(world.folder() / "junit.xml").getroot()
    names = {case.get("name") for case in root.iter("testcase")}
    assert {cell.id for cell in run_of_all.cells} <= names
    assert int(root.get("failures", "0")) == len(run_of_all.deviations)


def test_a_line_that_reproduces_does_reproduce(cells: Mapping[Key, Cell], said_of_all: tuple[Said, World]) -> None:
    world = said_of_all[1]
    words = shlex.split(cells["two-layers", "2.1"].reproduce)
    assert words[:2] == ["peft-regress", "check"]
    reports = world.root / "again"
    said = main(*words[1:], f"--reports={reports}", *[w for w in world.where("check") if "handler" in w])
    assert said.code == 1, said
    (folder,) = reports.iterdir()
    (cell,) = json.loads((folder / "report.json").read_text())["cells"]
    assert (cell["id"], cell["verdict"]) == (cells["two-layers", "2.1"].id, "silent-wrong")


def test_sound_releases_are_clean_from_the_command_line(mini: World) -> None:
    said = mini.spawn("check", "--loader", mini.spec("2.0"), "--loader", mini.spec("2.0.1"))
    assert said.code == 0, said
    scope = f"4 cells from {mini.name('1.0')} under {mini.name('2.0')} and {mini.name('2.0.1')}"
    assert said.line.endswith(f" CLEAN: 4 load and compute the same (2 exact, 2 close). {scope}. 2 unsupported.")
    assert f"report: {mini.folder()}" in said.err
    assert "replayed 6 of 6 cells, 0 deviate" in said.err
    assert {"report.json", "report.md", "junit.xml", "cells.jsonl"} <= {path.name for path in mini.folder().iterdir()}
    assert mini.report().command.startswith("peft-regress check --matrices=")


def test_quiet_says_the_sentence_alone(mini: World) -> None:
    said = mini.run("check", "--loader", mini.spec("2.0"), "-q")
    assert said.out.startswith("CLEAN: ")
    assert said.err == ""


def test_json_is_the_report(mini: World) -> None:
    said = mini.run("check", "--loader", mini.spec("2.0"), "--json")
    assert json.loads(said.out) == json.loads((mini.folder() / "report.json").read_text())


def test_markdown_can_be_pasted(mini: World) -> None:
    said = mini.run("check", "--loader", mini.spec("2.1"), "--format", "markdown")
    assert said.code == 1
    assert "REGRESSED" in said.out.splitlines()[0]


EXPECTATIONS = [
    # loader, what is stated besides, exit code, what is said
    ("2.1", {}, 0, "1 known break"),
    ("2.1", {"kinds": ["lost-tensors"]}, 1, "a known break, but not as known: 1 cell deviates"),
    ("2.1", {"expires": "2020-01-01"}, 1, "expired on 2020-01-01"),
    ("2.0", {"loaders": "minipeft>=2.0"}, 1, "no longer deviates"),
    ("2.8", {"loaders": "minipeft>=2.0"}, 2, "COULD NOT TELL"),
]


@pytest.mark.parametrize(("release", "stated", "code", "words"), EXPECTATIONS)
def test_expectations(mini: World, release: str, stated: dict[str, object], code: int, words: str) -> None:
    mini.expect(**stated)
    said = mini.run("check", "--loader", mini.spec(release))
    assert said.code == code, said
    assert words in said.line


def test_a_new_warning_fails_a_strict_run(mini: World) -> None:
    assert mini.run("check", "--loader", mini.spec("2.5"), "-k", "one-layer").code == 0
    assert mini.run("check", "--loader", mini.spec("2.5"), "-k", "one-layer", "--strict").code == 1


NOTHING = [
    # options, exit code, what is said
    (["-k", "later"], 2, "COULD NOT TELL: nothing was compared"),
    (["-k", "no-such-scenario"], 64, "no scenario matches -k 'no-such-scenario'"),
    (["--cell", "no-such-cell"], 64, "no cell matches --cell 'no-such-cell'"),
    (["--family", "no-such-family"], 64, "no scenario of family"),
    (["--creator", "nobody"], 64, "no creator 'nobody'"),
    (["--device", "cuda", "-k", "one-layer"], 2, "no-device"),
]


@pytest.mark.parametrize(("options", "code", "words"), NOTHING, ids=[" ".join(row[0]) for row in NOTHING])
def test_never_0_where_nothing_was_compared(mini: World, options: list[str], code: int, words: str) -> None:
    said = mini.run("check", "--loader", mini.spec("2.0"), *options)
    assert said.code == code, said
    assert words in said.out + said.err


def test_no_fixture_at_all(empty: World) -> None:
    said = empty.run("check", "--loader", empty.spec("2.0"))
    assert said.code == 64
    assert "there are no fixtures" in said.err


def test_another_run_of_the_same_scenarios_is_another_run(mini: World) -> None:
    for _ in range(2):
        assert mini.run("check", "--loader", mini.spec("2.0")).code == 0
    assert len(list(mini.reports.iterdir())) == 2


def test_two_replays_that_disagree_are_unstable_not_wrong(mini: World) -> None:
    mini.scenarios(scenario("shaky", fault="flaky"))
    assert mini.run("create", mini.spec("1.0"), "-k", "shaky").code == 0
    said = mini.run("check", "--loader", mini.spec("2.0"), "-k", "shaky or one-layer")
    assert said.code == 2, said
    assert mini.verdicts() == {"one-layer": "exact", "shaky": "unstable"}
    assert any("two replays disagree" in note for note in mini.cell("shaky").notes)


@pytest.mark.parametrize(
    ("error", "code"), [(MemoryError(), 2), (OSError(errno.EMFILE, "Too many files"), 2), (KeyError("x"), 70)]
)
def test_an_error_outside_of_any_cell_is_said_and_is_no_interruption(
    mini: World, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("harness.runner.shared_replay.SharedReplays.arrange", refuse)
    said = mini.run("check", "--loader", mini.spec("2.0"))
    assert said.code == code, said
    assert "peft-regress: " in said.err
    assert "next: " in said.err
