"""`try` on an adapter that a plain script trained: from folder to verdict, and the commands that work on its cell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.envs.environments import Environments
from harness.store import tensor_file
from tests.integration.conftest import Said
from tests.support.mini.world import REPOSITORY
from tests.support.own.folders import listing
from tests.support.own.made import Maker

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REMOTE = Path(__file__).parent / "declared" / "remote_code"


@pytest.fixture(scope="module")
def own(environments: Environments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoKr adapter of PEFT 0.6.1, in a `.bin`, with alpha twice the rank; and its base's config.json."""
    maker, folder = Maker(environments, tmp_path_factory.mktemp("made")), tmp_path_factory.mktemp("own")
    shutil.copytree(maker.adapter("lokr_alpha"), folder / "my adapter")
    shutil.copy(maker.base("lokr_alpha") / "config.json", folder)
    return folder


@pytest.fixture(scope="module")
def tried(own: Path) -> tuple[Said, list[dict[str, tuple[int, int, str]]]]:
    before = [listing(own / "my adapter")]
    return Said.of(own, "try", str(own / "my adapter"), "--base", str(own / "config.json")), before


def test_a_known_break_is_found_and_named_to_its_owner(
    tried: tuple[Said, list[dict[str, tuple[int, int, str]]]],
) -> None:
    said, _ = tried
    assert said.verdicts == {"my-adapter": "silent-wrong"}, said
    assert said.code == 1
    assert "does not compute the same (silent-wrong)" in said.err
    assert "known break lokr-scaled-by-alpha-over-r" in said.err
    assert "workaround" in said.err


def test_the_report_says_what_was_cut(tried: tuple[Said, list[dict[str, tuple[int, int, str]]]]) -> None:
    (cell,) = tried[0].report["cells"]
    assert "cut: layers 0, 1 are left of 4" in cell["notes"]


def test_the_users_folder_is_as_it_was(own: Path, tried: tuple[Said, list[dict[str, tuple[int, int, str]]]]) -> None:
    assert listing(own / "my adapter") == tried[1][0]


@pytest.mark.usefixtures("tried")
def test_the_cut_file_is_a_bin_with_the_users_values(own: Path) -> None:
    source, (target,) = own / "my adapter/adapter_model.bin", (own / "reports/own").glob("*/adapter/adapter_model.bin")
    before, after = (tensor_file.read(path) for path in (source, target))
    assert 0 < len(after.tensors) < len(before.tensors)
    for key, tensor in after.tensors.items():
        assert tensor.of(target.read_bytes()) == before.tensors[key].of(source.read_bytes()), key


@pytest.mark.nightly
def test_show_and_repro_work_on_the_cell(own: Path, tried: tuple[Said, list[dict[str, tuple[int, int, str]]]]) -> None:
    (cell,) = tried[0].report["cells"]
    for command in (["show", cell["id"]], ["repro", cell["id"], "--out", str(own / "repro")]):
        done = subprocess.run(
            [sys.executable, "-m", "harness", *command, "--reports", str(own / "reports")],
            cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An adapter of a model that only its own Python files know."""
    shutil.copytree(REMOTE, tmp_path / "base")
    (tmp_path / "adapter-of-tiny").mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["up_proj"]}
    (tmp_path / "adapter-of-tiny/adapter_config.json").write_text(json.dumps(config))
    random = np.random.default_rng(1)
    tensors = {
        f"base_model.model.layers.{layer}.up_proj.lora_{part}.weight": random.standard_normal(shape, np.float32)
        for layer in range(4)
        for part, shape in (("A", (4, 32)), ("B", (64, 4)))
    }
    save_file(tensors, tmp_path / "adapter-of-tiny/adapter_model.safetensors")
    return tmp_path


@pytest.mark.nightly
@pytest.mark.parametrize(("more", "code"), [([], 2), (["--trust-remote-code"], 0)])
def test_a_bases_own_code_is_executed_only_if_the_user_says_so(tiny: Path, more: list[str], code: int) -> None:
    home = tiny / "home"
    said = Said.of(
        tiny, "try", str(tiny / "adapter-of-tiny"), "--base", str(tiny / "base"), "--from", "v0191", *more,
        HF_HOME=str(home),
    )  # fmt: skip
    assert said.code == code, said
    assert ("--trust-remote-code" in said.err) is (not more)
    assert not (home / "modules").exists(), "Transformers copies code into the user's cache"
