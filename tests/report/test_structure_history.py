"""In which releases the structure of a model changes."""

from __future__ import annotations

from harness.core.run import Cell, EnvironmentReport, ProbeResult, Run
from harness.core.verdict import Verdict
from harness.report import markdown, structure_history
from harness.report.html import render
from tests.support import samples
from tests.support.samples import cell, trained

HALF = "lora_A, lora_B (8 parameters): float32 → bfloat16"
NORMS = "norm layers (5 parameters): bfloat16 → float32"


def environment(release: str) -> EnvironmentReport:
    """With this release of TRL, on one and the same PEFT."""
    found = samples.environment(f"trl-{release}", "0.17.1")
    return found.model_copy(update={"versions": {**found.versions, "trl": release}})


ENVIRONMENTS = tuple(environment(f"0.{minor}.0") for minor in (7, 8, 9, 10, 11))


def run(*cells: Cell) -> Run:
    return samples.run(*cells, environments=ENVIRONMENTS)


def seen(creator: str, loader: str, *lines: str, scenario: str = "sft-bf16") -> Cell:
    return trained(f"trl-0.{creator}.0", f"trl-0.{loader}.0", *lines, scenario=scenario)


def test_the_releases_of_the_creators_in_which_it_was_otherwise() -> None:
    lines = (f"constructed: {HALF}", f"trained: {HALF}")
    cells = [seen("7", "11", *lines), seen("8", "11", *lines), seen("9", "11"), seen("10", "11")]
    (row,) = structure_history.rows(run(*cells))
    assert row.texts == (
        "trl", HALF, "constructed, trained", "0.7.0–0.8.0", "0.11.0", "saved with 0.9.0–0.10.0", "sft-bf16",
    )  # fmt: skip


def test_the_releases_of_the_loaders_since_which_it_is_otherwise() -> None:
    cells = [seen("7", "8"), seen("7", "9", f"trained: {HALF}"), seen("7", "10", f"trained: {HALF}"), seen("7", "11")]
    (row,) = structure_history.rows(run(*cells))
    assert (row.creators, row.loaders, row.alike) == ("0.7.0", "0.9.0–0.10.0", "loaded with 0.8.0, 0.11.0")


def test_scenarios_that_change_in_the_same_releases_share_a_row_and_others_do_not() -> None:
    cells = [seen(creator, "11", f"trained: {HALF}", scenario=name) for name in "ab" for creator in "78"]
    cells += [seen("7", "11", f"trained: {HALF}", scenario="c"), seen("8", "11", scenario="c")]
    assert [(row.scenarios, row.creators) for row in structure_history.rows(run(*cells))] == [
        (("a", "b"), "0.7.0–0.8.0"),
        (("c",), "0.7.0"),
    ]


def test_a_change_that_is_seen_after_other_steps_is_not_alike_there() -> None:
    cells = [seen("7", "11", f"reloaded: {HALF}", f"trained: {HALF}"), seen("8", "11", f"trained: {HALF}")]
    assert [(row.after, row.alike) for row in structure_history.rows(run(*cells))] == [
        (("trained", "reloaded"), ""),
        (("trained",), ""),
    ]


def test_what_was_not_tried_is_not_alike() -> None:
    skipped = ProbeResult(verdict=Verdict.UNSUPPORTED, outcome="skipped")
    untried = [cell("sft-bf16", "unsupported", "trl-0.8.0", "trl-0.11.0"),
               cell("sft-bf16", "exact", "trl-0.9.0", "trl-0.11.0", probes={"sft": skipped})]  # fmt: skip
    (row,) = structure_history.rows(run(seen("7", "11", f"trained: {HALF}"), *untried))
    assert row.alike == ""


def test_a_preparation_goes_by_the_releases_of_peft() -> None:
    one = trained("v061", "current", f"prepared: {NORMS}", scenario="bnb4-lora", probe="steps")
    (row,) = structure_history.rows(samples.run(one))
    assert (row.package, row.change, row.creators, row.loaders) == ("peft", NORMS, "0.6.1", "0.21.2")


def test_the_reports_have_the_table_where_there_is_something_in_it() -> None:
    changed, alike = run(seen("7", "11", f"trained: {HALF}")), run(seen("7", "11"))
    for text in (markdown.render(changed), render.render(changed).decode()):
        assert "Structure, by release" in text
        assert HALF in text
    for text in (markdown.render(alike, verbose=True), render.render(alike).decode()):
        assert "Structure, by release" not in text
