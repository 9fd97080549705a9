"""Settings on the whole road: ids, reports, resuming, baselines, expectations, and the line that reproduces a cell."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support.mini.world import World

NARROW = ("--dtype", "bfloat16", "-k", "two-layers")


def test_settings_are_in_the_cells_id_and_in_every_report(mini: World) -> None:
    said = mini.run("check", "--loader", mini.spec("2.0"), *NARROW)

    cell = mini.cell("two-layers")
    assert (said.code, str(cell.verdict), cell.settings, cell.device) == (0, "close", "bfloat16", "cpu")
    assert cell.id.endswith("[cpu+bfloat16]")
    assert "cpu+bfloat16" in said.line
    words = shlex.split(cell.reproduce)
    assert words[words.index("--dtype") + 1] == "bfloat16"
    for name in ("report.html", "report.md", "junit.xml"):
        found = [path for path in mini.folder().rglob("*") if path.name == name]
        assert not found or "bfloat16" in found[0].read_text(encoding="utf-8"), name


def test_the_line_that_reproduces_a_cell_does(mini: World) -> None:
    mini.run("check", "--loader", mini.spec("2.0"), *NARROW)
    first = mini.cell("two-layers")
    words = [word for word in shlex.split(first.reproduce)[1:] if word not in ("--matrices", "--fixtures")]
    mini.run("check", "--cell", first.id, "--loader", mini.spec("2.0"), "--dtype", "bfloat16")

    assert "--cell" in words
    assert [mini.cell("two-layers").id, len(mini.report().cells)] == [first.id, 1]


def test_without_settings_nothing_is_said_of_them(mini: World) -> None:
    mini.run("check", "--loader", mini.spec("2.0"), "-k", "two-layers")

    assert mini.cell("two-layers").id.endswith("[cpu]")
    assert '"settings":' not in (mini.folder() / "report.json").read_text(encoding="utf-8")


def test_a_deviation_in_the_narrow_type_alone(mini: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_NARROW", "0.5")
    said = mini.run("check", "--loader", mini.spec("2.0"), *NARROW)

    assert (said.code, mini.verdicts()["two-layers"]) == (1, "silent-wrong")
    assert mini.run("check", "--loader", mini.spec("2.0"), "-k", "two-layers").code == 0


@pytest.mark.parametrize(("devices", "code"), [("cpu", 0), ("cpu+bfloat16", 0), ("*+bfloat16*", 0), ("cpu+sdpa", 1)])
def test_expectations_name_the_device_or_the_whole_place(
    mini: World, monkeypatch: pytest.MonkeyPatch, devices: str, code: int
) -> None:
    monkeypatch.setenv("MINI_NARROW", "0.5")
    mini.expect(scenarios=["two-layers"], devices=[devices], loaders="minipeft==2.0")

    assert mini.run("check", "--loader", mini.spec("2.0"), *NARROW).code == code


def test_another_setting_is_another_cell_to_a_baseline(mini: World) -> None:
    mini.run("check", "--loader", mini.spec("2.0"), "-k", "two-layers")
    before = mini.folder()
    mini.run("check", "--loader", mini.spec("2.0"), *NARROW, "--baseline", str(before))

    assert {comparison.change for comparison in mini.report().comparisons} == {"new", "gone"}
    assert mini.folder() != before


def test_what_a_base_has_not_is_unsupported(mini: World) -> None:
    mini.run("check", "--loader", mini.spec("2.0"), "--attention", "sdpa", "-k", "two-layers")

    cell = mini.cell("two-layers")
    assert (str(cell.verdict), cell.reason) == (
        "unsupported",
        "its base is no model of Transformers and has no attention to choose",
    )


def test_pair_and_processes_take_them_too(mini: World) -> None:
    spec = mini.spec("1.0")
    mini.run("pair", "--creator", spec, "--loader", mini.spec("2.0"), *NARROW, "-n", "2")

    assert mini.cell("two-layers").id.endswith("[cpu+bfloat16]")
    assert Path(mini.folder() / "report.json").is_file()


def test_a_word_that_is_no_setting_is_wrong_usage(mini: World) -> None:
    assert mini.run("check", "--loader", mini.spec("2.0"), "--dtype", "float64").code == 64


def test_repro_says_that_its_scripts_do_not_know_them(mini: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_NARROW", "0.5")
    mini.run("check", "--loader", mini.spec("2.0"), *NARROW)
    said = mini.run("repro", "two-layers", "--run", str(mini.folder()))

    assert said.code == 64
    assert "uses the settings bfloat16" in said.err
