"""The main job on the real thing: what PEFT 0.6.1 saved, under the newest libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Said
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

SOUND = {"exact", "close", "warned"}
PROMPT_LEARNING = {
    "doors-prompt-tuning",
    "p-tuning-lstm",
    "p-tuning-mlp",
    "prefix-tuning",
    "prefix-tuning-gpt2",
    "prefix-tuning-t5",
    "prompt-tuning",
    "prompt-tuning-opt",
}
"""What generates the wrong tokens since Transformers 5.24."""


@pytest.mark.nightly
def test_it_finds_the_known_breaks_and_nothing_else_of_their_kind(peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("check", "--creator", "v061", "--loader", "current")

    silently_wrong = {name for name, verdict in said.verdicts.items() if verdict == "silent-wrong"}
    assert silently_wrong == {
        "doors-lora-patterns",
        "lokr-alpha-differs",
        "lokr-alpha-differs-conv2d",
        "lora-bias-all",
        "lora-bias-all-mlp",
        "lora-bias-lora-only",
        "lora-bias-lora-only-mlp",
        "lora-clip-vision-suffix",
        "lora-neox-head",
        "lora-neox-save-head",
        *PROMPT_LEARNING,
        "tied-save-embedding-t5",
        "wrap-attribute-loaded",
        "wrap-attribute-saved",
        "wrap-compile-loaded",
        "wrap-compile-saved",
        "wrap-data-parallel-saved",
        "wrap-peft-on-peft-both",
    }
    assert said.code == 0, said.out
    assert "known break" in said.out
    assert len(said.verdicts) > 80


def test_a_loader_reads_its_own_fixtures_to_the_bit(peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("check", "--creator", "v061", "--loader", "v061", "-k", "linear or tied or prompt or adalora")

    assert set(said.verdicts.values()) == {"exact", "unsupported"}
    assert said.code == 0


def test_what_the_loader_cannot_tell_apart_is_computed_once(peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("check", "--all", "--loader", "current", "-k", "ia3-gpt2")

    computed = {cell["id"] for cell in said.report["cells"] if not cell.get("same_as")}
    taken_over = {cell["id"]: cell["same_as"] for cell in said.report["cells"] if cell.get("same_as")}
    assert len(taken_over) > 4
    assert set(taken_over.values()) <= computed
    assert "could not be asked" not in said.err


def test_the_pinned_environment_makes_the_same_bytes_again() -> None:
    command = [sys.executable, "-m", "harness", "fixtures", "verify", "--recreate", "v061"]
    done = subprocess.run(
        [*command, "-k", "lora-linear or ia3 or lokr or adalora-gpt2"], cwd=REPOSITORY, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout
    assert "same" in done.stdout
    assert "differs" not in done.stdout


BASE = """
import torch


class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(6, 8)
        self.second = torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)) ** 2)


def build():
    return Odd()
"""

SCENARIOS = """
[[scenario]]
name = "odd-lora"
why = "a base that the declarative form can't say"
base_file = "odd.py"
inputs.x = { kind = "uniform", shape = [3, 6], low = -1, high = 1 }
adapter = { config = "LoraConfig", args = { r = 2, lora_alpha = 5, target_modules = ["first", "second"] } }
expects.keys = { "*lora_A.weight" = 2, "*lora_B.weight" = 2 }

[[scenario]]
name = "odd-lokr"
why = "the known break on a base that nobody has seen"
base_file = "odd.py"
inputs.x = { kind = "uniform", shape = [3, 6], low = -1, high = 1 }
adapter = { config = "LoKrConfig", args = { r = 2, alpha = 5, target_modules = ["first"], init_weights = false } }
"""


def test_a_pair_takes_scenarios_from_outside(peft_regress: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(BASE)
    (tmp_path / "odd.toml").write_text(SCENARIOS)

    said = peft_regress("pair", "--creator", "v061", "--loader", "current", "--scenarios", str(tmp_path / "odd.toml"))

    assert said.verdicts["odd-lora"] in {"exact", "close"}
    assert said.verdicts["odd-lokr"] == "silent-wrong"
    assert said.code == 1
