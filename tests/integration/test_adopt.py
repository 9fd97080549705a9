"""Architectures that nobody listed shrink, and a small scenario shows what the whole adapter shows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.cli.main import main
from harness.core.matrix import Matrix
from harness.envs.environments import Environments
from harness.runner.workers import process
from harness.worker.files import parse_json
from tests.integration.test_given import take_out
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NAMES = """
afmoe albert apertus arcee aria bamba bart beit bert bigbird_pegasus big_bird biogpt bitnet blenderbot bloom clip
codegen cohere cohere2 ctrl deberta deberta-v2 deepseek_v3 deit diffllama dinov2 dinov3_vit distilbert doge electra
ernie ernie4_5 exaone4 falcon falcon_h1 falcon_mamba flex_olmo funnel gemma gemma2 gemma3 gemma3_text gemma3n_text glm
glm4 glm4_moe gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite granitemoe helium idefics3 internvl jamba jetmoe
led lfm2 llama llama4_text llava longformer longt5 m2m_100 mamba marian mbart minimax mistral mistral3 mixtral
modernbert mpnet mpt mt5 nemotron nystromformer olmo olmo2 olmoe opt paligemma pegasus persimmon phi phi3 phimoe
plbart qwen2 qwen2_moe qwen2_vl qwen3 qwen3_moe qwen3_next recurrent_gemma rembert roberta roformer rwkv seed_oss
siglip smollm3 stablelm starcoder2 swin switch_transformers t5 t5gemma umt5 vit vit_mae whisper xglm xlm xlm-roberta
xlnet yolos
"""
ARCHITECTURES = NAMES.split()
EXCEPT = {
    "aria": "its table of queries is by numbers of patches, as keys",
    "bamba": "the default configuration has no attention layer, which it cannot run",
    "beit": "the default configuration has no relative positions, which it cannot run",
    "idefics3": "inputs: an image has one dimension more",
    "internvl": "inputs: patches are joined before they become tokens",
    "mistral3": "inputs: it wants the sizes of the images",
    "nemotron": "the default configuration has no number of key and value heads",
    "qwen2_vl": "the default configuration has different widths of image and text",
}
"""Those that are not run to the end, and why. A surprise here fails the test, too."""
LARGE = 700_000
LARGER = {"falcon_h1": 3_000_000}


def test_default_configurations_shrink_and_run(environments: Environments, tmp_path: Path) -> None:
    python = environments.build("current").python
    done = subprocess.run(
        [str(python), "-W", "ignore", str(REPOSITORY / "tests/support/own/architectures.py"), *ARCHITECTURES],
        env=process.environment({"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}) | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [parse_json(line) for line in done.stdout.splitlines() if line.startswith("{")]
    said = {one["architecture"]: one for one in lines}
    assert sorted(said) == sorted(ARCHITECTURES), done.stderr[-2000:]
    failed = {name: f"{one['step']}: {one['said']}" for name, one in said.items() if one["step"] != "ok"}
    print(f"{len(said) - len(failed)} of {len(said)} architectures shrink, run, and take a LoRA")
    assert sorted(failed) == sorted(EXCEPT), json.dumps(failed, indent=1)
    large = {name: one["bytes"] for name, one in said.items() if one["bytes"] > LARGER.get(name, LARGE)}
    assert not large


def adopt(tmp_path: Path, creator: str, scenario: str, *more: str) -> int:
    """Adopt a stored adapter as if a user had it; the exit code."""
    take_out(creator, scenario, tmp_path / "given")
    return main([
        "adopt", str(tmp_path / "given/adapter"), "--base", str(tmp_path / "given/base"), "--name", "mine",
        "--from", creator, "--to-matrices", str(tmp_path / "matrices"), "--reports", str(tmp_path / "reports"), *more,
    ])  # fmt: skip


def test_a_scenario_still_shows_what_the_adapter_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = adopt(tmp_path, "v061", "lokr-alpha-differs")
    said = capsys.readouterr().err
    assert code == 0, said
    assert "still shows silent-wrong (values" in said
    (declared,) = Matrix(tmp_path / "matrices").scenarios()
    assert declared.base.transformers is not None


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("lora-bias-all", "still shows silent-wrong (lost-tensors"),
        ("lora-neox-head", "still shows silent-wrong (gradients-missing, layers-missing, lost-tensors"),
        ("lora-vit-regex", "still shows load-error (error peft.utils.error.NoMatchingPeftModuleError)"),
        ("prompt-tuning-classifier", "still shows run-error (error UnboundLocalError)"),
        ("prefix-tuning-t5", "still shows silent-wrong (values)"),
    ],
)
def test_known_breaks_survive(tmp_path: Path, capsys: pytest.CaptureFixture[str], scenario: str, said: str) -> None:
    code = adopt(tmp_path, "v061", scenario)
    err = capsys.readouterr().err
    assert code == 0, err
    assert said in err
