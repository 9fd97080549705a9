"""Byte code goes from one environment to another for the source files that both have, and for no others."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from harness.envs import byte_code


def package(root: Path, names: tuple[str, ...]) -> Path:
    """An environment with a package of these modules."""
    folder = root / "lib" / "python3.11" / "site-packages" / "fake"
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.py").write_text(f"NAME = {name!r}\n")
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A compiled environment, and one with a module in common: `same` is one file, `other` differs, `new` is new."""
    donor = package(tmp_path / "a", ("same", "other"))
    for path in donor.glob("*.py"):
        py_compile.compile(str(path))
    target = package(tmp_path / "b", ("other", "new"))
    os.link(donor / "same.py", target / "same.py")
    return donor, target


def test_only_the_same_files_share(two: tuple[Path, Path], tmp_path: Path) -> None:
    assert byte_code.share(tmp_path / "a", tmp_path / "b") == 1
    assert [path.name.partition(".")[0] for path in (two[1] / "__pycache__").iterdir()] == ["same"]
    assert byte_code.share(tmp_path / "a", tmp_path / "b") == 0, "a second time there is nothing to do"


def test_python_takes_what_is_shared(two: tuple[Path, Path], tmp_path: Path) -> None:
    byte_code.share(tmp_path / "a", tmp_path / "b")
    command = [sys.executable, "-v", "-c", "import same, other; print(same.NAME, other.NAME)"]
    done = subprocess.run(command, cwd=two[1], capture_output=True, text=True, check=True)
    assert done.stdout == "same other\n"
    matched = [line for line in done.stderr.splitlines() if "matches" in line and str(two[1]) in line]
    assert [Path(line.split()[-1]).name for line in matched] == ["same.py"]


def test_an_edit_in_one_environment_stays_there(two: tuple[Path, Path], tmp_path: Path) -> None:
    byte_code.share(tmp_path / "a", tmp_path / "b")
    (two[1] / "same.py").unlink()
    (two[1] / "same.py").write_text("NAME = 'edited'\n")
    command = [sys.executable, "-c", "import same; print(same.NAME)"]
    said = [subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout for folder in two]
    assert said == ["same\n", "edited\n"]


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ({}, None),
        ({"a": {"peft": "1"}}, None),
        ({"a": {"torch": "2", "peft": "1"}, "b": {"torch": "2", "peft": "3"}}, "b"),
        ({"a": {"torch": "2"}, "b": {"torch": "1", "peft": "3"}, "c": {"torch": "2", "peft": "3", "more": "1"}}, "c"),
    ],
)
def test_the_most_alike_gives(others: dict[str, dict[str, str]], best: str | None) -> None:
    found = byte_code.most_alike({"torch": "2", "peft": "3"}, [(Path(name), has) for name, has in others.items()])
    assert (found and found.name) == best
