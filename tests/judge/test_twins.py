"""A tensor that is found in its twin's place only was lost."""

from __future__ import annotations

import pytest

from harness.core.verdict import Verdict
from harness.judge import twins
from tests.support.observations import KEYS, Pair, told

EMBEDDING, HEAD = "base_model.model.embed.weight", "base_model.model.lm_head.weight"
IN_EMBEDDING, IN_HEAD = "embed.modules_to_save.weight", "lm_head.modules_to_save.weight"

Places = dict[str, list[str]]
Ties = list[list[str]]
TIED: Ties = [[IN_EMBEDDING, IN_HEAD]]
ONE: Places = {EMBEDDING: [IN_EMBEDDING], HEAD: [IN_EMBEDDING]}
BOTH: Places = {EMBEDDING: [IN_EMBEDDING, IN_HEAD], HEAD: [IN_EMBEDDING, IN_HEAD]}

#: name, the creator's places and ties, the loader's, lost
TABLE: list[tuple[str, Places, Ties, Places, Ties, list[str]]] = [
    ("tied on both sides", ONE, TIED, ONE, TIED, []),
    ("untied, and only one was loaded", ONE, TIED, ONE, [], [HEAD]),
    ("untied, and both were loaded", ONE, TIED, BOTH, [], []),
    ("tied only now", BOTH, [], ONE, TIED, []),
    ("never in its own place", ONE, [], ONE, [], []),
    ("tied under another name", ONE, TIED, ONE, [[IN_EMBEDDING, "output.weight"]], []),
    ("both under other names", ONE, TIED, {EMBEDDING: ["tokens.weight"], HEAD: ["tokens.weight"]}, [], []),
    ("in each other's place", {"a.lora_B": ["a.lora_B"], "b.lora_B": ["b.lora_B"]}, [],
     {"a.lora_B": ["b.lora_B"], "b.lora_B": ["a.lora_B"]}, [], []),
    ("nowhere, which is found without this", ONE, TIED, {EMBEDDING: [], HEAD: []}, [], []),
    ("a transpose in its twin", {"a.lora_A.weight": ["b.lora_B"], "b.lora_B": ["b.lora_B"]},
     [["a.lora_A.weight", "b.lora_B"]], {"a.lora_A.weight": ["b.lora_B"], "b.lora_B": ["b.lora_B"]}, [],
     ["a.lora_A.weight"]),
]  # fmt: skip


def pair(places: Places, ties: Ties, places_now: Places, ties_now: Ties) -> Pair:
    made = Pair()
    for side, at, tied in ((made.golden, places, ties), (made.now, places_now, ties_now)):
        for key, where in at.items():
            side.facts["accounting"]["tensors"][key] = {"found": "whole" if where else "nowhere", "at": where}
        for key in KEYS:
            side.facts["accounting"]["tensors"][key] = {"found": "whole", "at": [key.removeprefix("base_model.model.")]}
        side.facts["structure"]["ties"] = tied
    return made


@pytest.mark.parametrize("row", [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_tensor_in_its_twin_alone_is_lost(row: tuple[Places, Ties, Places, Ties, list[str]]) -> None:
    made = pair(*row[:4])
    assert twins.lost(made.golden.observed(), made.now.observed()) == row[4]


def test_such_a_loss_is_silent_and_does_not_count_as_arrived() -> None:
    made = pair(ONE, TIED, ONE, [])
    made.now.shift("forward", 0.3)
    judgement = made.judge()
    found = next(f for f in judgement.findings if f.kind == "lost-tensors")
    assert (found.verdict, found.details) == (Verdict.SILENT_WRONG, (HEAD,)), told(judgement)
    assert judgement.keys is not None
    assert (judgement.keys.arrived, judgement.keys.total) == (5, 6)


def test_the_outputs_decide_about_it() -> None:
    judgement = pair(ONE, TIED, ONE, []).judge()
    assert "lost-tensors" not in {f.kind for f in judgement.findings}
    assert judgement.keys is not None
    assert judgement.keys.undecided == (HEAD,)
