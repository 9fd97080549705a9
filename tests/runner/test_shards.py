"""Shards of one plan, merged into one run."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core import data
from harness.core.errors import ExitCode, UsageError
from harness.core.matrix import Matrix
from harness.core.run import ExpectationProblem, Run, Shard
from harness.core.verdict import Verdict
from harness.judge import run_diff
from harness.report import sentence
from harness.runner import shards
from harness.runner.plan import Planned, parsed
from tests.support import samples
from tests.support.samples import cell, exact, known, run, wrong

PLAN = tuple(f"lora-{name}@v061:current[cpu]" for name in "abcd")


def _shard(*names: str, verdict: str = "exact", **more: Any) -> Run:
    return run(*(cell(f"lora-{name}", verdict) for name in names), **({"plan": PLAN} | more))


def test_shards_of_one_plan_make_the_whole() -> None:
    one, two = (
        _shard("a", "c", id="s1", duration_s=3),
        _shard("b", "d", id="s2", duration_s=5, timings={"compute": 1.0}),
    )
    whole = shards.merge([two, one])
    assert tuple(cell.id for cell in whole.cells) == PLAN
    assert whole.exit_code == ExitCode.CLEAN
    assert whole.counts["exact"] == 4
    assert whole.id in ("s1+s2", "s2+s1")
    assert (whole.duration_s, whole.timings, whole.notes) == (5, {"compute": 1.0}, ())


def test_merging_one_run_changes_nothing_of_weight() -> None:
    sample = samples.every_verdict()
    assert shards.merge([sample]) == sample


def test_a_plan_that_the_shards_do_not_fill_is_not_clean() -> None:
    assert shards.merge([_shard("a"), _shard("b")]).exit_code == ExitCode.CANNOT_TELL


def test_a_shard_that_was_interrupted_is_made_whole_by_another() -> None:
    assert not shards.merge([_shard("a", interrupted=True), _shard("b", "c", "d")]).interrupted
    assert shards.merge([_shard("a", interrupted=True), _shard("b", "c")]).interrupted


def test_the_newer_of_two_wins_and_the_cell_says_so() -> None:
    old = _shard("a", verdict="exact", id="old", created="2026-01-01T00:00:00Z")
    new = _shard("a", verdict="contract", id="new", created="2026-01-02T00:00:00Z")
    (found,) = shards.merge([new, old]).cells
    assert found.verdict is Verdict.CONTRACT
    assert found.notes == ("shards disagree: exact in old, contract in new; taken from new",)


def test_what_was_judged_wins_over_what_was_not() -> None:
    old = _shard("a", verdict="exact", id="old", created="2026-01-01T00:00:00Z")
    new = _shard("a", verdict="env-failed", id="new", created="2026-01-02T00:00:00Z")
    (found,) = shards.merge([old, new]).cells
    assert found.verdict is Verdict.EXACT
    assert "taken from old" in found.notes[0]


def test_agreeing_duplicates_need_no_note() -> None:
    (found,) = shards.merge([_shard("a"), _shard("a")]).cells
    assert found.notes == ()


def test_different_plans_are_refused() -> None:
    with pytest.raises(UsageError, match="different plans: 4 cells in one only, as lora-a@v061"):
        shards.merge([_shard("a"), run()])
    with pytest.raises(UsageError, match="no run"):
        shards.merge([])


def test_an_environment_that_is_not_the_same_in_all_shards_is_noted() -> None:
    newer = samples.environment("current", "0.21.3", "loader")
    whole = shards.merge([_shard("a", "b"), _shard("c", "d", environments=(samples.V061, newer), created="2027")])
    assert whole.notes == ("environment current is not the same in all shards: peft 0.21.2 / 0.21.3",)
    assert [environment.name for environment in whole.environments] == ["v061", "current"]


def test_an_expectation_that_is_stale_in_one_shard_only_is_none() -> None:
    stale = ExpectationProblem(id="lokr-alpha", problem="stale", message="nothing deviates")
    other = ExpectationProblem(id="gone", problem="stale", message="nothing deviates")
    plan = ("lora-a@v061:current[cpu]", "lokr-b@v061:current[cpu]")
    one = run(exact("lora-a"), plan=plan, expectation_problems=(stale, other))
    two = run(known(wrong("lokr-b")), plan=plan)
    assert shards.merge([one, two]).expectation_problems == (other,)


def test_left_out_by_one_and_run_by_another_is_not_left_out() -> None:
    one = _shard("a", left_out={"lora-b@v061:current[cpu]": "another shard's", "lora-x": "slow"})
    assert shards.merge([one, _shard("b", "c", "d")]).left_out == {"lora-x": "slow"}


def test_comparisons_are_kept_for_the_cells_that_were_taken() -> None:
    before = _shard("a", "b", "c", "d")
    one = run_diff.against(_shard("a", "b"), before)
    two = run_diff.against(_shard("c", "d", verdict="contract"), before)
    whole = shards.merge([one, two])
    assert [(c.cell[:6], c.change) for c in whole.comparisons] == [("lora-c", "regressed"), ("lora-d", "regressed")]
    assert whole.baseline == before.id
    apart = shards.merge([one, two.model_copy(update={"baseline": "another"})])
    assert (apart.baseline, apart.comparisons) == ("", ())


def _planned(*ids: str) -> list[Planned]:
    declared = Matrix(data.matrices()).scenarios()[0]
    return [Planned(parsed(one), declared, "v061", "current") for one in ids]


GRID = _planned(*(f"{name}@{creator}:current[cpu]" for creator in ("v061", "v090") for name in "abcde"))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_each_cell_is_in_one_shard_and_a_scenario_is_never_divided(count: int) -> None:
    found: list[str] = []
    for number in range(1, min(count, 5) + 1):
        shard, own = shards.of(GRID, f"{number}/{count}")
        assert (shard.numbers, shard.count, shard.plan) == (
            (number,),
            min(count, 5),
            shards.of(GRID, f"1/{count}")[0].plan,
        )
        found += own
    assert sorted(found) == list("abcde")


def test_a_shard_that_has_no_scenario_is_no_failure() -> None:
    with pytest.raises(shards.EmptyShard, match="shard 6/7 has no cell: there are 5 scenarios") as raised:
        shards.of(GRID, "6/7")
    assert raised.value.exit_code == ExitCode.CLEAN


@pytest.mark.parametrize(
    "asked", ["0/3", "4/3", "a/b", "1", "1/0", "-1/3", "1/3/3", "1 / 3", "١/٣", "1/" + "9" * 9, ""]
)
def test_what_is_no_shard_is_refused(asked: str) -> None:
    with pytest.raises(UsageError, match="--shard") as raised:
        shards.of(GRID, asked)
    assert raised.value.exit_code == ExitCode.USAGE


def _part(number: int, name: str, count: int = 3, plan: str = "p", **more: Any) -> Run:
    one = cell(f"lora-{name}", "exact")
    return run(one, plan=(one.id,), shard=Shard(numbers=(number,), count=count, plan=plan), id=f"s{number}", **more)


def test_shards_are_clean_alone_and_together() -> None:
    parts = [_part(1, "a"), _part(2, "b"), _part(3, "c")]
    whole = shards.merge(parts)
    assert [part.exit_code for part in (*parts, whole)] == [ExitCode.CLEAN] * 4
    assert len(whole.cells) == len(whole.plan) == 3
    assert "Shard 2 of 3" in str(sentence.of(parts[1]))
    assert "hard" not in str(sentence.of(whole))


@pytest.mark.parametrize("numbers", [(1, 2), (1, 1), (1, 1, 3)])
def test_a_merge_that_lacks_a_shard_cannot_tell_and_names_it(numbers: tuple[int, ...]) -> None:
    whole = shards.merge([_part(number, "abc"[number - 1]) for number in numbers])
    assert whole.exit_code == ExitCode.CANNOT_TELL
    missing = sorted({1, 2, 3} - set(numbers))
    assert f"{' and '.join(map(str, missing))} of 3 missing" in str(sentence.of(whole))


def test_a_shard_that_is_added_later_makes_the_merge_whole() -> None:
    there = shards.merge([_part(1, "a"), _part(3, "c")])
    assert shards.merge([there, _part(2, "b")]).exit_code == ExitCode.CLEAN


def test_shards_of_different_plans_are_refused() -> None:
    for other in (_part(2, "b", plan="q"), _shard("a")):
        with pytest.raises(UsageError, match="different plans"):
            shards.merge([_part(1, "a"), other])
