"""`fixtures diff`, `fixtures history` and `docs`, from the command line on fixtures of fake releases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.verdict import Verdict
from tests.support import manifests
from tests.support.mini.world import World, main, scenario


@pytest.fixture
def three(mini: World) -> World:
    """A world with the fixtures of 1.0, 2.0 (which writes the same) and 3.0 (a further entry in the config)."""
    mini.scenarios(scenario("mine", requires=["minipeft>=3.0"]))
    for release in ("2.0", "3.0"):
        said = mini.run("create", mini.spec(release))
        assert said.code == 0, said
    return mini


def test_a_release_that_writes_the_same(three: World) -> None:
    said = three.run("fixtures", "diff", three.name("1.0"), three.name("2.0"))
    assert said.code == 0, said
    assert "2 common scenarios: 0 different, 2 equal" in said.out
    assert f"only {three.name('2.0')} has 1 scenario: later (needs minipeft>=2.0, has minipeft 1.0)" in said.out


def test_a_release_that_writes_something_else(three: World) -> None:
    said = three.run("fixtures", "diff", three.name("2.0"), three.name("3.0"))
    assert said.code == 1, said
    assert "config, all 3 scenarios\n  + tilt = 1.0\n" in said.out
    assert f"only {three.name('3.0')} has 1 scenario: mine (needs minipeft>=3.0, has minipeft 2.0)" in said.out
    data = json.loads(three.run("fixtures", "diff", three.name("2.0"), three.name("3.0"), "--json").out)
    assert data["compared"] == ["later", "one-layer", "two-layers"]
    (change,) = data["changes"]
    assert (change["kind"], change["what"], change["difference"]) == ("config", "+ tilt = 1.0", True)
    assert data["only_b"] == {"mine": "needs minipeft>=3.0, has minipeft 2.0"}


def test_values_and_keys_of_a_stored_file_are_compared(three: World) -> None:
    """The scenario is changed and created again: the comparison shows what its adapter has now."""
    path = three.matrices / "scenarios" / "plain.toml"
    text = path.read_text().replace('targets = ["layer2"]', 'targets = ["layer3"]')
    path.write_text(text)
    said = three.run("create", three.spec("2.0"), "-k", "one-layer", "--replace", "--reason", "for a test")
    assert said.code == 0, said
    said = three.run("fixtures", "diff", three.name("1.0"), three.name("2.0"), "-k", "one-layer", "-v")
    assert said.code == 1, said
    assert "- layer2.low_rank_A" in said.out
    assert "+ layer3.low_rank_A" in said.out
    assert "targets: ['layer2'] → ['layer3']" in said.out


def test_nothing_to_compare_is_2_and_no_such_creator_64(three: World) -> None:
    said = three.run("fixtures", "diff", three.name("1.0"), three.name("3.0"), "-k", "mine")
    assert said.code == 2, said
    assert three.run("fixtures", "diff", three.name("1.0"), "nobody").code == 64


def test_history_counts_forms_and_lists_changes(three: World) -> None:
    said = three.run("fixtures", "history")
    assert said.code == 0, said
    assert "two-layers 3 1 1 2" in said.line
    assert "9 fixtures" in said.line
    assert "without sharing" in said.line
    told = three.run("fixtures", "history", "-v", "two-*")
    assert (
        "two-layers\n  1.0–2.0: adapter_model.safetensors, 4 keys\n  3.0: adapter_model.safetensors, 4 keys\n"
        in told.out
    )
    assert "    config: + tilt = 1.0" in told.out
    data = json.loads(three.run("fixtures", "history", "--json").out)
    assert [one["scenario"] for one in data["scenarios"]] == ["later", "mine", "one-layer", "two-layers"]
    assert data["storage"]["fixtures"] == 9
    assert data["storage"]["stored"] < data["storage"]["unshared"]
    assert three.run("fixtures", "history", "no-such-*").code == 2


def test_a_damaged_line_costs_one_row_of_diff_and_history(three: World) -> None:
    manifests.damage(three.fixtures, three.name("2.0"), "one-layer", lambda raw: raw[:-1])
    said = three.run("fixtures", "diff", three.name("2.0"), three.name("3.0"))
    assert said.code == 2, said
    assert "config, all 2 scenarios\n  + tilt = 1.0\n" in said.out
    assert f"one-layer (the fixture of {three.name('2.0')} is damaged)" in said.out
    assert f"{three.name('2.0')}.jsonl:2: " in said.err
    data = json.loads(three.run("fixtures", "diff", three.name("2.0"), three.name("3.0"), "--json").out)
    assert (data["compared"], len(data["problems"])) == (["later", "two-layers"], 1)
    said = three.run("fixtures", "history")
    assert said.code == 2, said
    assert "one-layer 2 1" in said.line
    assert "8 fixtures" in said.line
    assert f"{three.name('2.0')}.jsonl:2: " in said.err


def test_an_unreadable_file_of_one_creator_costs_its_fixtures_only(three: World) -> None:
    damaged = manifests.file_of(three.fixtures, three.name("2.0"))
    damaged.unlink()
    damaged.mkdir()
    assert three.run("fixtures", "diff", three.name("1.0"), three.name("3.0")).code == 1
    for words in (
        ("fixtures", "diff", three.name("1.0"), three.name("2.0")), ("fixtures", "history"), ("fixtures", "verify"),
        ("list",),
    ):  # fmt: skip
        said = three.run(*words)
        assert said.code == 2, said
        assert f"{damaged}: cannot be read" in said.out + said.err
    said = three.run("check", "--loader", three.spec("3.0"), "-k", "one-layer")
    assert said.code == 2, said
    verdicts = {cell.creator: cell.verdict for cell in three.report().cells}
    assert len(verdicts) == 3
    assert [creator for creator, verdict in verdicts.items() if verdict == Verdict.BAD_FIXTURE] == [three.name("2.0")]


@pytest.mark.parametrize(
    ("damage", "found"),
    [(lambda text: b"\xef\xbb\xbf" + text, "byte order mark"), (lambda _: b"", "the file is empty")],
)
def test_damage_that_hides_fixtures_is_reported(three: World, damage: Callable[[bytes], bytes], found: str) -> None:
    path = manifests.file_of(three.fixtures, three.name("2.0"))
    path.write_bytes(damage(path.read_bytes()))
    for words in (("diff", three.name("2.0"), three.name("3.0")), ("history",), ("verify",)):
        said = three.run("fixtures", *words)
        assert said.code == 2, said
        assert f"{path}:1: " in said.out + said.err
        assert found in said.out + said.err


def test_the_pages_follow_the_fixtures(three: World) -> None:
    three.expect(since="minipeft 2.1", verified="By hand.")
    pages = three.root / "pages"
    assert three.run("docs", "--out", str(pages)).code == 0
    assert three.run("docs", "--check", "--out", str(pages)).code == 0
    assert "### 2.0 → 3.0" in (pages / "format-history.md").read_text()
    assert "**Since:** minipeft 2.1." in (pages / "known-breaks" / "scaling.md").read_text()
    assert (
        "| [two-layers](../matrices/scenarios/plain.toml) | `minipeft>=1.0` | 1.0–3.0 (3) |"
        in (pages / "methods.md").read_text()
    )
    manifests.remove(three.fixtures, three.name("3.0"), "mine")
    said = three.run("docs", "--check", "--out", str(pages))
    assert said.code == 1
    assert "methods.md: not up to date" in said.out
    assert "known-breaks" not in said.out


@pytest.mark.parametrize("name", ["../../x", "\ud800"])
def test_a_line_with_an_impossible_name_is_reported_with_its_place(three: World, name: str) -> None:
    path = manifests.file_of(three.fixtures, three.name("2.0"))
    raw = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*raw, raw[0].replace(b'"later"', json.dumps(name).encode(), 1)]))
    for words in (("diff", three.name("2.0"), three.name("3.0")), ("history",), ("verify",)):
        said = three.run("fixtures", *words)
        assert said.code == 2, said
        assert f"{path}:{len(raw) + 1}: " in said.out + said.err


def test_half_a_character_in_a_manifest_is_printed_as_an_escape(three: World) -> None:
    data = manifests.read(three.fixtures, three.name("2.0"), "later")
    manifests.write(three.fixtures, three.name("2.0"), "later", {**data, "scenario": "\ud800"})
    said = three.run("fixtures", "verify")
    assert said.code == 2, said
    assert "\\ud800" in said.out


@pytest.mark.parametrize("command", ["verify", "prune", "convert"])
def test_a_folder_that_does_not_exist_is_a_wrong_argument(command: str, tmp_path: Path) -> None:
    said = main("fixtures", command, "--fixtures", str(tmp_path / "nope"))
    assert said.code == 64, said
    assert f"{tmp_path / 'nope'} does not exist" in said.err
    assert said.err.count("\n  expected: ") == said.err.count("\n  next: ") == 1
    assert not (tmp_path / "nope").exists()
