"""The standard is what the adapter computed when it was saved: creators that cannot read back what they wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Said, kinds

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("real")]

NAMED_HEAD = {
    "base.py": """
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(8, 8)
        self.lora_head = torch.nn.Linear(8, 5)

    def forward(self, x):
        return self.lora_head(torch.relu(self.body(x)))


def build():
    return Model()
""",
    "scenario.toml": """
[[scenario]]
name = "saved-module-named-lora-head"
why = "A module that is saved whole has the method's prefix in its name."
guards = ["https://github.com/huggingface/peft/issues/3433"]
base_file = "base.py"

[scenario.inputs]
x = { kind = "uniform", shape = [5, 8], low = -1, high = 1 }

[scenario.adapter]
config = "LoraConfig"
args = { r = 4, lora_alpha = 6, target_modules = ["body"], modules_to_save = ["lora_head"] }
""",
}


def cells(said: Said) -> dict[str, Any]:
    """Loader → its cell."""
    return {cell["loader"]: cell for cell in said.report["cells"]}


def test_biases_that_were_not_saved_are_wrong_for_everybody(peft_regress: Callable[..., Said]) -> None:
    said = peft_regress("check", "--cell", "vera-bias@v0200:*", "--loader", "v0200", "--loader", "current")
    own, newer = cells(said)["v0200"], cells(said)["current"]
    assert own["verdict"] == newer["verdict"] == "silent-wrong", said.out
    assert own["creators_own"].startswith("silent-wrong: the output differs by 0.262")
    assert own["findings"][0]["message"].endswith("as after the creator's own reload")
    assert newer["expectation"] == "bias-only-unsaved"
    assert said.code == 0


def test_a_release_that_reads_what_its_creator_loses_is_fixed(
    tmp_path: Path, peft_regress: Callable[..., Said]
) -> None:
    for name, text in NAMED_HEAD.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    loaders = ("--loader", "v0140", "--loader", "current")
    said = peft_regress("pair", "--scenarios", str(tmp_path / "scenario.toml"), "--creator", "v0140", *loaders)
    own, newer = cells(said)["v0140"], cells(said)["current"]
    assert own["verdict"] == "silent-wrong"
    assert "lost-tensors" in kinds(own)
    assert newer["verdict"] in ("exact", "close"), said.out
    assert "this loader computes what was saved" in newer["fixed"][0]


def test_a_creator_that_refuses_its_own_file_is_kept(
    mutant: Callable[[str], str], peft_regress: Callable[..., Said]
) -> None:
    creator = mutant("refusing")
    said = peft_regress("pair", "--creator", creator, "--loader", "current", "--loader", creator, "-k", "lora-linear")
    own, newer = (next(c for c in said.report["cells"] if (c["loader"] == "current") is now) for now in (False, True))
    assert own["verdict"] == "load-error", said.out
    assert own["creators_own"].startswith("load-error: ")
    assert newer["verdict"] in ("exact", "close"), said.out
    assert newer["fixed"]
