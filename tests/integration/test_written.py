"""What real releases write and in which types they load it: the breaks that are known, kept as they were found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Said, kinds

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

BASE = """
import torch


class Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(8, 8)

    def forward(self, x):
        return torch.tanh(self.inner(x))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.beside = Part()
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.beside(x))


def build():
    return Model()
"""

SCENARIO = """
[[scenario]]
name = "other-adapter-named-like-a-module"
why = "The other adapter is called as a part of the base is: saving leaves that part's tensors out."
base_file = "base.py"

[scenario.inputs]
x = { kind = "uniform", shape = [5, 8], low = -1, high = 1 }

[scenario.adapter]
config = "LoraConfig"
args = { r = 4, lora_alpha = 6, target_modules = ["inner", "head"] }

[scenario.beside]
config = "LoraConfig"
args = { r = 2, lora_alpha = 5, target_modules = ["inner", "head"] }
"""


def test_tensors_that_are_no_longer_saved(peft_regress: Callable[..., Said], tmp_path: Path) -> None:
    """0.17.1 saves four tensors, 0.21.2 two of them: https://github.com/huggingface/peft/issues/3584."""
    (tmp_path / "base.py").write_text(BASE, encoding="utf-8")
    (tmp_path / "scenario.toml").write_text(SCENARIO, encoding="utf-8")

    said = peft_regress("pair", "--creator", "v0171", "--loader", "current", "--scenarios", str(tmp_path))

    (cell,) = said.report["cells"]
    assert cell["verdict"] == "silent-wrong", cell
    assert {"reloaded-differs", "written-keys"} <= kinds(cell)
    lost = next(finding for finding in cell["findings"] if finding["kind"] == "written-keys")
    assert len(lost["details"]) == 2


@pytest.mark.parametrize(
    ("creator", "loader", "scenario", "verdict", "kind"),
    [
        ("v0140", "current", "lora-base-in-bfloat16", "contract", "base-dtype"),
        ("v0200", "current", "lora-base-in-bfloat16", "close", None),
        ("v061", "v061", "lora-plain-base-in-bfloat16", "contract", "load-adapter-dtype"),
        ("v061", "current", "lora-plain-base-in-bfloat16", "close", None),
    ],
)
def test_types_on_a_base_in_bfloat16(
    creator: str, loader: str, scenario: str, verdict: str, kind: str | None, peft_regress: Callable[..., Said]
) -> None:
    said = peft_regress("check", "--creator", creator, "--loader", loader, "--cell", f"{scenario}@*")

    (cell,) = said.report["cells"]
    assert cell["verdict"] == verdict, cell
    assert kind is None or kinds(cell) == {kind}
    assert said.code == 0, "the breaks are known"
