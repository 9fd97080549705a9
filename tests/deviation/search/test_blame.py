"""`blame`, all of it: a registry on this machine, the real uv, fake libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.deviation.one_cell import CellRequest
from harness.deviation.search.blame import blame
from harness.deviation.search.work import SearchRequest
from harness.runner.request import Places
from tests.deviation.search.conftest import Libraries
from tests.support.mini.world import HANDLER, interrupt, scenario, until

OLD = {"peft": "70.0", "trl": "1.0", "idna": "1.0", "tqdm": "1.0"}
BROKEN = {"peft": "71.0", "trl": "2.0", "idna": "2.0", "tqdm": "2.0"}


def blamed(libraries: Libraries, *more: str) -> dict[str, Any]:
    """The answer as data."""
    return libraries.data("blame", *more)


def test_one_library_alone(libraries: Libraries) -> None:
    libraries.ends(OLD, BROKEN)
    said = libraries.world.run("blame", libraries.cell)
    assert said.code == 0, said
    assert said.line.startswith(
        "peft 70.0 → 71.0 alone causes it; it deviates in the same way without the changes of trl, "
    )
    assert "minipeft had to change together with peft" in said.line
    assert "verifying both ends: two-layers under old and current" in said.err
    assert "5 packages differ" in said.err
    assert "candidate 1 (at most " in said.err
    assert f"bisect '{libraries.cell}' --package peft" in said.err
    assert "pip install 'peft<71.0' helps: the cell is clean (exact) with peft 70.0" in said.line
    kept = libraries.world.reports / "blame" / "two-layers_old_current_cpu_.json"
    assert json.loads(kept.read_text())["sentence"].startswith("peft 70.0 → 71.0 alone")


def test_a_cell_of_pair_whose_fixture_is_not_stored(libraries: Libraries) -> None:
    """The creator is a declared environment, and the fixture was made for the run alone."""
    libraries.declare("old", OLD)
    libraries.declare("current", {**OLD, "peft": "71.0"})
    said = libraries.world.run("pair", "--creator", "old", "--loader", "current", "-k", "two-layers")
    assert said.code == 1, said
    assert not libraries.world.fixtures.exists()
    assert blamed(libraries, "--no-pin")["sentence"].startswith("peft 70.0 → 71.0 alone causes it")


def test_another_library_alone(libraries: Libraries) -> None:
    libraries.ends({**OLD, "peft": "72.0"}, {**BROKEN, "peft": "72.1"})
    world = libraries.world
    places = Places(world.matrices, world.fixtures, world.reports)
    answer = blame(SearchRequest(CellRequest(libraries.cell, places, worker_handler=HANDLER)))
    assert answer.culprit == "trl"
    assert answer.sentence == (
        "trl 1.0 → 2.0 alone causes it; "
        "it deviates in the same way without the changes of peft, idna and tqdm (2 trials)"
    )
    assert answer.found.complete
    assert blamed(libraries)["sentence"] == answer.sentence


def test_two_only_together(libraries: Libraries) -> None:
    libraries.ends(OLD, {**BROKEN, "peft": "72.0"})
    found = blamed(libraries)
    assert found["sentence"].startswith("peft 70.0 → 72.0 and trl 1.0 → 2.0 cause it only together; ")
    assert found["pin"]["command"] == "pip install 'peft<71.0'"
    assert list(found["pin"]["also"]) == ["trl==1.0"]


def test_another_deviation_does_not_clear_a_library(libraries: Libraries) -> None:
    libraries.ends(OLD, {**BROKEN, "peft": "73.1"})
    found = blamed(libraries)
    assert found["sentence"].startswith(
        "peft 70.0 → 73.1 causes it; whether trl 1.0 → 2.0 is needed too is not known; with trl 1.0 another deviation "
        "comes (load-error: "
    )
    assert "KeyError: 'the first release'); trl alone does not cause it: " in found["sentence"]
    assert found["culprits"][0]["not_known"]["trl"]["kind"] == "other"
    assert found["pin"]["command"].startswith("pip install 'peft<")


def test_a_second_cause_that_the_first_hides(libraries: Libraries) -> None:
    for version in ("1.0", "2.0"):
        libraries.index.package("accelerate", version, f"SECOND = {version == '2.0'}\n")
    same = {"peft": "73.2", "idna": "1.0"}
    libraries.ends({**same, "trl": "1.0", "accelerate": "1.0"}, {**same, "trl": "2.0", "accelerate": "2.0"})
    said = libraries.world.run("blame", libraries.cell)
    assert said.code == 0, said
    assert said.line.startswith(
        "accelerate 1.0 → 2.0 alone causes it; with accelerate 1.0 it deviates otherwise (silent-wrong: "
    )
    assert "), and trl 1.0 → 2.0 alone causes that." in said.line
    assert "no single pin helps pip install accelerate==1.0 trl==1.0 helps: the cell is clean" in said.line
    assert "to find the release" not in said.err


def test_a_release_that_deviates_otherwise_is_no_pin(libraries: Libraries) -> None:
    libraries.index.library("2.4")
    libraries.index.peft("70.5", "minipeft==2.4")
    libraries.ends({"peft": "70.0", "idna": "1.0"}, {"peft": "71.0", "idna": "2.0"})
    found = blamed(libraries)
    assert found["pin"]["command"] == "pip install 'peft<70.5'"
    assert [one["result"] for one in found["tried"] if one["words"] == "peft 70.5"] == ["other"]


def test_a_pin_that_does_not_resolve_is_said(libraries: Libraries) -> None:
    libraries.index.package("accelerate", "1.0", needs=("trl==1.0",))
    libraries.index.package("accelerate", "2.0", needs=("trl==2.0",))
    libraries.ends({**OLD, "peft": "72.0", "accelerate": "1.0"}, {**BROKEN, "peft": "72.0", "accelerate": "2.0"})
    said = libraries.world.run("blame", libraries.cell, "--json")
    assert said.code == 2, said
    found = json.loads(said.out)
    assert found["sentence"].startswith("trl 1.0 → 2.0 or accelerate 1.0 → 2.0 cause it, alone or together")
    assert found["pin"]["command"] == "pip install trl==1.0 accelerate==1.0"
    assert "no set of packages has" in found["pin"]["failed"]["trl==1.0"]


def test_mixes_that_cannot_be_imported_are_skipped(libraries: Libraries) -> None:
    libraries.index.package("accelerate", "1.0", "import trl\nassert not trl.SECOND, 'too new'\n")
    libraries.index.package("accelerate", "2.0", "import trl\nassert trl.SECOND, 'too old'\n")
    libraries.ends({**OLD, "accelerate": "1.0"}, {**BROKEN, "accelerate": "2.0"})
    found = blamed(libraries)
    assert [list(one["packages"]) for one in found["culprits"]] == [["peft"]]


def test_a_search_continues_from_its_journal(libraries: Libraries) -> None:
    libraries.ends(OLD, BROKEN)
    first = blamed(libraries)
    journal = Path(first["journal"])
    assert first["spent"]["remembered"] == 0
    with journal.open("ab") as file:
        file.write(b'{"question": "torn')
    again = blamed(libraries)
    assert again["sentence"] == first["sentence"]
    assert again["spent"]["remembered"] == len(first["tried"])
    assert again["spent"]["cells"] == 0
    assert blamed(libraries, "--anew")["spent"]["remembered"] == 0
    moved = journal.rename(journal.with_name("elsewhere"))
    assert blamed(libraries, "--replay", str(moved))["spent"]["remembered"] > 0


def test_an_index_that_fails_blames_no_version(libraries: Libraries) -> None:
    libraries.ends(OLD, BROKEN)
    assert libraries.world.run("env", "build", "old", "current").code == 0
    for path in (libraries.world.root / "cache" / "uv").glob("*"):
        if path.is_dir():
            import shutil

            shutil.rmtree(path)
    libraries.index.down = True
    said = libraries.world.run("blame", libraries.cell)
    assert said.code == 2, said
    assert "causes it" not in said.out
    assert "next:" in said.err
    assert not list((libraries.world.root / "cache" / "envs").glob("try-*/peft-regress.json"))
    libraries.index.down = False
    assert blamed(libraries)["sentence"].startswith("peft 70.0 → 71.0 alone")


def test_two_locks_of_a_user(libraries: Libraries, tmp_path: Path) -> None:
    libraries.ends(OLD, BROKEN)
    good, bad = tmp_path / "before.txt", tmp_path / "after.txt"
    good.write_text("peft==70.0\nminipeft==1.0\ntrl==1.0\nidna==1.0\n-e git+https://host/mine.git#egg=mine\n")
    bad.write_text("peft==71.0 --hash=sha256:00\nminipeft==2.1\ntrl==2.0\nidna==2.0\n")
    said = libraries.world.run("blame", "two-layers@old", "--good", str(good), "--bad", str(bad))
    assert said.code == 0, said
    assert said.line.startswith("peft 70.0 → 71.0 alone causes it; ")
    assert "pip install 'peft<71.0' helps" in said.line
    assert "before.txt, line 5: mine is left out" in said.err
    assert f"bisect 'two-layers@old' --good-env {good} --bad-env {bad} --package peft" in said.err
    found = json.loads(
        libraries.world.run(
            "bisect", "two-layers@old", "--good-env", str(good), "--bad-env", str(bad), "--package", "peft", "--json"
        ).out
    )
    assert found["after"]["name"] == "peft 71.0"
    said = libraries.world.run("blame", "two-layers", "--good", str(bad), "--bad", str(good))
    assert said.code == 2, "exchanged: the bad end is clean"
    assert "does not deviate under lock_before_" in said.err
    bad.write_text("peft>=71.0\n")
    said = libraries.world.run("blame", "two-layers@old", "--good", str(good), "--bad", str(bad))
    assert said.code == 64, said
    assert "after.txt, line 1: 'peft>=71.0' does not pin a version" in said.err


#: cell and options, exit code, error
REFUSED = [
    (["two-layers@old:old[cpu]"], 64, "both ends are 'old'"),
    (["two-layers@old:current[cpu]", "--good", "nowhere"], 64, "no environment 'nowhere'"),
    (["no-such@old:current[cpu]"], 64, "no scenario 'no-such'"),
    (["lokr"], 64, "no run in"),
    (["two-layers@old:current[cpu]", "--good", "alike"], 2, "the good end deviates in the same way"),
    (["two-layers@old:sound[cpu]"], 2, "does not deviate under sound: exact"),
    (["two-layers@old:current[cpu]", "--good", "import"], 2, "import peft failed"),
    (["two-layers@old:current[cpu]", "--replay", "/nowhere"], 64, "no entries to replay"),
]


def test_requests_that_are_refused(libraries: Libraries) -> None:
    libraries.index.peft("73.0", "minipeft==2.8")
    libraries.ends(OLD, BROKEN)
    libraries.declare("alike", {**BROKEN, "idna": "1.0"})
    libraries.declare("sound", {**OLD, "idna": "2.0"})
    libraries.declare("import", {**OLD, "peft": "73.0"})
    for more, code, error in REFUSED:
        said = libraries.world.run("blame", *more)
        assert (said.code, error in said.err) == (code, True), (more, said)
        assert not list((libraries.world.root / "cache" / "envs").glob("*.part"))


def test_ctrl_c_leaves_nothing_half_built_and_the_search_continues(libraries: Libraries) -> None:
    libraries.index.package("accelerate", "1.0", "import time\n")
    libraries.ends({**OLD, "accelerate": "1.0"}, BROKEN)
    environments = libraries.world.root / "cache" / "envs"
    process = libraries.world.start("blame", libraries.cell)
    until(lambda: list(environments.glob("try-*")))
    said = interrupt(process)
    assert said.code == 130, said
    assert "the same command continues" in said.err
    halves = [path for path in environments.glob("try-*") if not (path / "peft-regress.json").exists()]
    assert [path for path in halves if path.is_dir()] == []
    assert blamed(libraries)["sentence"].startswith("peft 70.0 → 71.0 alone")


def test_a_killed_search_tries_nothing_twice(libraries: Libraries) -> None:
    libraries.ends(OLD, {**BROKEN, "peft": "72.0"})
    journal = libraries.world.reports / "blame" / "two-layers_old_current_cpu_.jsonl"
    process = libraries.world.start("blame", libraries.cell)
    until(lambda: journal.exists() and len(journal.read_text().splitlines()) > 2)
    process.kill()
    process.wait()
    found = blamed(libraries)
    assert found["sentence"].startswith("peft 70.0 → 72.0 and trl 1.0 → 2.0 cause it only together")
    assert found["spent"]["remembered"] > 2
    tried = [json.loads(line)["environment"] for line in journal.read_text().splitlines()]
    assert len(tried) == len(set(tried))


def test_a_journal_that_cannot_be_written_is_an_error(libraries: Libraries) -> None:
    libraries.ends(OLD, BROKEN)
    said = libraries.world.run("blame", libraries.cell, "--log", "/proc/no/journal.jsonl")
    assert said.code == 2, said
    assert "next: free some space" in said.err


def test_flaky_ends_are_refused(libraries: Libraries) -> None:
    libraries.world.scenarios(scenario("flaky-one", fault="flaky"))
    libraries.ends(OLD, BROKEN)
    assert libraries.world.run("create", "old", "-k", "flaky-one").code == 0
    said = libraries.world.run("blame", "flaky-one@old:current[cpu]")
    assert said.code == 2, said
    assert "flaky" in said.err
