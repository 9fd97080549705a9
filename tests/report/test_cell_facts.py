"""What the facts of a cell say, and what they must not say."""

from __future__ import annotations

from harness.core.run import Cell, CheckpointKeys, Figures, Finding, ProbeResult
from harness.core.verdict import Verdict
from harness.report import cell_facts
from tests.support import samples


def said(cell: Cell) -> dict[str, str]:
    return {fact.label: fact.value for fact in cell_facts.facts(cell) if fact.label}


def test_tensors_are_counted_by_load_path() -> None:
    keys = CheckpointKeys(total=12, arrived=12, lost_by={"transformers": ("a", "b", "c", "d")})
    assert cell_facts.arrived(keys) == "12 of 12 tensors arrived by PeftModel.from_pretrained, 8 by transformers"


def test_a_tensor_that_can_not_be_recognised_did_not_fail_to_arrive() -> None:
    keys = CheckpointKeys(total=4, arrived=3, constant=1)
    assert cell_facts.arrived(keys) == "3 of 3 tensors arrived (1 of one value each can't be recognised)"


def test_a_tensor_that_does_not_arrive_for_the_creator_either_is_counted_too() -> None:
    keys = CheckpointKeys(total=4, arrived=0, lost=("a", "b", "c"))
    assert cell_facts.arrived(keys) == "0 of 4 tensors arrived (1 did not for the creator either)"
    assert cell_facts.arrived(keys.model_copy(update={"undecided": ("d",)})) == "0 of 4 tensors arrived"


def test_tokens_have_no_greatest_difference() -> None:
    tokens = Figures(
        array="generate/float32/tokens", dtype="int64", elements=11, differing=4, max_abs=32.0, index=(0, 7),
        golden=35.0, now=3.0,
    )  # fmt: skip
    finding = Finding(probe="generate", kind="values", verdict=Verdict.SILENT_WRONG, message="m", figures=tokens)
    probes = {"generate": ProbeResult(verdict=Verdict.SILENT_WRONG, outcome="ok", figures=(tokens,))}
    cell = samples.cell("a", Verdict.SILENT_WRONG, findings=(finding,), probes=probes)
    facts = said(cell)
    assert facts["elements"] == "4 of 11 of generate/float32/tokens differ"
    assert facts["first"] == "golden 35, now 3 at [0, 7]"
    assert "greatest" not in facts
    assert cell_facts.probe_rows(cell) == [("generate", "silent-wrong", tokens.array, "4 differ", "", "")]


def test_an_error_is_not_shown_with_the_size_of_something_sound() -> None:
    sound = Figures(array="forward/float32/logits", dtype="float32", max_abs=1e-7, allowance=1e-6)
    error = Finding(probe="merged", kind="error", verdict=Verdict.RUN_ERROR, message="no", error_type="KeyError")
    probes = {"forward": ProbeResult(verdict=Verdict.CLOSE, outcome="ok", figures=(sound,))}
    cell = samples.cell("a", Verdict.RUN_ERROR, findings=(error,), probes=probes)
    assert not {"elements", "greatest", "values"} & set(said(cell))


def test_an_effect_that_was_not_measured_is_not_called_zero() -> None:
    measured = Figures(array="layers/float32/q", dtype="float32")
    probes = {"layers": ProbeResult(verdict=Verdict.CLOSE, outcome="ok", figures=(measured,))}
    in_part = samples.cell("a", Verdict.SILENT_WRONG, base_delta=1e-6, probes=probes)
    assert cell_facts.moved(in_part) == "adapter's effect not measured in full, base model 1.00e-06"
    assert cell_facts.moved(in_part.model_copy(update={"probes": {}})).startswith("adapter's effect not measured, ")
    assert cell_facts.moved(in_part.model_copy(update={"base_delta": None})) == ""


def test_what_is_not_as_known_is_beside_what_was_found() -> None:
    note = "known break `lokr`, but not as known: layers values: found the effect is 0, known is factor alpha/r"
    rows = [(fact.label, fact.value) for fact in cell_facts.facts(samples.wrong("lokr-a", notes=("further", note)))]
    labels = [label for label, _ in rows]
    assert ("not known", note) in rows
    assert labels.index("found") < labels.index("not known") < labels.index("greatest")
    assert [value for label, value in rows if label == "note"] == ["further"]
