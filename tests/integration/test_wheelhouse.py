"""A real environment, packed, built without an index, and used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core.run_file import load
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.nightly]


def peft_regress(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **more}, capture_output=True, text=True, timeout=900
    )


def test_a_packed_environment_checks_cells_without_network(tmp_path: Path) -> None:
    box = tmp_path / "v061"
    said = peft_regress("env", "pack", "v061", "--to", str(box))
    assert said.returncode == 0, said.stderr
    nowhere = tmp_path / "pip.conf"
    nowhere.write_text("[global]\nindex-url = http://127.0.0.1:9/simple\n")
    without = {name: "" for name in os.environ if name.startswith(("PIP_", "UV_"))} | {
        "PIP_CONFIG_FILE": str(nowhere), "UV_HTTP_RETRIES": "0", "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9", "PEFT_REGRESS_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    said = peft_regress("env", "build", "v061", "--wheelhouse", str(box), **without)
    assert said.returncode == 0, said.stderr
    where = ["--creator", "v061", "--loader", "v061", "--cell", "lora-linear@*", "--reports", str(tmp_path / "reports")]
    said = peft_regress("check", *where, **without)
    assert said.returncode == 0, said.stdout + said.stderr
    (report,) = (tmp_path / "reports").iterdir()
    assert {str(cell.verdict) for cell in load(report).cells} == {"exact"}
