"""Every rule of a known break against every stored fixture, and seen to fail where the rule is another one."""

from __future__ import annotations

import pytest

from benchmarks.known_breaks import Disagreement, Stored, agreement, as_dated, disagreements
from harness.core.run import EnvironmentReport, Run
from harness.core.verdict import Verdict
from harness.judge import breaks
from harness.judge.adapter_rule import AdapterRule
from harness.judge.breaks import Break
from tests.support.samples import cell


@pytest.fixture(scope="module")
def stored() -> Stored:
    return Stored()


@pytest.fixture(scope="module")
def run(stored: Stored) -> Run:
    """A run under `current`, as the conditions of the breaks say."""
    covered = {
        (one.fixture.scenario, one.fixture.creator): one.known for one in stored.cells() if "current" in one.covered
    }
    able = [one for one in stored.fixtures if "current" in stored.supported(one.scenario)]
    cells = [
        cell(one.scenario, "silent-wrong" if id else "close", one.creator, expectation=id)
        for one in able
        for id in [covered.get((one.scenario, one.creator), "")]
    ]
    loader = EnvironmentReport(name="current", versions=dict(stored.loaders["current"]))
    return Run(id="r", created="", tool_version="", environments=(loader,), cells=tuple(cells))


def test_every_break_says_which_adapters_it_is_about(stored: Stored) -> None:
    assert breaks.without_rule(stored.breaks) == []


def test_rules_select_the_fixtures_that_conditions_cover(stored: Stored) -> None:
    assert [str(one) for one in disagreements(stored.cells())] == []


@pytest.mark.parametrize(
    ("id", "other", "silent", "scenario"),
    [
        ("lokr-scaled-by-alpha-over-r", {"method": "LOKR"}, False, "lokr-conv2d"),
        ("lokr-scaled-by-alpha-over-r", {"method": "LOHA"}, True, "lokr-alpha-differs"),
        ("door-hotswap-patterns", {"method": "LORA", "only_if": ["hotswap"]}, False, "doors-lora"),
        ("oft-first-form-refused", {"method": "OFT", "only_if": ["hotswap"]}, True, "oft-linear"),
        ("names-neox-head-dropped", {"keys": "*.lm_head.*"}, True, "lora-neox-head"),
        ("tied-original-trained-and-unsaved", {"has": "saves-head"}, False, "lora-save-lm-head"),
    ],
)  # fmt: skip
def test_a_rule_that_selects_other_fixtures_is_found(
    stored: Stored, id: str, other: dict[str, object], silent: bool, scenario: str
) -> None:
    wrong = disagreements(stored.cells([_with(stored.breaks, id, other)]))
    assert (id, scenario, silent) in [(one.known, one.scenario, one.silent) for one in wrong]


def test_a_break_without_a_rule_is_silent(stored: Stored) -> None:
    known = next(one for one in stored.breaks if one.id == "oft-first-form-refused")
    assert disagreements(stored.cells([known.model_copy(update={"adapter": None})]))


def test_what_disagrees_is_told_with_its_creators_and_loaders() -> None:
    one = Disagreement("a-break", "a-scenario", True, ("v061",), ("current", "v0212"))
    assert str(one) == (
        "a-break: a-scenario: covered, but the rule does not select it\n    creators v061\n    loaders current, v0212"
    )


def test_agreement_with_a_run_that_finds_what_the_breaks_cover(stored: Stored, run: Run) -> None:
    found = agreement(stored, run)
    assert (found.warned, found.missed) == ({}, {})
    assert found.cells == found.agree > 1000
    assert found.deviating > 300


def test_who_is_not_told_the_creator_is_never_sure_and_wrong(stored: Stored, run: Run) -> None:
    found = agreement(stored, run, as_dated)
    assert (found.warned, found.missed) == ({}, {})
    assert found.agree + found.may_deviate + found.may_be_clean == found.cells
    assert found.agree > 0.9 * found.cells


def test_a_run_that_finds_something_else_is_told(stored: Stored, run: Run) -> None:
    of = "oft-first-form-refused"
    cells = [one.model_copy(update={"verdict": Verdict.CLOSE}) if one.expectation == of else one for one in run.cells]
    cells[0] = cells[0].model_copy(update={"verdict": Verdict.SILENT_WRONG, "expectation": ""})
    found = agreement(stored, run.model_copy(update={"cells": tuple(cells)}))
    assert {id for id, _ in found.warned} == {of}
    assert found.warned.total() == 42
    assert found.missed == {("no known break", cells[0].scenario): 1}
    assert found.agree == found.cells - 43


def _with(known: tuple[Break, ...], id: str, rule: dict[str, object]) -> Break:
    one = next(one for one in known if one.id == id)
    conditions = [condition.model_copy(update={"adapter": None}) for condition in one.condition]
    return one.model_copy(update={"adapter": AdapterRule.model_validate(rule), "condition": conditions})
