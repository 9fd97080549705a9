"""SFTTrainer in real environments: a release that prepares a model otherwise is seen; a loader may have no TRL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.run import Run
from harness.report import structure_history
from tests.integration.conftest import Said
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.xdist_group("real")]

CREATOR, CHANGED, WITHOUT = "trl-0240", "trl-0262", "bnb-v0171"
SCENARIO = "sft-8bit-bf16"


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    command = ["create", CREATOR, "--fixtures", str(folder), "-k", SCENARIO]
    subprocess.run([sys.executable, "-m", "harness", *command], cwd=REPOSITORY, check=True, timeout=900)
    return folder


@pytest.fixture
def replay(peft_regress: Callable[..., Said], fixtures: Path) -> Callable[..., Said]:
    def run(*loaders: str) -> Said:
        cell = ["--creator", CREATOR, *(f"--loader={name}" for name in loaders), "--cell", f"{SCENARIO}@*"]
        return peft_regress("check", "--fixtures", str(fixtures), *cell)

    return run


def test_the_same_release_prepares_and_trains_alike(replay: Callable[..., Said]) -> None:
    assert replay(CREATOR).verdicts == {SCENARIO: "exact"}


def test_the_release_that_leaves_norms_and_adapter_narrow_is_seen(replay: Callable[..., Said]) -> None:
    said = replay(CHANGED)
    assert "structure-steps" in said.kinds(SCENARIO)
    lines = {line for f in said.report["cells"][0]["findings"] for line in f.get("details", [])}
    assert "constructed: norm layers (5 parameters): float32 → bfloat16" in lines
    assert said.code == 1


def test_the_report_says_since_which_release(replay: Callable[..., Said]) -> None:
    found = structure_history.rows(Run.model_validate(replay(CREATOR, CHANGED).report))
    assert {(row.package, row.creators, row.loaders, row.alike) for row in found} == {
        ("trl", "0.24.0", "0.26.2", "loaded with 0.24.0")
    }
    assert "norm layers (5 parameters): float32 → bfloat16" in {row.change for row in found}


def test_a_loader_without_trl_loads_what_was_trained(replay: Callable[..., Said]) -> None:
    said = replay(WITHOUT)
    assert not said.kinds(SCENARIO) & {"structure-steps", "probe-lost", "values"}
    assert any("TRL is not installed here" in note for note in said.report["cells"][0]["notes"])
