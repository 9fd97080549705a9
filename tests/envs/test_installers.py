"""uv itself: too old, missing, killed."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
import uv
from packaging.requirements import Requirement

from harness.envs import installers
from harness.envs.environment import EnvFailed
from harness.envs.installers import Uv
from tests.envs.test_envs_build import environments, room

__all__ = ["room"]


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, script: str = "") -> Path:
    """The only uv of this machine: it says a version, and runs a script for all else."""
    path = folder / "uv"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; exit; fi\n{script}\n')
    path.chmod(0o755)

    def missing() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(uv, "find_uv_bin", missing)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return path


@pytest.mark.parametrize("version", ["uv 0.2.5", "uv 0.8.3 (abc 2025-01-01)"])
def test_a_uv_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    path = fake(tmp_path, monkeypatch, version)
    with pytest.raises(EnvFailed, match=f"uv 0.* at {path} is too old") as caught:
        Uv(tmp_path, {})(["venv"], tmp_path)
    assert caught.value.expected == f"uv {installers.OLDEST_UV} or later"
    assert "pip install --upgrade uv" in caught.value.next_step


@pytest.mark.parametrize("version", ["", "something else"])
def test_what_is_no_uv_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    fake(tmp_path, monkeypatch, version)
    with pytest.raises(EnvFailed, match="does not say its version"):
        Uv(tmp_path, {})(["venv"], tmp_path)


@pytest.mark.parametrize("script", ["exec sleep 600", "kill -9 $$", "exit 3"])
def test_a_uv_that_does_not_say_its_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    path = fake(tmp_path, monkeypatch, "")
    path.write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setattr(installers, "_VERSION_TIMEOUT_S", 0.5)
    with pytest.raises(EnvFailed, match="does not"):
        Uv(tmp_path, {})(["venv"], tmp_path)


def test_the_oldest_uv_is_the_one_that_this_package_requires() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    required = next(one for one in map(Requirement, project["dependencies"]) if one.name == "uv")
    assert str(required.specifier) == f">={installers.OLDEST_UV}"


def test_a_killed_uv_is_said_and_leaves_nothing(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = uv.find_uv_bin()
    script = f'if [ "$1" = pip ]; then kill -9 $$; fi\nexec {real} "$@"'
    fake(tmp_path, monkeypatch, "uv 0.99.0", script)
    with pytest.raises(EnvFailed, match="`uv pip` was killed by SIGKILL"):
        environments(room).build("current")
    assert [path for path in (room / "cache" / "envs").iterdir() if path.is_dir()] == []
    monkeypatch.undo()


def test_environments_are_not_links_into_uvs_cache(tmp_path: Path) -> None:
    assert Uv(tmp_path, {}).environ["UV_LINK_MODE"] == "clone"
    assert Uv(tmp_path, {"UV_LINK_MODE": "copy"}).environ["UV_LINK_MODE"] == "copy"
    assert Uv(tmp_path, {"UV_LINK_MODE": "symlink"}).environ["UV_LINK_MODE"] == "clone"
