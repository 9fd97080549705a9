"""Overlays of every form: unpacked wheels, refs of clones, releases, and their base environments."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from harness.core.errors import UsageError
from harness.envs import source_tree, spec, unpacked_wheel
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from tests.envs.test_envs_build import checkout, environments, git, make_wheel, room, run

__all__ = ["room"]


def unpack(room: Path, version: str = "0.6.1") -> Path:
    """A wheel, unpacked as `unzip` does."""
    (room / "elsewhere").mkdir()
    make_wheel(room / "elsewhere", "peft", version, "marker = 'unpacked'\n")
    with zipfile.ZipFile(next((room / "elsewhere").glob("*.whl"))) as archive:
        archive.extractall(room / "unpacked")
    return room / "unpacked"


def test_an_unpacked_wheel_is_installed_with_its_edits(room: Path) -> None:
    tree = unpack(room)
    assert source_tree.package_of(tree) == ("peft", "0.6.1")
    assert spec.parse(str(tree), []) == spec.Checkout(tree.resolve())
    (tree / "peft.py").write_text("marker = 'edited'\n")
    (tree / "build").mkdir()
    (tree / "build" / "more.py").write_text("x = 1\n")
    before = sorted(tree.rglob("*"))
    built = environments(room).build(str(tree))
    assert run(built.python, "import peft, build.more; print(peft.marker)") == "edited"
    assert built.versions["peft"] == "0.6.1"
    assert sorted(tree.rglob("*")) == before


def test_a_folder_of_several_packages_is_no_unpacked_wheel(room: Path) -> None:
    tree = unpack(room)
    (tree / "other-1.0.dist-info").mkdir()
    (tree / "other-1.0.dist-info" / "METADATA").write_text("Name: other\nVersion: 1.0\n")
    with pytest.raises(UsageError, match="2 packages"):
        spec.parse(str(tree), [])
    (tree / "other-1.0.dist-info" / "METADATA").unlink()
    with pytest.raises(UsageError, match=r"did you mean .*unpacked"):
        spec.parse(str(room), [])


def test_a_wheel_for_a_platform_keeps_its_tags(tmp_path: Path) -> None:
    info = tmp_path / "tree" / "b-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: b\nVersion: 1.0\n")
    (info / "WHEEL").write_text("Tag: cp311-cp311-manylinux_2_17_x86_64\nTag: cp311-cp311-manylinux2014_x86_64\n")
    packed = unpacked_wheel.pack(tmp_path / "tree", tmp_path)
    tags = {str(tag) for tag in parse_wheel_filename(packed.name)[3]}
    assert tags == {"cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux2014_x86_64"}


def test_an_installed_package_with_an_edited_version_is_packed(tmp_path: Path) -> None:
    info = tmp_path / "tree" / "b-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: b\nVersion: 1.1+mine\n")
    (info / "INSTALLER").write_text("pip")
    packed = unpacked_wheel.pack(tmp_path / "tree", tmp_path)
    assert packed.name == "b-1.1+mine-py3-none-any.whl"
    with zipfile.ZipFile(packed) as archive:
        assert {Path(name).name for name in archive.namelist()} == {"METADATA", "WHEEL", "RECORD"}


def test_a_clones_ref_is_read_without_touching_its_work_tree(room: Path) -> None:
    tree = checkout(room)
    git(tree, "init", "-q", "-b", "main")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "first")
    git(tree, "switch", "-qc", "me/fix")
    (tree / "peft.py").write_text("marker = 'not committed'\n")
    status = subprocess.run(["git", "-C", str(tree), "status", "-s"], capture_output=True, check=True).stdout
    for ref in ("main", "HEAD", "me/fix", "main~0"):
        built = environments(room).build(f"{tree}@{ref}")
        assert run(built.python, "import peft; print(peft.marker)") == "checked out"
    assert subprocess.run(["git", "-C", str(tree), "status", "-s"], capture_output=True, check=True).stdout == status
    with pytest.raises(EnvFailed, match=r"no commit 'nowhere'(.|\n)*it has main, me/fix"):
        environments(room).describe(f"{tree}@nowhere")
    with pytest.raises(UsageError, match="names no ref"):
        environments(room).describe(f"{tree}@")


def test_over_another_environment_only_that_package_differs(room: Path) -> None:
    tree = checkout(room)
    envs = room / "matrices" / "envs"
    (envs / "older.toml").write_text((envs / "current.toml").read_text())
    every: Environments = environments(room)
    every.lock("older")
    over = every.describe(f"{tree} over older")
    assert over.name.endswith("-over-older")
    assert over.versions == {**every.describe("older").versions, "peft": "0.99.dev0"}
    pinned = every.describe("peft==0.6.1 over current")
    assert pinned.name == "peft-0.6.1-over-current"
    assert pinned.versions == {**every.describe("current").versions, "peft": "0.6.1"}
    assert every.build("peft==0.6.1 over current").versions["peft"] == "0.6.1"
    assert every.describe(f"{tree} over current").name == every.describe(str(tree)).name


@pytest.mark.parametrize("text", ["current over current", "peft==1 over ./x", "python:/bin/sh over current"])
def test_specs_that_cannot_be_combined(text: str) -> None:
    with pytest.raises(UsageError):
        spec.parse(text, ["current"])
