"""The structure after each step, as lines that can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.judge import structure_steps
from harness.judge.contracts import Found
from tests.support.observations import Pair, told

NORMS = ("layers.0.input_layernorm.weight", "layers.1.input_layernorm.weight", "norm.weight")
FACTORS = tuple(f"layers.{n}.q_proj.lora_{part}.weight" for n in (0, 1) for part in "AB")


def structure() -> dict[str, Any]:
    return {
        "outcome": "ok",
        "parameters": {name: ["bfloat16", False] for name in NORMS} | {name: ["float32", True] for name in FACTORS},
        "modules": {name.rpartition(".")[0]: "LlamaRMSNorm" for name in NORMS},
        "adapter_layers": {"layers.0.q_proj": "Linear4bit", "layers.1.q_proj": "Linear4bit"},
    }


def pair_of(change: Callable[[dict[str, Any]], None]) -> Pair:
    pair = Pair()
    for side in (pair.golden, pair.now):
        side.facts["steps"] = {"steps": {"prepared": structure(), "wrapped": structure()}}
        side.probes["steps"] = {"float32": {"outcome": "ok"}}
    change(pair.now.facts["steps"]["steps"])
    return pair


def put(names: tuple[str, ...], place: int, value: object, step: str = "prepared") -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        for name in names:
            found[step]["parameters"][name][place] = value

    return change


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda found: found["wrapped"]["parameters"].pop(name)


def another_class(found: dict[str, Any]) -> None:
    found["prepared"]["modules"]["norm"] = "RMSNorm"


def raising(found: dict[str, Any]) -> None:
    error = {"stage": "wrapped", "type": "ValueError", "message": "no", "traceback": ""}
    found["wrapped"] = {"outcome": "error", "error": error}


TABLE = [
    (put(NORMS, 0, "float32"), "prepared: norm layers (3 parameters): bfloat16 → float32"),
    (put(FACTORS, 0, "bfloat16", "wrapped"), "wrapped: lora_A, lora_B (4 parameters): float32 → bfloat16"),
    (put(FACTORS[:1], 1, False), "prepared: lora_A (1 parameter): trainable → frozen"),
    (without(FACTORS[0]), "wrapped: lora_A (1 parameter): no longer there"),
    (another_class, "prepared: norm layers (1 module): LlamaRMSNorm → RMSNorm"),
    (raising, "wrapped: worked, and now is error: ValueError: no"),
    (lambda found: found.pop("wrapped"), "wrapped: worked, and now is missing: no reason is known"),
]


@pytest.mark.parametrize(("change", "line"), TABLE, ids=[line for _, line in TABLE])
def test_what_differs_is_one_line(change: Callable[[dict[str, Any]], None], line: str) -> None:
    found = pair_of(change).judge()
    assert found.verdict == "contract", told(found)
    assert [(f.kind, f.details) for f in found.findings] == [("structure-steps", (line,))]


def unchanged(_found: dict[str, Any]) -> None:
    pass


def test_norms_are_told_apart_from_what_changes_with_them() -> None:
    before, after = structure(), structure()
    for name in (*NORMS, *FACTORS):
        before["parameters"][name][0], after["parameters"][name][0] = "float32", "bfloat16"
    assert structure_steps.difference("prepared", before, after) == [
        "prepared: norm layers (3 parameters): float32 → bfloat16",
        "prepared: lora_A, lora_B (4 parameters): float32 → bfloat16",
    ]


def test_the_same_structure_is_no_finding() -> None:
    assert pair_of(unchanged).judge().findings == ()


def test_what_a_release_calls_its_adapter_layers_is_told_and_no_finding() -> None:
    def renamed(found: dict[str, Any]) -> None:
        found["wrapped"]["adapter_layers"] = dict.fromkeys(found["wrapped"]["adapter_layers"], "Linear")

    found = pair_of(renamed).judge()
    assert found.findings == ()
    assert "wrapped: adapter layers of q_proj (2 modules): Linear4bit → Linear" in found.notes


def test_a_step_that_the_creator_could_not_take_is_a_note() -> None:
    pair = pair_of(unchanged)
    pair.golden.facts["steps"]["steps"]["wrapped"] = {"outcome": "skipped", "reason": "no such argument"}
    found = pair.judge()
    assert not found.findings
    assert "wrapped: works now; for the creator it was skipped: no such argument" in found.notes


def test_who_declares_no_steps_is_not_asked() -> None:
    found = Found()
    pair = Pair()
    structure_steps.compare(pair.golden.observed(), pair.now.observed(), found)
    assert (found.findings, found.notes) == ([], [])
