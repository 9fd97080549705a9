"""The types of adapter parameters behind every load path: each wrong one is a finding, a wider one is not."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.verdict import Verdict
from tests.support.observations import Pair, told

NAME = "layers.0.q_proj.lora_A.weight"
HEAD = "score.modules_to_save.weight"


def _pair(paths: dict[str, dict[str, str]], *, autocasts: bool = True, precision: str = "float16") -> Pair:
    pair = Pair()
    pair.now.facts["types"] = {precision: paths}
    pair.now.facts["autocasts"] = autocasts
    return pair


FLOAT32 = {NAME: "float32", HEAD: "float16"}
HALF = {NAME: "float16", HEAD: "float16"}

WRONG: list[tuple[str, dict[str, dict[str, str]], str, str]] = [
    (
        "load_adapter casts",
        {"": FLOAT32, "load-adapter": HALF},
        "door.load-adapter",
        "load-adapter-dtype",
    ),
    ("loading for training casts", {"": FLOAT32, "is_trainable": HALF}, "structure", "trainable-dtype"),
    ("from_pretrained casts", {"": HALF, "get_peft_model": HALF}, "structure", "adapter-not-autocast"),
    ("a path casts to a third type", {"": FLOAT32, "inject": {NAME: "bfloat16"}}, "door.inject", "inject-dtype"),
]


@pytest.mark.parametrize(("paths", "probe", "kind"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_narrower_type_is_a_contract(paths: dict[str, dict[str, str]], probe: str, kind: str) -> None:
    judgement = _pair(paths).judge()
    assert judgement.verdict is Verdict.CONTRACT, told(judgement)
    assert [(f.probe, f.kind) for f in judgement.findings] == [(probe, kind)], told(judgement)


def test_new_adapters_that_are_wider_accuse_loading() -> None:
    judgement = _pair({"": HALF, "get_peft_model": FLOAT32}, autocasts=False).judge()
    assert [f.kind for f in judgement.findings] == ["adapter-dtype"], told(judgement)


@pytest.mark.parametrize(
    ("paths", "more"),
    [
        ({"": FLOAT32, "load-adapter": FLOAT32}, {}),
        ({"": FLOAT32, "low-cpu-mem": {NAME: "float32", HEAD: "float32"}}, {}),  # wider: nothing is lost
        ({"": FLOAT32, "inject": HALF, "weighted-cat": HALF}, {}),  # their functions promise no autocast
        (
            {"": HALF, "load-adapter": HALF, "get_peft_model": HALF},
            {"autocasts": False},
        ),  # 0.7 to 0.10: the base's type
        ({"": {NAME: "float32"}, "auto": {NAME: "float32"}}, {"precision": "float32"}),
    ],
)
def test_what_loses_nothing_is_no_finding(paths: dict[str, dict[str, str]], more: dict[str, Any]) -> None:
    judgement = _pair(paths, **more).judge()
    assert not judgement.findings, told(judgement)
