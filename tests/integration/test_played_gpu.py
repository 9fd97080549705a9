"""Real libraries on a GPU that the CPU plays: every probe runs there, and a golden of its class is made and taken."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harness.core import run_file
from harness.envs.environments import Environments
from harness.store.fixtures import Store
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HANDLER = REPOSITORY / "tests" / "support" / "fakes" / "played_gpu.py"
SCENARIOS = ("lora-linear", "loha-linear", "prompt-tuning", "adaption-prompt")
"""Of bases without ties: a played parameter that is moved becomes another one."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells for the device, as `export` makes them, and their results."""
    folder = tmp_path_factory.mktemp("played") / "box"
    command = [sys.executable, "-m", "harness", "export", str(folder), "--creator", "v0140"]
    subprocess.run([*command, "-k", " or ".join(SCENARIOS)], cwd=REPOSITORY, check=True, capture_output=True)
    plan = json.loads((folder / "plan.json").read_text())
    plan["cells"] = [cell for cell in plan["cells"] if cell["id"].partition("@")[0] in SCENARIOS]
    for cell in plan["cells"]:
        cell["id"] = cell["id"].replace("[cpu]", "[played]")
    (folder / "plan.json").write_text(json.dumps(plan))
    meta = json.loads((folder / "judge.json").read_text())
    meta["plan"] = hashlib.sha256((folder / "plan.json").read_bytes()).hexdigest()
    (folder / "judge.json").write_text(json.dumps(meta))
    return folder


def alone(environments: Environments, box: Path, out: Path, **more: str) -> subprocess.CompletedProcess[str]:
    python = environments.build("current").python
    command = [str(python), str(box / "worker"), "--plan", str(box / "plan.json"), "--out", str(out)]
    command += ["--device", "played", "--handler", str(HANDLER)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **more}, timeout=600, check=False)


def test_every_probe_runs_where_no_tensor_may_lie_on_the_cpu(environments: Environments, box: Path) -> None:
    done = alone(environments, box, box / "out")
    assert done.returncode == 0, done.stderr
    said = json.loads((box / "out" / "hello.json").read_text())["facts"]["gpu"]
    assert (said["usable"], said["capability"]) == (True, "9.0")
    subprocess.run(
        [sys.executable, "-m", "harness", "judge", str(box), "--reports", str(box / "reports")],
        cwd=REPOSITORY, capture_output=True, check=False,
    )  # fmt: skip
    (report,) = (box / "reports").iterdir()
    cells = {cell.scenario: cell for cell in run_file.load(report).cells}
    assert set(cells) == set(SCENARIOS)
    for cell in cells.values():
        failed = {name: probe.outcome for name, probe in cell.probes.items() if probe.outcome == "error"}
        assert not failed, cell.findings
        assert cell.gpu_peak_mb == 1.5
    unknown = {str(cell.verdict) for cell in cells.values() if not cell.expected}
    assert unknown == {"close"}, "another Transformers, and nothing else but known breaks"


def test_a_busy_one_is_no_regression(environments: Environments, box: Path, tmp_path: Path) -> None:
    copy = tmp_path / "box"
    shutil.copytree(box, copy, ignore=shutil.ignore_patterns("out", "reports"))
    done = alone(environments, copy, copy / "out", PLAYED_BUSY="1")
    assert done.returncode == 2
    assert "all CUDA-capable devices are busy or unavailable" in done.stderr
    assert not (copy / "out" / "cells").exists()


@pytest.mark.nightly
def test_a_whole_session_on_it(environments: Environments, tmp_path: Path) -> None:
    """New adapters, their CPU goldens on the GPU, goldens of its class, and these again: what a real GPU will do."""
    fakes = REPOSITORY / "tests" / "support" / "fakes"
    steps = ("own-cpu", "own-cuda", "own-goldens", "own-again")
    done = subprocess.run(
        [str(REPOSITORY / "tools" / "gpu_session.sh"), "--python", str(fakes / "played_python"), "--minutes", "60",
         "--out", str(tmp_path / "out"), *(word for step in steps for word in ("--only", step))],
        env={**os.environ, "PYTHON": sys.executable, "PLAYED_PYTHON": str(environments.build("current").python)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GPU: NVIDIA Played, architecture 9.0" in done.stdout
    assert f"end: clean: {', '.join(steps)}" in done.stdout
    with tarfile.open(tmp_path / "out" / "3-goldens.tar.gz") as archive:
        archive.extractall(tmp_path / "home", filter="data")
    store = Store(tmp_path / "home" / "fixtures")
    manifests = [store.manifest(creator, name) for creator in store.creators() for name in store.scenarios(creator)]
    assert len(manifests) >= 5
    assert all(set(one.goldens) == {"cpu", "cuda-sm90"} for one in manifests)
