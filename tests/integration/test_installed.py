"""The built wheel in an environment of its own, used in an empty folder: no checkout is in sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from harness.core import data
from harness.core.matrix import Matrix
from harness.envs import pip_config
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("installed")]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`peft-regress` as the wheel installs it."""
    room = tmp_path_factory.mktemp("installed")
    venv, python = room / "venv", room / "venv" / "bin" / "python"
    uv_bin = uv.find_uv_bin()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    subprocess.run([*pip, str(REPOSITORY), "-w", str(room)], check=True)
    (wheel,) = room.glob("*.whl")
    subprocess.run([uv_bin, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
    environ = {**os.environ, **pip_config.read(os.environ).env}
    subprocess.run([uv_bin, "pip", "install", "-q", "--python", str(python), str(wheel)], check=True, env=environ)
    return venv / "bin" / "peft-regress"


@pytest.fixture
def run(program: Path, tmp_path: Path) -> Run:
    """Runs it in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()

    def call(*words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more
        done = subprocess.run([str(program), *words], cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call


def test_it_lists_what_the_wheel_carries(run: Run) -> None:
    declared = {one.name for one in Matrix(data.matrices()).scenarios(hub=True)}
    assert {one["name"] for one in json.loads(run("list", "--json").stdout)} == declared
    listed = json.loads(run("env", "list", "--json").stdout)
    carried = {path.stem for path in (data.matrices() / "envs").glob("*.toml")}
    carried |= {f"consumer:{path.stem}" for path in (data.matrices() / "consumers").glob("*.toml")}
    assert {one["name"] for one in listed} == carried
    assert not [one["name"] for one in listed if one["problem"] or not one["locked"]]


def test_what_needs_a_checkout_says_so(run: Run, tmp_path: Path) -> None:
    nowhere = {"PEFT_REGRESS_CACHE": str(tmp_path / "cache")}
    said = run("check", "--creator", "v061", code=64, **nowhere).stderr
    assert "--fixtures" in said
    assert "fixtures fetch" in said
    assert "--out" in run("docs", code=64, **nowhere).stderr
    assert "--matrices" in run("env", "lock", "current", code=64).stderr


def test_it_checks_a_stored_fixture(run: Run, tmp_path: Path) -> None:
    words = ["check", "--creator", "v061", "--loader", "v061", "-k", "lokr-decompose-factor"]
    run(*words, "--fixtures", str(REPOSITORY / "fixtures"))
    (report,) = (tmp_path / "empty" / "reports").glob("*/report.json")
    cells = json.loads(report.read_text())["cells"]
    assert {cell["scenario"]: cell["verdict"] for cell in cells} == {"lokr-decompose-factor": "exact"}


def test_it_fetches_fixtures_and_finds_them(run: Run, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (small / "v1.jsonl").write_text("{}\n")
    run("fixtures", "pack", "--fixtures", str(small), "--to", str(tmp_path / "box.tar.gz"))
    cache = {"PEFT_REGRESS_CACHE": str(tmp_path / "cache")}
    run("fixtures", "fetch", "--from", str(tmp_path / "box.tar.gz"), **cache)
    run("env", "gc", **cache)  # which keeps them
    assert "v1.jsonl" in run("fixtures", "verify", code=2, **cache).stdout


def test_a_pair_needs_no_stored_fixtures(run: Run, tmp_path: Path) -> None:
    run("pair", "--creator", "v061", "--loader", "v061", "-k", "lokr-decompose-factor")
    (report,) = (tmp_path / "empty" / "reports").glob("*/report.json")
    assert [cell["verdict"] for cell in json.loads(report.read_text())["cells"]] == ["exact"]
    shown = run("show", "lokr-decompose-factor").stdout
    assert "exact" in shown
