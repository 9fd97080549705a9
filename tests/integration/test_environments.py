"""Real environments: an edit stays in one and is found, and equal runs have equal figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core import data
from harness.envs.environments import Environments
from tests.end_to_end.test_environments import figures
from tests.integration.conftest import Said
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.xdist_group("real")]


def test_equal_runs_of_real_cells_have_equal_figures(peft_regress: Callable[..., Said]) -> None:
    chosen = ("check", "--creator", "v061", "--creator", "v0132", "--each", "-k")
    one = peft_regress(*chosen, "adalora or ia3 or loha", "--jobs", "1").report
    other = peft_regress(*chosen, "ia3 or adalora", "--jobs", "2", PYTHONHASHSEED="7").report
    first, second = ({cell["id"]: figures(cell) for cell in run["cells"]} for run in (one, other))
    assert len(second) > 20
    assert {id: first[id] for id in second} == second


def test_an_edit_stays_in_a_real_environment(environments: Environments, tmp_path: Path) -> None:
    usual = environments.site_packages("v061")
    environ = os.environ | {"PEFT_REGRESS_CACHE": str(tmp_path), "UV_CACHE_DIR": str(data.cache() / "uv")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True)

    check = ("check", "--creator", "v061", "--loader", "v061", "-k", "lora-linear", "--reports", str(tmp_path / "r"))
    assert run("env", "build", "v061").returncode == 0
    assert run(*check).returncode == 0
    edited = next(tmp_path.glob("envs/v061-*/lib/*/site-packages/peft/tuners/lora/layer.py"))
    edited.write_text(edited.read_text().replace("lora_alpha / r", "lora_alpha / r * 9"))

    assert run(*check).returncode == 2
    report = max(tmp_path.glob("r/*/report.json"), key=lambda path: path.stat().st_mtime_ns)
    cells = json.loads(report.read_text())["cells"]
    assert {cell["verdict"] for cell in cells} <= {"env-failed", "unsupported"}
    assert any("peft/tuners/lora/layer.py (peft 0.6.1) differs" in cell["reason"] for cell in cells)
    if usual is not None:
        assert "lora_alpha / r * 9" not in (usual / "peft" / "tuners" / "lora" / "layer.py").read_text()

    assert run("env", "verify", "v061").returncode == 2
    assert run("env", "build", "--rebuild", "v061").returncode == 0
    assert run("env", "verify", "v061").returncode == 0
    assert run(*check).returncode == 0
