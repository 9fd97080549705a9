"""A model of the hub, played by a tiny one that lies on disk as in the hub's cache."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.envs.environments import Environments
from tests.integration.conftest import Said

pytestmark = [pytest.mark.integration, pytest.mark.nightly]

REVISION = "0123456789abcdef0123456789abcdef01234567"
MAKE = """
import sys, torch, transformers
torch.manual_seed(0)
config = transformers.OPTConfig(
    vocab_size=48, hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=64, init_std=0.3, pad_token_id=1, bos_token_id=2, eos_token_id=2,
)
transformers.OPTForCausalLM(config).half().save_pretrained(sys.argv[1])
"""
BASE = f"""
why = "x"
outputs = ["logits"]
[hub]
repo = "me/tiny"
revision = "{REVISION}"
model = "OPTForCausalLM"
[inputs]
input_ids = {{ kind = "tokens", shape = [2, 6], low = 4, high = 48 }}
attention_mask = {{ kind = "mask", shape = [2, 6], pad_right = [0, 2] }}
"""
SCENARIO = """
[[scenario]]
name = "tiny-lora"
why = "x"
base = "tiny"
[scenario.adapter]
config = "LoraConfig"
args = { task_type = "CAUSAL_LM", r = 4, lora_alpha = 6, lora_dropout = 0.0, target_modules = ["q_proj", "v_proj"] }
"""


@pytest.fixture
def hub(environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache with the model in half precision, as real ones are; and matrices with a scenario on it."""
    cache = tmp_path / "cache"
    model = cache / "models--me--tiny"
    python = environments.build("v0140").python
    subprocess.run([str(python), "-c", MAKE, str(model / "snapshots" / REVISION)], check=True, capture_output=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(REVISION)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    for name, text in (("bases/tiny", BASE), ("scenarios/real", SCENARIO)):
        path = tmp_path / "matrices" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return model / "snapshots" / REVISION


def test_made_stored_and_replayed_with_hub_alone(hub: Path, peft_regress: Callable[..., Said], tmp_path: Path) -> None:
    where = ["--matrices", str(tmp_path / "matrices"), "--loader", "current"]
    said = peft_regress("pair", *where, "--creator", "v061")
    assert said.code == 64
    assert "needs --hub" in said.err
    said = peft_regress("pair", *where, "--creator", "v061", "--creator", "v0140", "--hub")
    assert said.code == 0, said.out + said.err
    assert {cell["verdict"] for cell in said.report["cells"]} <= {"exact", "close"}
    assert len(said.report["cells"]) == 2
    for file in hub.iterdir():
        file.unlink()
    said = peft_regress("pair", *where, "--creator", "v061", "--hub")
    assert said.code == 2
    assert said.verdicts == {"tiny-lora": "no-fixture"}
    assert "hf download me/tiny" in said.report["cells"][0]["reason"]
