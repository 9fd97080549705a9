"""What came back becomes a cell."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.errors import HarnessError
from harness.core.matrix import CellId
from harness.core.observation import Done, Observed
from harness.core.run import Cell, Figures, Finding
from harness.core.verdict import Verdict
from harness.envs.environment import EnvFailed
from harness.judge import cell_result
from harness.runner.workers.pool import WorkerFailed

ID = CellId("lora-x", "v061", "current")

DEATHS = [
    ("died", Verdict.CRASH, "the process that worked on it died: SIGSEGV"),
    ("timeout", Verdict.TIMEOUT, "no answer within the time limit: SIGSEGV"),
    ("error", Verdict.NOT_COMPARABLE, "the worker itself failed: SIGSEGV"),
]


@pytest.mark.parametrize(("outcome", "verdict", "reason"), DEATHS)
def test_a_death(outcome: str, verdict: Verdict, reason: str) -> None:
    cell = cell_result.died(ID, Done("x", outcome, "SIGSEGV", "last words", 1.25, "run twice"))  # type: ignore[arg-type]
    assert (cell.verdict, cell.reason, cell.log_tail, cell.notes) == (verdict, reason, "last words", ("run twice",))
    assert cell.id == "lora-x@v061:current[cpu]"
    assert [f.kind for f in cell.findings] == ([str(verdict)] if verdict.is_deviation else [])


FAILURES = [
    (HarnessError("found", "wanted", "do"), "found; expected: wanted; next: do", ""),
    (HarnessError("found"), "found", ""),
    (
        WorkerFailed("it does not import", "Traceback\n  File …\nImportError: no x"),
        "it does not import: ImportError: no x; expected: an environment that imports; "
        "next: read the lines above; install what is missing, or rebuild it",
        "Traceback\n  File …\nImportError: no x",
    ),
    (
        EnvFailed("v1", "build", "uv fails", "an installation", "read", tail="resolving\nno such wheel"),
        "environment v1: uv fails: no such wheel; expected: an installation; next: read",
        "resolving\nno such wheel",
    ),
]


@pytest.mark.parametrize(("error", "reason", "log"), FAILURES)
def test_a_failure_is_one_line_and_its_tool_s_words(error: HarnessError, reason: str, log: str) -> None:
    cell = cell_result.failed(ID, Verdict.ENV_FAILED, error)
    assert (cell.reason, cell.log_tail) == (reason, log)


def observed(value: float) -> Observed:
    return Observed("lora-x", {}, {}, {}, {"forward/float32/y": np.full(3, value), "merged/float32/y": np.zeros(3)})


def deviating(*arrays: str, by: float = 1.0, creators_own: str = "") -> Cell:
    findings = tuple(
        Finding(
            probe=a.split("/")[0],
            kind="values",
            verdict=Verdict.SILENT_WRONG,
            message="x",
            figures=Figures(array=a, max_abs=by),
        )
        for a in arrays
    )
    cell = cell_result.could_not_tell(ID, Verdict.SILENT_WRONG, "")
    return cell.model_copy(update={"findings": findings, "creators_own": creators_own})


def test_two_replays_that_disagree_accuse_nobody() -> None:
    first = deviating("forward/float32/y")
    assert cell_result.unless_unstable(first, first, observed(1.0), observed(1.0)) == first
    for second in (deviating(), first):
        cell = cell_result.unless_unstable(first, second, observed(1.0), observed(2.0))
        assert cell.verdict is Verdict.UNSTABLE
        assert cell.notes == ("two replays disagree in forward/float32/y",)


@pytest.mark.parametrize(
    ("first", "again", "verdict"),
    [
        (deviating("forward/float32/y", by=1.0), 1.05, Verdict.SILENT_WRONG),
        (deviating("forward/float32/y", by=1.0), 1.15, Verdict.UNSTABLE),
        (deviating("forward/float32/y", by=1.0), np.nan, Verdict.UNSTABLE),
        (deviating("forward/float32/y", creators_own="silent-wrong: 1 tensor is missing"), 2.0, Verdict.SILENT_WRONG),
    ],
    ids=["far more than they differ", "little more", "one is NaN", "the creator's own reload is wrong too"],
)
def test_what_is_wrong_in_both_replays_although_they_differ(first: Cell, again: float, verdict: Verdict) -> None:
    cell = cell_result.unless_unstable(first, first, observed(1.0), observed(again))
    assert cell.verdict is verdict
    note = "two replays give different results, and both are wrong: forward/float32/y"
    assert (note in cell.notes) is (verdict is Verdict.SILENT_WRONG)


def test_what_both_replays_show_stays_wrong() -> None:
    first = deviating("forward/float32/y", "merged/float32/y")
    cell = cell_result.unless_unstable(first, deviating("merged/float32/y"), observed(1.0), observed(2.0))
    assert cell.verdict is Verdict.SILENT_WRONG
    assert [f.verdict for f in cell.findings] == [Verdict.UNSTABLE, Verdict.SILENT_WRONG]
