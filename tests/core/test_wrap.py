"""The wrappers that a scenario may declare, and what the worker gets of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core import matrix
from harness.core.matrix import Declared
from harness.core.scenario import Base, Scenario
from harness.core.verdict import Verdict as V
from harness.worker.model import wrappers
from tests.support.observations import KEYS, Pair

SCENARIO = {"name": "x", "why": "x", "base": "x", "adapter": {"config": "X"}}


def declared(**wrap: Any) -> Scenario:
    """A scenario with this wrapping."""
    return Scenario.model_validate({**SCENARIO, "wrap": wrap})


@pytest.mark.parametrize(
    ("wrap", "text"),
    [
        ({"saved": ["cling-film"]}, "no such wrapper: 'cling-film'; wrappers are attribute:NAME, "),
        ({"saved": ["attribute"]}, "write `attribute:NAME`"),
        ({"loaded": ["attribute:not.a.name"]}, "write `attribute:NAME`"),
        ({"loaded": ["compile:fast"]}, "`compile` takes no name"),
        ({"saved": ["adapter:first"]}, r"add \[scenario.wrap.adapters.first\]"),
        ({"saved": ["peft", "compile", "peft"]}, "names `peft` twice"),
        ({"around": []}, "around"),
    ],
)
def test_a_typo_is_reported(wrap: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        declared(**wrap)


def test_the_worker_gets_wrappers_and_other_digests_stay() -> None:
    base = Base.model_validate({"why": "x", "modules": [{"name": "a", "type": "Linear"}]})
    plain, wrapped = (
        matrix.resolve(Declared(scenario, base, "x", Path("x.toml"), {}), {"peft": "0.9"})
        for scenario in (Scenario.model_validate(SCENARIO), declared(saved=["compile"]))
    )
    assert wrapped["wrap"] == {"saved": ["compile"], "loaded": [], "adapters": {}}
    assert not {"wrap", "doors"} & set(plain)


@pytest.mark.parametrize(
    ("wrap", "saved", "loaded", "differs"),
    [
        ({}, False, False, False),
        ({"saved": ["compile"]}, True, False, True),
        ({"saved": ["compile"], "loaded": ["compile"]}, True, True, False),
        ({"saved": ["peft"]}, False, False, False),
        ({"saved": ["peft", "compile"], "loaded": ["compile", "peft"]}, True, True, True),
    ],
)
def test_around_what_the_wrappers_are(wrap: dict[str, Any], saved: bool, loaded: bool, differs: bool) -> None:
    scenario = {"wrap": wrap}
    assert [wrappers.is_wrapped(scenario, when) for when in ("saved", "loaded")] == [saved, loaded]
    assert wrappers.is_wrapped(scenario) == (saved or loaded)
    assert wrappers.differ(scenario) == differs


def test_a_loss_in_the_creators_own_library_is_reported_too() -> None:
    pair = Pair()
    nowhere = {key: {"found": "nowhere", "at": []} for key in KEYS}
    pair.now.facts["accounting"]["tensors"] = nowhere
    pair.golden.facts["wrap"] = {"outcome": "ok", "tensors": nowhere}
    for precision in ("float32", "float64"):
        pair.now.arrays[f"forward/{precision}/logits"] = pair.now.arrays[f"base/{precision}/logits"]
    judgement = pair.judge()
    assert judgement.verdict is V.SILENT_WRONG
    assert any("the creator's own library loses 4 of them too" in note for note in judgement.notes)
