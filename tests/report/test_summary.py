"""The short texts of a report: the changes, the facts of a cell."""

from __future__ import annotations

import pytest

from harness.report import cell_facts, summary
from tests.support import samples


def test_changes_are_ordered_by_importance() -> None:
    found = summary.changes(samples.against_baseline())
    assert list(found) == ["regressed", "new", "gone", "fixed", "still"]
    assert [summary.arrow(every[0]) for every in found.values()] == [
        "exact → silent-wrong",
        "– → silent-wrong",
        "exact → –",
        "load-error → close",
        "silent-wrong",
    ]


def test_a_change_that_is_a_known_break_says_so() -> None:
    rows = summary.change_rows(samples.against_baseline())
    assert rows["still"] == [("silent-wrong (known break)", "lokr-old@v061:current[cpu]")]
    assert rows["regressed"] == [("exact → silent-wrong", "lokr-alpha@v061:current[cpu]")]


def test_the_facts_of_a_deviation_in_the_order_of_the_questions() -> None:
    rows = {fact.label: fact.value for fact in cell_facts.facts(samples.wrong("lokr-alpha"))}
    assert rows == {
        "found": "forward: the output differs; the first layer that differs is model.layers.0.self_attn.q_proj",
        "elements": "640 of 640 of forward/float32/logits beyond the allowance",
        "greatest": "|Δ| 0.791 at [0, 3, 17], allowance 4.10e-07, so 1.9e+06×",
        "values": "golden -0.41250001, now 0.37873455 (golden's RMS 0.37)",
        "starts at": "model.layers.0.self_attn.q_proj (adapter), |Δ| 0.26, allowance 1.10e-07",
        "moved by": "adapter's effect 0.262, base model 3.00e-08",
        "checkpoint": "8 of 8 tensors arrived",
        "new warning": "UserWarning: Unsupported layer type is found",
        "probes": "silent-wrong: forward, merged; exact: base; skipped: generate",
        "see more": "peft-regress show 'lokr-alpha@v061:current[cpu]'",
        "reproduce": "peft-regress check --creator v061 --loader current -k lokr-alpha",
    }
    assert list(rows)[-1] == "reproduce"


def test_lost_tensors_are_named() -> None:
    rows = {fact.label: fact.value for fact in cell_facts.facts(samples.lost("lora-bias-all"))}
    assert rows["found"] == "accounting: 4 of 12 tensors of the checkpoint are nowhere in the loaded model"
    assert rows["also"].startswith("merged, forward: ")
    assert rows["checkpoint"] == "8 of 12 tensors arrived"
    assert rows["never arrived"].startswith("4: base_model.model.model.layers.0.self_attn.q_proj.bias, ")


def test_details_with_their_own_label_appear_once() -> None:
    cell = samples.lost("lora-bias-all")
    assert cell.keys is not None
    found = cell.findings[-1].model_copy(update={"details": (*cell.keys.lost, "another detail")})
    rows = cell_facts.facts(cell.model_copy(update={"findings": (found,)}))
    assert [row.value for row in rows if row.label == ""] == ["another detail"]


def test_an_error_has_its_stage_type_message_and_tail() -> None:
    rows = {fact.label: fact.value for fact in cell_facts.facts(samples.refused("adalora-gpt2", "no such key"))}
    assert rows["found"] == "state dict: RuntimeError: no such key"
    assert rows["traceback"] == "File x.py, line 3\nRuntimeError: no such key"


def test_long_lists_are_cut_and_counted_except_in_show() -> None:
    many = samples.wrong("lokr-alpha", config_differences=tuple(f"key{n}" for n in range(9)))
    config = [fact.value for fact in cell_facts.facts(many) if fact.value.startswith(("key", "5"))]
    assert config == ["key0", "key1", "key2", "key3", "5 more (see `show`)"]
    assert sum(fact.value.startswith("key") for fact in cell_facts.facts(many, whole=True)) == 9


def test_only_packages_that_differ_are_shown_the_important_ones_first() -> None:
    run = samples.regressed()
    assert cell_facts.package_rows(run, run.cells[0]) == [
        ("peft", "0.6.1", "0.21.2"),
        ("transformers", "4.35.2", "5.23.0"),
        ("accelerate", "0.24.1", "1.9.0"),
    ]


def test_probes_have_their_error_and_their_allowance() -> None:
    rows = cell_facts.probe_rows(samples.wrong("lokr-alpha"))
    assert rows[0] == ("forward", "silent-wrong", "forward/float32/logits", "0.791", "4.10e-07", "1.9e+06×")
    assert rows[3] == ("generate", "skipped", "the base has no generate", "", "", "")


@pytest.mark.parametrize(
    ("issue", "expires", "lasts", "reference"),
    [
        ("https://x/1", "2027-06-30", "until 2027-06-30", "https://x/1, until 2027-06-30"),
        ("https://x/1", "", "permanent", "https://x/1, permanent"),
        ("", "", "", ""),
    ],
)
def test_how_long_a_known_break_counts(issue: str, expires: str, lasts: str, reference: str) -> None:
    cell = samples.known(samples.wrong("a"), issue).model_copy(update={"expectation_expires": expires})
    assert (summary.lasts(cell), summary.reference(cell)) == (lasts, reference)


def test_where_a_cause_shows() -> None:
    from harness.judge import causes

    cause = causes.unexpected(samples.across_releases())[0]
    assert summary.reach(cause) == "creators 0.6.1–0.9.0, 0.13.2, loaders 0.20.0–0.21.2, 1 scenario: lokr-alpha"
    assert summary.since(cause) == "first bad creator 0.6.1, first bad loader 0.20.0"
