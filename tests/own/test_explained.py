"""A deviation of a user's adapter is marked as a known break if its rule applies and it deviates as the break says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.core import data
from harness.core.matrix import Matrix
from harness.core.pattern import Pattern
from harness.core.run import Cell, EnvironmentReport, Finding, Run
from harness.core.verdict import Verdict
from harness.judge import breaks
from harness.own import explained
from harness.own.trial import Trial
from harness.store.adapter import Adapter

KNOWN = breaks.load(data.matrices())
(DECLARED,) = [one for one in Matrix(data.matrices()).scenarios() if one.scenario.name == "lokr-alpha-differs"]
ENVIRONMENTS = [("v061", {"peft": "0.6.1"}), ("current", {"peft": "0.21.2", "transformers": "5.24.0"})]


def run(alpha: int, verdict: Verdict, kind: str) -> Run:
    """A run of a LoKr adapter, and what is marked in it."""
    config = {"peft_type": "LOKR", "r": 8, "alpha": alpha, "rank_pattern": {}, "alpha_pattern": {}}
    ready = SimpleNamespace(
        source=SimpleNamespace(adapter=Adapter(config)), base=SimpleNamespace(values={"model_type": "llama"})
    )
    finding = Finding(
        probe="layers", kind=kind, verdict=verdict, message="×2",
        pattern=Pattern(kind="factor", factor=2.0, expressions=("alpha/r",), says="×2 = alpha/r"),
    )  # fmt: skip
    cell = Cell(
        id="mine@v061:current[cpu]", scenario="mine", creator="v061", loader="current", verdict=verdict,
        findings=(finding,),
    )  # fmt: skip
    made: dict[str, Any] = {"id": "x", "created": "2026-11-30T00:00:00", "tool_version": "0", "plan": (cell.id,)}
    there = tuple(EnvironmentReport(name=name, versions=versions) for name, versions in ENVIRONMENTS)
    return explained.marked(Run(**made, environments=there, cells=(cell,)), cast(Trial, ready), KNOWN, DECLARED)


def test_a_deviation_that_is_known_is_marked() -> None:
    found = run(16, Verdict.SILENT_WRONG, "values")
    assert found.cells[0].expectation == "lokr-scaled-by-alpha-over-r"
    assert found.breaks["lokr-scaled-by-alpha-over-r"].workaround
    assert (found.deviations, found.exit_code) == ((), 0)


@pytest.mark.parametrize(
    ("alpha", "verdict", "kind"),
    [
        pytest.param(8, Verdict.SILENT_WRONG, "values", id="another adapter"),
        pytest.param(16, Verdict.LOAD_ERROR, "error", id="another verdict"),
        pytest.param(16, Verdict.SILENT_WRONG, "lost-tensors", id="another finding"),
    ],
)
def test_any_other_deviation_is_new(alpha: int, verdict: Verdict, kind: str) -> None:
    found = run(alpha, verdict, kind)
    assert not found.cells[0].expected
    assert found.exit_code == 1


@pytest.mark.parametrize(
    ("alpha", "verdict", "unseen"),
    [
        pytest.param(16, Verdict.CLOSE, ["lokr-scaled-by-alpha-over-r"], id="clean"),
        pytest.param(8, Verdict.CLOSE, [], id="another adapter"),
        pytest.param(16, Verdict.SILENT_WRONG, [], id="it shows"),
    ],
)
def test_a_known_break_that_does_not_show_is_told_all_the_same(alpha: int, verdict: Verdict, unseen: list[str]) -> None:
    config = {"peft_type": "LOKR", "r": 8, "alpha": alpha, "rank_pattern": {}, "alpha_pattern": {}}
    ready = SimpleNamespace(
        source=SimpleNamespace(adapter=Adapter(config)), base=SimpleNamespace(values={"model_type": "llama"})
    )
    cell = Cell(id="mine@v061:current[cpu]", scenario="mine", creator="v061", loader="current", verdict=verdict)
    found = explained.unseen(cell, cast(Trial, ready), dict(ENVIRONMENTS), KNOWN, DECLARED)
    assert [one.id for one in found if one.id.startswith("lokr-scaled")] == unseen
