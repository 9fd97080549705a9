"""Doors on hand-made observations: each way in which one can be broken, and what must raise no alarm."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.scenario import Scenario
from harness.core.verdict import Verdict as V
from harness.judge import numbers
from harness.judge.judgement import Judgement
from harness.judge.numbers import Noise
from harness.worker.shared import LOAD_PATHS
from tests.support.observations import KEYS, Pair, Side

DOOR = "door.auto"


def opened(side: Side, off: float = 0.0, lost: tuple[str, ...] = (), probe: str = DOOR) -> None:
    """A door through which the adapter comes, its outputs moved by so much, without these tensors."""
    for precision in ("float32", "float64"):
        side.probes.setdefault(probe, {})[precision] = {"outcome": "ok"}
        forward = side.arrays[f"forward/{precision}/logits"]
        side.arrays[f"{probe}/{precision}/logits"] = (forward + off).astype(forward.dtype)
    side.facts[probe] = {"tensors": {key: {"found": "nowhere" if key in lost else "whole", "at": []} for key in KEYS}}


def said(side: Side, outcome: str, text: str = "no") -> None:
    """A door that raised, or that is not there."""
    error = {"stage": "state dict", "type": "KeyError", "message": text, "traceback": ""}
    more: dict[str, Any] = {"error": error} if outcome == "error" else {"reason": text}
    side.probes[DOOR] = {"float32": {"outcome": outcome, **more}}


def kinds(judgement: Judgement) -> set[tuple[str, str]]:
    return {(f.probe, f.kind) for f in judgement.findings}


def test_an_open_door_is_no_news() -> None:
    pair = Pair()
    opened(pair.golden)
    opened(pair.now)
    judgement = pair.judge()
    assert judgement.verdict is V.CLOSE
    assert judgement.probes[DOOR].verdict is V.CLOSE
    assert not judgement.findings


def test_another_output_is_silent_wrong_and_the_door_is_named() -> None:
    pair = Pair()
    opened(pair.golden)
    opened(pair.now, off=1e-3)
    judgement = pair.judge()
    assert judgement.verdict is V.SILENT_WRONG
    assert kinds(judgement) == {(DOOR, "auto-differs")}
    assert "the load path auto (AutoPeftModel….from_pretrained)" in judgement.findings[0].message
    assert judgement.findings[0].figures is not None
    assert judgement.probes["forward"].verdict is V.CLOSE


def test_that_there_is_no_adapter_behind_it_is_told() -> None:
    pair = Pair()
    opened(pair.golden)
    opened(pair.now)
    for precision in ("float32", "float64"):
        pair.now.arrays[f"{DOOR}/{precision}/logits"] = pair.now.arrays[f"base/{precision}/logits"]
    assert "as if there were no adapter" in pair.judge().findings[0].message


def test_a_dropped_key_is_seen_though_the_outputs_are_equal() -> None:
    pair = Pair()
    opened(pair.golden)
    opened(pair.now, lost=KEYS[-1:])
    judgement = pair.judge()
    assert judgement.verdict is V.SILENT_WRONG
    assert kinds(judgement) == {(DOOR, "auto-lost-tensors")}
    assert judgement.findings[0].details == KEYS[-1:]


def test_what_is_nowhere_behind_any_door_is_not_the_door_s_doing() -> None:
    pair = Pair()
    for side in (pair.golden, pair.now):
        opened(side, lost=KEYS[-1:])
        side.facts["accounting"]["tensors"][KEYS[-1]] = {"found": "nowhere", "at": []}
    assert pair.judge().verdict is V.CLOSE


def test_a_door_that_raises_is_a_run_error_with_its_stage() -> None:
    pair = Pair()
    opened(pair.golden)
    said(pair.now, "error")
    judgement = pair.judge()
    assert judgement.verdict is V.RUN_ERROR
    assert (judgement.findings[0].probe, judgement.findings[0].stage) == (DOOR, "state dict")
    assert judgement.findings[0].kind == "auto-error"
    assert judgement.findings[0].message.startswith("the load path auto (")


@pytest.mark.parametrize("creators", ["skipped", "missing"])
def test_a_door_that_the_creator_had_not_yet_is_judged_all_the_same(creators: str) -> None:
    for broken, verdict in ((lambda side: opened(side, off=0.5), V.SILENT_WRONG), (_raises, V.RUN_ERROR)):
        pair = Pair()
        if creators == "skipped":
            said(pair.golden, "skipped")
        broken(pair.now)
        assert pair.judge().verdict is verdict


def _raises(side: Side) -> None:
    said(side, "error")


def test_what_the_creator_could_not_do_either_is_a_standing_defect() -> None:
    pair = Pair()
    opened(pair.golden, off=0.5, lost=KEYS[:1])
    opened(pair.now, off=0.5, lost=KEYS[:1])
    judgement = pair.judge()
    assert judgement.verdict is V.CLOSE
    assert len([text for text in judgement.standing_defects if "as for the creator" in text]) == 2
    assert judgement.probes[DOOR].verdict is V.NOT_COMPARABLE

    said(pair.golden, "error")
    said(pair.now, "error")
    pair.now.drop(DOOR)
    assert any("the door auto" in text for text in pair.judge().standing_defects)


def test_worse_than_for_the_creator_is_a_finding() -> None:
    pair = Pair()
    opened(pair.golden, off=0.01)
    opened(pair.now, off=0.5)
    judgement = pair.judge()
    assert judgement.verdict is V.SILENT_WRONG
    assert "by more than for the creator" in judgement.findings[0].message


def test_a_door_that_is_not_there_is_told_and_no_alarm() -> None:
    pair = Pair()
    opened(pair.golden)
    said(pair.now, "skipped", "this PEFT has no AutoPeftModel (it came with 0.4)")
    judgement = pair.judge()
    assert judgement.verdict is V.CLOSE
    assert judgement.probes[DOOR].verdict is V.UNSUPPORTED
    assert any("is not available: this PEFT has no AutoPeftModel" in note for note in judgement.notes)


def test_a_door_that_is_as_wrong_as_all_has_nothing_of_its_own_to_answer_for() -> None:
    pair = Pair()
    opened(pair.golden)
    pair.move_outputs(0.1)
    opened(pair.now)
    judgement = pair.judge()
    assert not [f for f in judgement.findings if f.probe == DOOR]
    assert judgement.probes[DOOR].verdict is V.SILENT_WRONG


def test_a_door_that_is_right_where_the_ordinary_one_is_wrong_is_told() -> None:
    pair = Pair()
    opened(pair.golden)
    opened(pair.now)
    pair.move_outputs(0.1)
    judgement = pair.judge()
    assert not [f for f in judgement.findings if f.probe == DOOR]
    assert any(
        "the output is the golden's, though PeftModel.from_pretrained gives another" in note for note in judgement.notes
    )


def test_a_door_that_rounds_coarsely_excuses_no_other_probe() -> None:
    side = Side(1)
    before = numbers.measure(side.observed()).relative["outputs"]
    opened(side)
    side.arrays[f"{DOOR}/float32/logits"] = side.arrays[f"{DOOR}/float32/logits"] + 1.0
    noise = numbers.measure(side.observed())
    assert noise.relative["outputs"] == before
    assert noise.of(f"{DOOR}/float32/logits", side.arrays["forward/float32/logits"]) >= 1.0
    assert Noise(relative={"outputs": 1.0}).of("door.new/float32/logits", side.arrays["forward/float32/logits"]) > 0


SCENARIO = {"name": "x", "why": "x", "base": "x", "adapter": {"config": "X"}}


@pytest.mark.parametrize(
    ("declared", "tried"),
    [([], ()), (["mixed", "auto"], ("auto", "mixed")), ("all", tuple(LOAD_PATHS))],
)
@pytest.mark.parametrize("key", ["load_paths", "doors"])
def test_declared_load_paths_are_tried_in_one_order(key: str, declared: Any, tried: tuple[str, ...]) -> None:
    assert Scenario.model_validate({**SCENARIO, key: declared}).every_load_path() == tried


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ({"load_paths": ["side"]}, "no such load path: side; load paths are auto, "),
        ({"load_paths": ["auto", "auto"]}, "a load path is named twice"),
        ({"load_paths": "all", "doors": "all"}, "old spelling"),
        ({"load_paths": "some"}, "all"),
        ({"steps": {"names": ["baked"]}}, "no such step: baked; steps are base, "),
        ({"load_paths": ["auto"], "skip": {"door.mixed": "no"}}, "no such probe: door.mixed"),
    ],
)
def test_a_slip_in_what_is_declared_is_told(declared: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Scenario.model_validate({**SCENARIO, **declared})


def test_a_declared_door_can_be_left_out_with_a_reason() -> None:
    scenario = Scenario.model_validate({**SCENARIO, "load_paths": "all", "skip": {"door.mixed": "no"}})
    assert "mixed" in scenario.every_load_path()
