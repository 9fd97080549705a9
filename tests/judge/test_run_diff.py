"""Two runs compared."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.run import Cell, Figures, Run
from harness.core.verdict import Verdict
from harness.judge import run_diff
from tests.support import samples
from tests.support.samples import cell, exact, known, run, wrong

CHANGES = [
    # before, now, change
    ("exact", "exact", None),
    ("exact", "close", None),
    ("exact", "warned", None),
    ("exact", "silent-wrong", "regressed"),
    ("close", "contract", "regressed"),
    ("contract", "silent-wrong", "regressed"),
    ("silent-wrong", "contract", "still"),
    ("silent-wrong", "silent-wrong", "still"),
    ("crash", "exact", "fixed"),
    ("exact", "env-failed", "gone"),
    ("silent-wrong", "no-fixture", "gone"),
    ("exact", "unsupported", "gone"),
    ("exact", None, "gone"),
    (None, "exact", "new"),
    (None, "silent-wrong", "new"),
    ("bad-fixture", "exact", "new"),
    ("env-failed", "crash", "new"),
    ("env-failed", "env-failed", None),
    (None, "env-failed", None),
    ("unsupported", "unsupported", None),
]


def _run(verdict: str | None, **more: Any) -> Run:
    # The second cell keeps two runs of one loader from sharing nothing.
    return run(*([cell("lora-a", verdict)] if verdict else []), exact("lora-other"), **more)


@pytest.mark.parametrize(("before", "now", "change"), CHANGES)
def test_how_a_cell_changed(before: str | None, now: str | None, change: str | None) -> None:
    found = run_diff.compare(_run(before), _run(now))
    assert [comparison.change for comparison in found] == ([change] if change else [])
    if found:
        assert (found[0].before, found[0].now) == (before and Verdict(before), now and Verdict(now))
        assert found[0].cell == "lora-a@v061:current[cpu]"


def test_the_same_verdict_in_another_way_or_by_more_is_a_regression() -> None:
    def found(now: Cell) -> list[tuple[str, str]]:
        return [(one.change, one.why) for one in run_diff.compare(run(wrong("lokr-a")), run(now))]

    def by(factor: float) -> Cell:
        first = wrong("lokr-a")
        findings = [f.model_copy(update={"figures": f.figures and larger(f.figures, factor)}) for f in first.findings]
        return first.model_copy(update={"findings": tuple(findings)})

    def larger(figures: Figures, factor: float) -> Figures:
        return figures.model_copy(update={"max_abs": figures.max_abs * factor})

    assert found(by(1.0)) == [("still", "")]
    assert found(by(0.5)) == [("still", "")]
    ((change, why),) = found(by(2.0))
    assert (change, "the size is" in why) == ("regressed", True)
    ((change, why),) = found(by(float("inf")))
    assert (change, "not finite" in why) == ("regressed", True)


def test_a_new_warning_is_a_regression_under_strict() -> None:
    assert run_diff.compare(_run("exact"), _run("warned", strict=True))[0].change == "regressed"


def test_an_expectation_does_not_hide_that_a_cell_regressed() -> None:
    found = run_diff.compare(run(exact("lokr-a")), run(known(wrong("lokr-a"))))
    assert [comparison.change for comparison in found] == ["regressed"]


def test_a_run_against_itself_has_no_change_but_what_still_deviates() -> None:
    for sample in (samples.every_verdict(), samples.regressed(), samples.clean(), samples.empty()):
        assert {comparison.change for comparison in run_diff.compare(sample, sample)} <= {"still"}


def test_two_loaders_are_compared_scenario_by_scenario() -> None:
    found = run_diff.compare(run(exact("lora-a", loader="peft==0.20.0")), run(wrong("lora-a", loader="../peft")))
    assert [(c.cell, c.change) for c in found] == [("lora-a@v061:../peft[cpu]", "regressed")]


def test_against_puts_the_comparison_into_the_run() -> None:
    now = run_diff.against(samples.regressed(), samples.green())
    assert now.baseline == samples.green().id
    assert now.comparisons
