"""`bisect`, all of it: a registry on this machine, the real uv, fake libraries, a clone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deviation.search.conftest import Libraries
from tests.support.mini import releases
from tests.support.mini.projects import project

PROJECT = project("minipeft", "2.1", {name: name for name in ("minipeft.py", "mini_libraries.pth")})


@pytest.fixture
def row(libraries: Libraries) -> Libraries:
    """PEFT 70.0 … 70.9: broken since 70.6; 70.2 is yanked, 70.5 does not import, 70.4 is for another platform."""
    for minor in range(1, 10):
        needs = "minipeft==2.8" if minor == 5 else f"minipeft=={'2.1' if minor >= 6 else '1.0'}"
        more: dict[str, object] = {"yanked": True} if minor == 2 else {"tag": "cp27-cp27m-win32"} if minor == 4 else {}
        libraries.index.peft(f"70.{minor}", needs, day=f"2024-02-0{minor}", **more)
    libraries.index.peft("70.7rc1", "minipeft==1.0", day="2024-02-06")
    libraries.ends({"peft": "70.0", "idna": "1.0"}, {"peft": "70.9", "idna": "2.0"})
    return libraries


def bisected(libraries: Libraries, *more: str) -> dict[str, Any]:
    """The answer as data."""
    return libraries.data("bisect", *more)


def test_the_release_between_its_neighbours(row: Libraries) -> None:
    said = row.world.run("bisect", row.cell)
    assert said.code == 0, said
    assert said.line.startswith(
        "the verdict changes between peft 70.3 (2024-02-03), which is clean, and peft 70.6 (2024-02-06), which "
        "deviates; these in between could not be tested: 70.5."
    )
    assert "https://github.com/huggingface/peft/compare/v70.3...v70.6" in said.out
    assert "70.2 (yanked)" in said.err
    assert "70.4 (no wheel for Python" in said.err
    assert "70.7rc1 (a pre-release; --pre includes it)" in said.err
    assert "with the packages of its release day" in said.err, "what cannot be tested otherwise is tried this way"


def test_results_are_taken_from_the_journal(row: Libraries) -> None:
    first = bisected(row)
    assert (first["before"]["name"], first["after"]["name"]) == ("peft 70.3", "peft 70.6")
    again = bisected(row)
    assert again["sentence"] == first["sentence"]
    assert again["spent"]["cells"] == 0


def test_find_fix_finds_the_first_good_release(row: Libraries) -> None:
    row.index.peft("71.5", "minipeft==2.0", day="2024-03-05")
    row.index.peft("71.6", "minipeft==2.0", day="2024-03-06")
    newer = ("peft-72.", "peft-73.")
    kept = [entry for entry in row.index.files["peft"] if not str(entry["filename"]).startswith(newer)]
    row.index.files["peft"] = kept
    found = bisected(row, "--find-fix")
    assert (
        found["sentence"]
        == "peft 71.5 (2024-03-05) is the first that is clean again; peft 71.0 (2024-01-01) is the last that deviates"
    )


def test_the_packages_of_the_release_day(row: Libraries) -> None:
    row.declare("v703", {"peft": "70.3", "idna": "1.0"})
    found = bisected(row, "--rest", "period-true", "--bad", "70.7")
    assert found["rest"] == "with the packages of its release day"
    assert found["after"]["name"] == "peft 70.6"


#: options, exit code, error
REFUSED = [
    (["--good", "70.9", "--bad", "70.0"], 64, "newer than the bad one"),
    (["--good", "70.1", "--find-fix"], 64, "older than the bad one"),
    (["--good", "70.2"], 64, "peft 70.2 cannot be an end: yanked"),
    (["--good", "70.4"], 64, "cannot be an end: no wheel for Python"),
    (["--good", "69.0"], 64, "cannot be an end: it is not on the index"),
    (["--good", "x"], 64, "'x' is not a version"),
    (["--good", "70.7"], 2, "the ends are not what they should be"),
    (["--package", "idna"], 2, "the ends are not what they should be"),
    (["--package", "numpy"], 64, "no numpy"),
    (["--repo", "/nowhere", "--package", "minipeft", "--good", "a", "--bad", "b"], 64, "is not a git clone"),
]


def test_requests_that_are_refused(row: Libraries) -> None:
    for more, code, error in REFUSED:
        said = row.world.run("bisect", row.cell, *more)
        assert (said.code, error in said.err) == (code, True), (more, said)


def git(folder: Path, *words: str) -> str:
    """Runs git in a folder."""
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the fake library with six commits: the third does not import, the fourth breaks it."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    files = {**PROJECT, "mini_libraries.pth": releases.LIBRARIES}
    for number, release in enumerate(("1.0", "2.0", "2.8", "2.1", "2.1", "2.1")):
        for name, text in {**files, "minipeft.py": f"{releases.text(release)}\n# {number}\n"}.items():
            (folder / name).write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", f"change {number}")
        if number in (0, 5):
            git(folder, "tag", f"v{number}.0")
    return folder


def test_the_commit_in_a_clone(row: Libraries, clone: Path) -> None:
    (clone / "minipeft.py").write_text("not committed, and left alone")
    found = bisected(row, "--package", "minipeft", "--repo", str(clone), "--good", "v0.0", "--bad", "main")
    assert found["commit"] == git(clone, "rev-parse", "main~2")
    assert found["after"]["day"].endswith("change 3")
    assert found["before"]["day"].endswith("change 1")
    assert [one["result"] for one in found["skipped"]] == ["untestable"]
    assert (clone / "minipeft.py").read_text() == "not committed, and left alone"


def test_the_release_and_then_the_commit(libraries: Libraries, clone: Path) -> None:
    libraries.index.peft("74.0", "minipeft")
    libraries.ends({"peft": "74.0", "minipeft": "1.0"}, {"peft": "74.0", "minipeft": "2.1"})
    git(clone, "tag", "v2.0", "main~4")
    git(clone, "tag", "v2.1", "main")
    found = bisected(libraries, "--package", "minipeft", "--repo", str(clone))
    assert (found["before"]["name"], found["after"]["name"]) == ("minipeft 2.0", "minipeft 2.1")
    assert found["commits"]["after"]["day"].endswith("change 3")
    assert found["commits"]["before"]["day"].endswith("change 1")
