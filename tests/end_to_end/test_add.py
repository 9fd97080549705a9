"""`env add`: a registry on this machine, the real uv, fake libraries. All of a release, or nothing of it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import pytest_run
from harness.core import data
from harness.core.errors import HarnessError
from harness.envs import lock, lookout
from harness.runner import add_release
from harness.store import integrity
from harness.store.fixtures import Store
from tests.support import manifests
from tests.support.mini.index import Index, serving
from tests.support.mini.world import HANDLER, WAIT_S, Said, World, ended, interrupt, main, scenario, until

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
CURRENT = f'why = "x"\npython = "{PYTHON}"\n[pins]\npeft = "newest"\n'
NAME = "v7000"
RELEASE = "peft==70.0.0"
"""So far above what there is that the environments declared in the repository have nothing to do with it."""

NO_SUCH_KEY = '[scenario.expects.keys]\n"no.such.key" = 1\n'
"""Makes creation refuse the scenario before it."""


@pytest.fixture
def registry(empty: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A registry that pip is told of, with one sound release of PEFT; and a world that has `current` only."""
    for key in [key for key in os.environ if key.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(key)
    patient = functools.partial(lookout.Lookout, limit_s=WAIT_S, patience_s=WAIT_S)  # a busy machine answers late
    monkeypatch.setattr(pytest_run, "Lookout", patient)
    with serving(tmp_path / "wheels") as index:
        index.library("1.0")
        index.peft("70.0.0")
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {index.address}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        (empty.matrices / "envs" / "current.toml").write_text(CURRENT)
        yield index


def words(world: World, *more: str) -> list[str]:
    """An `env add` in a world."""
    return ["env", "add", f"--fixtures={world.fixtures}", f"--worker-handler={HANDLER}", *more]


def add(world: World, *more: str) -> Said:
    return world.run(*words(world, *more))


def left(world: World) -> list[str]:
    """What there is of releases: declarations, locks, fixtures, environments, and what is being made."""
    places = [world.matrices / "envs", world.fixtures, world.root / "cache" / "envs", world.root / "cache" / "adding"]
    found = [path for place in places for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return sorted(str(path.relative_to(world.root)) for path in found if path.name not in ("current.toml", ".lock"))


@pytest.fixture
def nothing(empty: World) -> Iterator[None]:
    """Sees to it that nothing is left of what was tried."""
    yield
    assert left(empty) == []


# -- the road of success ----------------------------------------------------------------------------------------------


def test_one_command_makes_a_release_a_creator(empty: World, registry: Index) -> None:
    assert registry.address
    said = add(empty, RELEASE)
    assert said.code == 0, said
    assert "resolving v7000 as of 2024-01-01" in said.err
    assert "building v7000: 2 packages" in said.err
    assert "importing peft in v7000" in said.err
    assert "[2/2] " in said.err
    assert said.out.startswith("### PEFT 70.0.0: `v7000`\n\nReleased 2024-01-01; Python 3.")
    assert "- 2 fixtures made, 1 unsupported, 0 refused; 0.0" in said.out
    assert "- self-check, each loaded again by `v7000` itself: 2 exact" in said.out
    assert "| `1` | `needs minipeft>=2.0, has minipeft 1.0` |" in said.out
    assert f"peft-regress env add {RELEASE} --matrices {empty.matrices} --fixtures {empty.fixtures}\n" in said.out
    assert f"\npeft-regress check --creator v7000 --matrices {empty.matrices}" in said.out
    assert Store(empty.fixtures).scenarios(NAME) == ["one-layer", "two-layers"]
    assert [p for p in integrity.verify(Store(empty.fixtures)) if p.kind != "orphan"] == []
    assert "released = 2024-01-01" in (empty.matrices / "envs" / f"{NAME}.toml").read_text()
    assert not list((empty.root / "cache" / "adding").glob("v*"))
    said = empty.run("check", "--creator", NAME, "--loader", NAME)
    assert said.code == 0, said
    assert empty.run("fixtures", "verify", "--recreate", NAME).out.endswith("2 same\n")


def test_the_same_as_data(empty: World, registry: Index) -> None:
    registry.peft("70.0.1", day="2024-02-02")
    found = json.loads(add(empty, "peft==70.0.1", "-k", "one-layer", "--json").out)
    assert (found["name"], found["released"], found["counts"]) == ("v7001", "2024-02-02", {"made": 1})
    assert (found["versions"]["peft"], found["versions"]["minipeft"]) == ("70.0.1", "1.0")
    assert found["self_check"] == {"exact": 1}
    assert found["bytes_added"] == integrity.size(Store(empty.fixtures))
    assert found["command"].startswith("peft-regress env add peft==70.0.1 -k one-layer --matrices ")


def test_without_fixtures_it_is_an_environment_and_says_how_to_go_on(empty: World, registry: Index) -> None:
    assert registry.address
    said = add(empty, RELEASE, "--no-fixtures")
    assert said.code == 0, said
    assert f"\npeft-regress create {NAME} --matrices" in said.out
    assert not empty.fixtures.exists()
    again = add(empty, RELEASE)
    assert again.code == 64
    assert f"{NAME} is declared" in again.err
    assert f"next: use it: peft-regress create {NAME}" in again.err
    assert empty.run("create", NAME).code == 0


@pytest.mark.usefixtures("nothing")
def test_a_dry_run_writes_nothing(empty: World, registry: Index) -> None:
    assert registry.address
    said = add(empty, RELEASE, "--dry-run")
    assert said.code == 0, said
    assert f"would write {empty.matrices}/envs/{NAME}.toml" in said.out
    assert "would create one-layer@v7000" in said.out
    assert "2 of 3 scenarios are for this release" in said.out
    assert json.loads(add(empty, RELEASE, "--dry-run", "--json").out)["scenarios"] == ["two-layers", "one-layer"]


# -- what leaves nothing ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize(
    ("requirement", "code", "found"),
    [
        ("peft==70.0.9", 64, "peft has no release 70.0.9"),
        ("peft==70.1.0", 64, "peft 70.1.0 is yanked"),
        ("peft==70.2.0", 64, "peft 70.2.0 has no wheel for Python"),
        ("peft==70.3.0", 2, "peft==70.3.0 does not resolve"),
        ("peft==70.4.0", 2, "`uv pip` failed"),
        ("peft==70.5.0", 2, "import peft failed with exit code 1"),
        ("minipeft==1.0", 64, "does not pin PEFT"),
        ("70.0.0", 64, "does not pin a version"),
    ],
)
def test_a_release_that_cannot_be_had(empty: World, registry: Index, requirement: str, code: int, found: str) -> None:
    registry.peft("70.1.0", yanked="broken")
    registry.peft("70.2.0", tag="cp27-cp27m-win32")
    registry.peft("70.3.0", "minipeft==9.9")
    registry.peft("70.4.0").write_bytes(b"no wheel at all")
    registry.library("2.8")
    registry.peft("70.5.0", "minipeft==2.8")
    said = add(empty, requirement)
    assert said.code == code, said
    assert found in said.err
    assert "\n  expected: " in said.err
    assert "\n  next: " in said.err
    assert said.out == ""


@pytest.mark.usefixtures("nothing")
def test_a_scenario_that_is_refused_and_one_that_its_creator_does_not_reload(empty: World, registry: Index) -> None:
    assert registry.address
    empty.scenarios(scenario("strict") + NO_SUCH_KEY, scenario("strays", fault="sigkill"), file="bad")
    said = add(empty, RELEASE)
    assert said.code == 2, said
    assert "v7000: 2 of 4 scenarios failed\n" in said.err
    assert "  strict: refused: the checkpoint does not hold" in said.err
    assert "  strays: deviates, crash: " in said.err
    assert "keep the others with --keep-going; nothing was kept" in said.err


def test_the_others_are_kept_on_demand(empty: World, registry: Index) -> None:
    assert registry.address
    empty.scenarios(scenario("strict") + NO_SUCH_KEY, file="bad")
    said = add(empty, RELEASE, "--keep-going")
    assert said.code == 2, said
    assert "2 fixtures made, 1 unsupported, 1 refused" in said.out
    assert "\n| `strict` | ``the checkpoint does not hold what the scenario `expects`: " in said.out
    assert Store(empty.fixtures).scenarios(NAME) == ["one-layer", "two-layers"]


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize(
    ("more", "code", "found"),
    [
        (["-k", "later"], 2, "none of 1 scenario is for this release: needs minipeft>=2.0"),
        (["-k", "nobody"], 64, "no scenario is selected"),
        (["--missing"], 64, "both a release and --missing"),
    ],
)
def test_a_choice_that_yields_nothing(empty: World, registry: Index, more: list[str], code: int, found: str) -> None:
    assert registry.address
    said = add(empty, RELEASE, *more)
    assert (said.code, found in said.err) == (code, True), said
    assert add(empty).code == 64, "neither a release nor --missing"


@pytest.mark.usefixtures("nothing")
def test_a_declaration_that_cannot_be_written_takes_the_fixtures_back(
    empty: World, registry: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very last step fails."""
    assert registry.address
    write, final = lock.write, empty.matrices / "envs" / f"{NAME}.toml"

    def full(path: Path, text: str) -> None:
        if path == final:
            assert Store(empty.fixtures).scenarios(NAME), "the fixtures come first"
            raise HarnessError("no room", "some", "make some")
        write(path, text)

    monkeypatch.setattr(lock, "write", full)
    said = add(empty, RELEASE)
    assert said.code == 2, said
    assert "no room" in said.err


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(empty: World, registry: Index, number: signal.Signals) -> None:
    assert registry.address
    empty.scenarios(scenario("slow", fault="wait"), file="a-slow")
    process = empty.start(*words(empty, RELEASE))
    until(lambda: "slow" in empty.traced("replay"), "it did not come so far")
    if number == signal.SIGINT:
        said = interrupt(process)
    else:
        process.terminate()
        said = ended(process)
    assert said.code == 130, said
    assert f"interrupted; nothing of {RELEASE} was kept" in said.err
    until(lambda: not empty.processes(), f"still there: {empty.processes()}")


def test_a_killed_process_misleads_nobody(empty: World, registry: Index) -> None:
    """It leaves things; the environment is not declared, and the same command does all of it."""
    assert registry.address
    empty.scenarios(scenario("slow", fault="wait"), file="a-slow")
    process = empty.start(*words(empty, RELEASE))
    until(lambda: "slow" in empty.traced("replay"), "it did not come so far")
    process.kill()
    ended(process)
    assert not (empty.matrices / "envs" / f"{NAME}.toml").exists()
    assert not empty.fixtures.exists()
    until(lambda: not empty.processes(), f"still there: {empty.processes()}")
    empty.gate.touch()
    said = add(empty, RELEASE)
    assert said.code == 0, said
    assert Store(empty.fixtures).scenarios(NAME) == ["one-layer", "slow", "two-layers"]
    assert not list((empty.root / "cache" / "adding").glob("v*"))


def test_what_was_killed_while_it_moved_in_is_done_again(empty: World, registry: Index) -> None:
    """The fixtures and the lock are there, the declaration is not."""
    assert registry.address
    assert add(empty, RELEASE).code == 0
    before = {path: path.read_bytes() for path in empty.fixtures.rglob("*.jsonl")}
    (empty.matrices / "envs" / f"{NAME}.toml").unlink()
    manifests.remove(empty.fixtures, NAME, "one-layer")
    said = add(empty, RELEASE)
    assert said.code == 0, said
    assert {path: path.read_bytes() for path in empty.fixtures.rglob("*.jsonl")} == before


def test_other_evidence_of_that_name_is_never_overwritten(empty: World, registry: Index) -> None:
    assert registry.address
    assert add(empty, RELEASE, "-k", "one-layer").code == 0
    (empty.matrices / "envs" / f"{NAME}.toml").unlink()
    before = left(empty)
    kept = manifests.read(empty.fixtures, NAME, "one-layer")
    manifests.write(empty.fixtures, NAME, "one-layer", {**kept, "unstable": True})
    said = add(empty, RELEASE)
    assert said.code == 2, said
    assert "differs from the stored one: unstable" in said.err
    assert set(left(empty)) <= set(before)
    assert Store(empty.fixtures).scenarios(NAME) == ["one-layer"]


@pytest.mark.usefixtures("nothing")
def test_one_process_at_a_time(empty: World, registry: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.address
    inner: list[Said] = []

    def meanwhile(*_: object) -> None:
        inner.append(main(*empty.arguments(*words(empty, RELEASE))))
        raise HarnessError("enough")

    monkeypatch.setattr(add_release._Making, "outcomes", meanwhile)
    assert add(empty, RELEASE).code == 2
    assert inner[0].code == 2
    assert "another process is adding v7000" in inner[0].err


# -- all that are missing ---------------------------------------------------------------------------------------------


def test_all_that_are_missing(empty: World, registry: Index) -> None:
    registry.peft("70.0.1", day="2024-01-05")
    registry.peft("70.1.0", day="2024-02-01", yanked="broken")
    registry.peft("71.0.0rc1", day="2024-03-01")
    registry.peft("71.0.0", "minipeft==9.9", day="2024-03-03")
    listed = add(empty, "--missing", "--dry-run")
    assert listed.code == 0, listed
    assert listed.out == "peft==70.0.1  of 2024-01-05\npeft==71.0.0  of 2024-03-03\n2 would be added\n"
    assert left(empty) == []
    said = add(empty, "--missing", "-k", "one-layer")
    assert said.code == 2, said
    assert "### PEFT 70.0.1: `v7001`" in said.out
    assert "peft==71.0.0 could not be added: environment v7100: peft==71.0.0 does not resolve" in said.out
    assert said.out.endswith("1 added, 1 could not be\n")
    assert Store(empty.fixtures).creators() == ["v7001"]
    registry.files["peft"] = [file for file in registry.files["peft"] if "71" not in str(file["filename"])]
    again = add(empty, "--missing")
    assert again.code == 0, again
    assert again.out.startswith("nothing is missing")


def test_all_that_are_missing_as_data(empty: World, registry: Index) -> None:
    registry.peft("71.0.0", "minipeft==9.9", day="2024-03-03")
    found = json.loads(add(empty, "--missing", "--json", "--no-fixtures").out)
    assert [one["name"] for one in found["added"]] == ["v7000"]
    assert [one["requirement"] for one in found["failed"]] == ["peft==71.0.0"]


def test_an_index_that_is_down_is_told(empty: World, registry: Index) -> None:
    registry.down = True
    said = add(empty, "--missing")
    assert said.code == 2
    assert "503" in said.err


# -- behind the registry ----------------------------------------------------------------------------------------------


def test_check_says_when_the_matrix_is_behind(empty: World, registry: Index, mini_fixtures: Path) -> None:
    shutil.copytree(mini_fixtures, empty.fixtures)
    loader = ("--loader", empty.spec("2.0"), "-k", "one-layer")
    said = empty.run("check", *loader)
    assert said.code == 0, said
    behind = "the matrix is behind the package index: no environment for PEFT 70.0.0 of 2024-01-01; "
    behind += "next: peft-regress env add --missing; "
    lock = (data.matrices() / "envs" / "locks" / "current-bnb.txt").read_text()  # declared beside the world's own
    locked = next(line.removeprefix("peft==") for line in lock.splitlines() if line.startswith("peft=="))
    behind += f"current-bnb is locked at PEFT {locked}, the newest is 70.0.0 of 2024-01-01; "
    behind += "next: peft-regress env lock current-bnb"
    assert said.err.rstrip().endswith(behind)
    assert "behind" not in said.out, "once is enough on a terminal"
    assert empty.report().notices == (behind,)
    asked = registry.asked.count("/simple/peft/")
    assert asked == 1
    as_json = empty.run("check", *loader, "--json")
    assert json.loads(as_json.out)["notices"] == [behind]
    assert behind in as_json.err
    assert registry.asked.count("/simple/peft/") == asked, "the answer is kept for the day"
    assert behind in empty.run("check", *loader, "--format", "markdown").out
    assert behind in main("report", str(empty.folder())).line
    quiet = empty.run("check", *loader, "-q")
    assert (quiet.code, quiet.err, empty.report().notices) == (0, "", ())
    assert behind in empty.run("pair", "--creator", empty.spec("1.0"), *loader).err


def test_check_says_when_it_could_not_look(empty: World, registry: Index, mini_fixtures: Path) -> None:
    shutil.copytree(mini_fixtures, empty.fixtures)
    registry.down = True
    said = empty.run("check", "--loader", empty.spec("2.0"), "-k", "one-layer")
    assert said.code == 0, said
    assert "could not check whether the package index has newer releases than the matrix: http://127.0.0.1" in said.err
    assert "503" in said.err


@pytest.fixture
def mini_fixtures(created: Path) -> Path:
    """The fixtures of release 1.0 of the fake library."""
    return created
