"""Two runs held against each other, and shards put together."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.errors import ExitCode, UsageError
from harness.core.run import ExpectationProblem, Run
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


# Shards --------------------------------------------------------------------------------------------------------------

PLAN = tuple(f"lora-{name}@v061:current[cpu]" for name in "abcd")


def _shard(*names: str, verdict: str = "exact", **more: Any) -> Run:
    return run(*(cell(f"lora-{name}", verdict) for name in names), **({"plan": PLAN} | more))


def test_shards_of_one_plan_make_the_whole() -> None:
    one, two = (
        _shard("a", "c", id="s1", duration_s=3),
        _shard("b", "d", id="s2", duration_s=5, timings={"compute": 1.0}),
    )
    whole = run_diff.merge([two, one])
    assert tuple(cell.id for cell in whole.cells) == PLAN
    assert whole.exit_code == ExitCode.CLEAN
    assert whole.counts["exact"] == 4
    assert whole.id in ("s1+s2", "s2+s1")
    assert (whole.duration_s, whole.timings, whole.notes) == (5, {"compute": 1.0}, ())


def test_merging_one_run_changes_nothing_of_weight() -> None:
    sample = samples.every_verdict()
    assert run_diff.merge([sample]) == sample


def test_a_plan_that_the_shards_do_not_fill_is_not_clean() -> None:
    assert run_diff.merge([_shard("a"), _shard("b")]).exit_code == ExitCode.CANNOT_TELL


def test_a_shard_that_was_interrupted_is_made_whole_by_another() -> None:
    assert not run_diff.merge([_shard("a", interrupted=True), _shard("b", "c", "d")]).interrupted
    assert run_diff.merge([_shard("a", interrupted=True), _shard("b", "c")]).interrupted


def test_the_newer_of_two_wins_and_the_cell_says_so() -> None:
    old = _shard("a", verdict="exact", id="old", created="2026-01-01T00:00:00Z")
    new = _shard("a", verdict="contract", id="new", created="2026-01-02T00:00:00Z")
    (found,) = run_diff.merge([new, old]).cells
    assert found.verdict is Verdict.CONTRACT
    assert found.notes == ("shards disagree: exact in old, contract in new; taken from new",)


def test_what_was_judged_wins_over_what_was_not() -> None:
    old = _shard("a", verdict="exact", id="old", created="2026-01-01T00:00:00Z")
    new = _shard("a", verdict="env-failed", id="new", created="2026-01-02T00:00:00Z")
    (found,) = run_diff.merge([old, new]).cells
    assert found.verdict is Verdict.EXACT
    assert "taken from old" in found.notes[0]


def test_agreeing_duplicates_need_no_note() -> None:
    (found,) = run_diff.merge([_shard("a"), _shard("a")]).cells
    assert found.notes == ()


def test_different_plans_are_refused() -> None:
    with pytest.raises(UsageError, match="different plans: 4 cells in one only, as lora-a@v061"):
        run_diff.merge([_shard("a"), run()])
    with pytest.raises(UsageError, match="no run"):
        run_diff.merge([])


def test_an_environment_that_is_not_the_same_in_all_shards_is_noted() -> None:
    newer = samples.environment("current", "0.21.3", "loader")
    whole = run_diff.merge([_shard("a", "b"), _shard("c", "d", environments=(samples.V061, newer), created="2027")])
    assert whole.notes == ("environment current is not the same in all shards: peft 0.21.2 / 0.21.3",)
    assert [environment.name for environment in whole.environments] == ["v061", "current"]


def test_an_expectation_that_is_stale_in_one_shard_only_is_none() -> None:
    stale = ExpectationProblem(id="lokr-alpha", problem="stale", message="nothing deviates")
    other = ExpectationProblem(id="gone", problem="stale", message="nothing deviates")
    plan = ("lora-a@v061:current[cpu]", "lokr-b@v061:current[cpu]")
    one = run(exact("lora-a"), plan=plan, expectation_problems=(stale, other))
    two = run(known(wrong("lokr-b")), plan=plan)
    assert run_diff.merge([one, two]).expectation_problems == (other,)


def test_left_out_by_one_and_run_by_another_is_not_left_out() -> None:
    one = _shard("a", left_out={"lora-b@v061:current[cpu]": "another shard's", "lora-x": "slow"})
    assert run_diff.merge([one, _shard("b", "c", "d")]).left_out == {"lora-x": "slow"}


def test_comparisons_are_kept_for_the_cells_that_were_taken() -> None:
    before = _shard("a", "b", "c", "d")
    one = run_diff.against(_shard("a", "b"), before)
    two = run_diff.against(_shard("c", "d", verdict="contract"), before)
    whole = run_diff.merge([one, two])
    assert [(c.cell[:6], c.change) for c in whole.comparisons] == [("lora-c", "regressed"), ("lora-d", "regressed")]
    assert whole.baseline == before.id
    apart = run_diff.merge([one, two.model_copy(update={"baseline": "another"})])
    assert (apart.baseline, apart.comparisons) == ("", ())
