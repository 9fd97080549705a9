"""What differs between the two sides of a PR check, where the golden cannot tell or nobody asked it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from harness.core import observation
from harness.core.comparison import Against
from harness.core.errors import ExitCode
from harness.core.observation import Observed
from harness.core.run import Cell, Finding, ProbeResult, Run
from harness.core.verdict import Verdict
from harness.judge import change, side_by_side
from harness.judge.side_by_side import Differences
from tests.support import samples
from tests.support.samples import cell, exact

AGAINST = Against(spec="../peft", baseline="peft 0.21.2 (current)", loader="checkout", baseline_loader="current")
LOGITS = np.linspace(-1.0, 1.0, 48).reshape(2, 3, 8)
ULP = float(np.finfo(np.float32).eps)
OK = {"float32": {"outcome": "ok"}}
FACTS: dict[str, Any] = {
    "structure": {"inference": {"q.lora_A": [[4, 8], "torch.float32", True]}, "classes": {"q": "Linear"}},
    "second": {"trainable_back": ["first"]},
    "roundtrip": {"lost": [], "added": [], "config": {"r": 4, "peft_version": "0.21.2"}},
    "fresh": {"config": {"r": 4}, "digests": {"a": "1"}, "reloaded": {"outcome": "ok"}},
    "sft": {"losses": [3.25]},
    "closer": {"sensitivity": {"q": 1.0}},
    "listed": {"files": ["adapter_config.json", "adapter_model.safetensors"]},
}


def seen(facts: Mapping[str, Any] | None = None, **more: Any) -> Observed:
    """An observation in both precisions, with something else in it."""
    wide = {f"{probe}/float64/logits": LOGITS for probe in ("forward", "base")}
    # rounding moves float32 by two units in the last place, so that there is a noise to measure
    narrow = {
        f"{probe}/float32/logits": (LOGITS * (1 + 2 * ULP)).astype("f4") for probe in ("forward", "base", "train")
    }
    arrays = {**wide, **narrow, "generate/float32/tokens": np.array([[3, 4, 5]]), **more.pop("arrays", {})}
    probes = dict.fromkeys(("forward", "base", "train", "generate", "structure", "second"), OK)
    facts = {probe: {**FACTS.get(probe, {}), **(facts or {}).get(probe, {})} for probe in {**FACTS, **(facts or {})}}
    said: dict[str, Any] = {"load": {"float32": {"outcome": "ok"}}, "probes": {**probes, **more.pop("probes", {})}}
    return Observed("a", arrays=arrays, facts=facts, **{**said, **more})


def raised(kind: str, message: str, traceback: str = "line 1") -> dict[str, Any]:
    """A probe that raised."""
    error = {"stage": "forward", "type": kind, "message": message, "traceback": traceback}
    return {"float32": {"outcome": "error", "error": error}}


def moved(name: str, by: float) -> dict[str, Any]:
    array = np.asarray(seen().arrays[name])
    return {name: array + np.asarray(by, array.dtype)}


def found(before: Observed, now: Observed) -> list[tuple[str, str, Verdict]]:
    """Probe, kind and verdict of every finding."""
    differences = side_by_side.compare(before, now)
    return [(each.probe, each.kind.removesuffix(side_by_side.DIFFERS), each.verdict)
            for each in (*differences.values, *differences.facts)]  # fmt: skip


VALUES = side_by_side.VALUES
S, C, R, L = Verdict.SILENT_WRONG, Verdict.CONTRACT, Verdict.RUN_ERROR, Verdict.LOAD_ERROR


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (seen(arrays=moved("train/float32/logits", 1e-3)), ("train", VALUES, S)),
        (seen(arrays=moved("forward/float32/logits", 60 * ULP)), ("forward", VALUES, S)),
        (seen(arrays={"train/float32/logits": np.full((2, 3, 8), np.nan, "f4")}), ("train", VALUES, S)),
        (seen(arrays={"train/float32/logits": np.zeros((2, 3), "f4")}), ("train", VALUES, S)),
        (seen(arrays=moved("generate/float32/tokens", 1)), ("generate", VALUES, S)),
        (seen({"second": {"trainable_back": []}}), ("second", "trainable-back", C)),
        (seen({"second": {"trainable_back": ["first", "beside"]}}), ("second", "trainable-back", C)),
        (seen({"structure": {"classes": {"q": "Conv1D"}}}), ("structure", "classes", C)),
        (seen({"structure": {"inference": {"q.lora_A": [[4, 8], "torch.half", True]}}}), ("structure", "inference", C)),
        (seen({"structure": {"inference": {}}}), ("structure", "inference", C)),
        (seen({"roundtrip": {"added": ["q.extra"]}}), ("roundtrip", "added", C)),
        (seen({"roundtrip": {"config": {"r": 8}}}), ("roundtrip", "config", C)),
        (seen({"roundtrip": {"config": {}}}), ("roundtrip", "config", C)),
        (seen({"listed": {"files": ["adapter_config.json"]}}), ("listed", "files", C)),
        (seen(probes={"second": raised("ValueError", "no")}), ("second", "outcome", R)),
        (seen(probes={"second": {"float32": {"outcome": "skipped", "reason": "why"}}}), ("second", "outcome", C)),
        (seen(load={"float32": raised("ValueError", "no")["float32"]}), ("load", "outcome", L)),
        (seen({"fresh": {"reloaded": raised("OSError", "no")["float32"]}}), ("fresh", "outcome", C)),
        (seen(arrays={"train/float32/hidden": np.zeros(3, "f4")}), ("train", "outputs", C)),
    ],
)  # fmt: skip
def test_what_the_author_of_a_change_must_answer_for(now: Observed, expected: tuple[str, str, Verdict]) -> None:
    assert found(seen(), now) == [expected]


@pytest.mark.parametrize(
    "now",
    [
        seen(),
        seen(arrays=moved("train/float32/logits", ULP)),
        seen(arrays=moved("train/float32/logits", 20 * ULP)),  # its noise is estimated, since it has no float64
        seen(arrays={"restored/float32/q": np.ones(3, "f4")}),
        seen({"roundtrip": {"config": {"r": 4, "peft_version": "0.22.0.dev0", "brand_new": False}}}),
        seen({"sft": {"losses": [3.2500001]}}),
        seen({"closer": {"sensitivity": {"q": 2.0}}}),
        seen({"fresh": {"digests": {"a": "2"}, "config": {"r": 8}}}),  # compared as what a change writes
        seen(timings={"forward/float32": 9.0}),
    ],
)
def test_what_is_no_difference(now: Observed) -> None:
    assert side_by_side.compare(seen(), now) == Differences()


@pytest.mark.parametrize(
    ("before", "now", "listed"),
    [
        (seen(), seen(load={"float32": {"outcome": "ok", "warnings": ["W: a"]}}), "new warning: W: a"),
        (seen(load={"float32": {"outcome": "ok", "warnings": ["W: a"]}}), seen(), "no longer warns: W: a"),
        (seen(probes={"second": raised("ValueError", "one")}), seen(probes={"second": raised("ValueError", "two")}),
         "second: ValueError: two; under the baseline ValueError: one"),
        (seen(probes={"second": raised("ValueError", "no")}), seen(),
         "second: ok; under the baseline ValueError: no"),
        (seen({"conversion": {"views": ["a"]}}), seen({"conversion": {"views": ["b"]}}),
         "conversion: views, unlike under the baseline: + b, - a"),
    ],
)  # fmt: skip
def test_what_is_listed_and_not_red(before: Observed, now: Observed, listed: str) -> None:
    assert side_by_side.compare(before, now) == Differences(listed=(listed,))


def test_a_damaged_file_that_loads_without_its_warning_is_red() -> None:
    said = {outcome: {"odd_files": {"lacks_a_key": {"outcome": "ok", **({"warnings": [outcome]} if outcome else {})}}}
            for outcome in ("W: missing", "W: other words", "")}  # fmt: skip
    assert found(seen(said["W: missing"]), seen(said[""])) == [("odd_files", "warning", C)]
    assert not found(seen(said["W: missing"]), seen(said["W: other words"]))
    assert not found(seen(said[""]), seen(said["W: missing"]))


def test_an_error_of_another_type_is_red_and_another_line_of_its_traceback_is_nothing() -> None:
    before = seen(probes={"second": raised("ValueError", "no at 0x7f001122, of 0.21.2", "line 1")})
    assert found(before, seen(probes={"second": raised("KeyError", "no")})) == [("second", "error", C)]
    moved_on = seen(probes={"second": raised("ValueError", "no at 0x7f334455, of 0.22.0", "line 7")})
    assert side_by_side.compare(before, moved_on) == Differences()


def test_rounding_may_choose_another_token_where_the_outputs_round_otherwise() -> None:
    now = seen(arrays={**moved("generate/float32/tokens", 1), **moved("forward/float32/logits", ULP)})
    differences = side_by_side.compare(seen(), now)
    assert not differences.values
    assert "generate: 1 array" in differences.listed[0]


def test_an_observation_survives_packing() -> None:
    before = seen()
    after = observation.unpacked(observation.packed(before))
    assert (after.facts, after.probes, after.load) == (before.facts, before.probes, before.load)
    assert {name: array.tobytes() for name, array in after.arrays.items()} == {
        name: array.tobytes() for name, array in before.arrays.items()
    }
    assert observation.packed(after) == observation.packed(before)
    with pytest.raises(observation.BadObservation):
        observation.unpacked(observation.packed(before)[:-8])


# -- in a check of a change --------------------------------------------------------------------------------------------

TRAIN = seen(arrays=moved("train/float32/logits", 1.0))
FORWARD = seen(arrays={**moved("forward/float32/logits", 1.0), **moved("train/float32/logits", 1.0)})


def held(before: Cell, now: Cell, was: Observed, seen_now: Observed) -> Run:
    now = now.model_copy(update={"id": now.id.replace(":current", ":checkout"), "loader": "checkout"})
    packed = {before.id: observation.packed(was), now.id: observation.packed(seen_now)}
    return change.held(samples.run(now), [before], AGAINST, packed)


def deviating(kind: str = "values", probe: str = "forward", verdict: str = "silent-wrong") -> Cell:
    finding = Finding(probe=probe, kind=kind, verdict=Verdict(verdict), message=kind)
    probes = {probe: ProbeResult(verdict=Verdict(verdict), outcome="ok")}
    return cell("a", verdict, findings=(finding,), probes=probes)


@pytest.mark.parametrize(
    ("before", "now", "observed", "expected", "code"),
    [
        (exact("a"), exact("a"), seen(), [], ExitCode.CLEAN),
        (exact("a"), exact("a"), TRAIN, ["regressed"], ExitCode.REGRESSED),
        (exact("a"), exact("a"), seen({"second": {"trainable_back": []}}), ["regressed"], ExitCode.REGRESSED),
        # the baseline is wrong already: in something else, or in what follows from it
        (deviating(), deviating(), TRAIN, ["regressed"], ExitCode.REGRESSED),
        (deviating(), deviating(), FORWARD, ["still"], ExitCode.CLEAN),
        (deviating(probe="train"), deviating(probe="train"), TRAIN, ["still"], ExitCode.CLEAN),
        (deviating(), deviating(), seen({"second": {"trainable_back": []}}), ["regressed"], ExitCode.REGRESSED),
        # what was wrong is right: the difference may be the fix
        (deviating("trainability", "structure", "contract"), exact("a"), seen({"structure": {"classes": {}}}),
         ["fixed"], ExitCode.CLEAN),
        (cell("a", "not-comparable"), cell("a", "not-comparable"), TRAIN, ["regressed"], ExitCode.REGRESSED),
        (cell("a", "not-comparable"), cell("a", "not-comparable"), seen(), [], ExitCode.CANNOT_TELL),
    ],
)  # fmt: skip
def test_what_a_change_did(before: Cell, now: Cell, observed: Observed, expected: list[str], code: ExitCode) -> None:
    run = held(before, now, seen(), observed)
    assert [comparison.change for comparison in run.comparisons] == expected
    assert run.exit_code == code
    assert not any(each.observed for each in run.cells)


def test_a_difference_that_the_golden_cannot_see_says_what_it_is_and_how_to_see_it_again() -> None:
    run = held(exact("a"), exact("a"), seen(), TRAIN)
    (shown,) = run.deviations
    assert shown.verdict is Verdict.SILENT_WRONG
    assert "train/float32/logits (by 1, allowance" in run.comparisons[0].why
    assert shown.reproduce == "peft-regress check --against ../peft --cell 'a@v061:checkout[cpu]'"


def test_what_is_not_red_is_listed_by_name() -> None:
    now = seen(load={"float32": {"outcome": "ok", "warnings": ["UserWarning: look"]}})
    run = held(exact("a"), exact("a").model_copy(update={"new_warnings": ("load: UserWarning: look",)}), seen(), now)
    assert run.notes == ("unlike under the baseline: new warning: UserWarning: look (a@v061:checkout[cpu])",)
    assert run.cells[0].notes[-1] == "unlike under the baseline: new warning: UserWarning: look"
    moved_too = held(deviating(), deviating(), seen(), FORWARD)
    assert [note.partition(" (")[0] for note in moved_too.notes] == [
        "unlike under the baseline: forward: values differ from the baseline's",
        "unlike under the baseline: train: values differ from the baseline's",
    ]
