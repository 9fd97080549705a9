"""The types of adapter parameters behind every load path: each wrong one is a finding, a wider one is not."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.verdict import Verdict
from harness.judge.judgement import Judgement
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
    (
        "a path leaves a parameter without values",
        {"": FLOAT32, "auto": {NAME: "float32 on meta"}},
        "door.auto",
        "auto-dtype",
    ),
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


def _loaded_without_dtype(base: str, adapter: str) -> dict[str, Any]:
    return {"outcome": "ok", "base": [base], "adapter": {NAME: adapter}}


def _as_saved(before: dict[str, Any], after: dict[str, Any]) -> Judgement:
    pair = Pair()
    pair.golden.facts["as_saved"], pair.now.facts["as_saved"] = before, after
    return pair.judge()


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (("float32", "float32"), ("bfloat16", "float32"), [("base", "base-dtype")]),
        (("bfloat16", "float32"), ("bfloat16", "bfloat16"), [("structure", "as-saved-dtype")]),
        (("bfloat16", "bfloat16"), ("bfloat16", "float32"), []),  # wider: nothing is lost
        (("bfloat16", "float32"), ("bfloat16", "float32"), []),
    ],
)
def test_a_base_that_is_loaded_without_a_dtype(
    before: tuple[str, str], after: tuple[str, str], kinds: list[tuple[str, str]]
) -> None:
    judgement = _as_saved(_loaded_without_dtype(*before), _loaded_without_dtype(*after))
    assert [(f.probe, f.kind) for f in judgement.findings] == kinds, told(judgement)


def test_a_base_that_no_longer_loads_without_a_dtype() -> None:
    error = {"stage": "base", "type": "ValueError", "message": "no", "traceback": ""}
    judgement = _as_saved(_loaded_without_dtype("float32", "float32"), {"outcome": "error", "error": error})
    assert judgement.verdict is Verdict.LOAD_ERROR, told(judgement)
