"""The steps of a cell: a verdict skips the rest, and every error has one verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.core.errors import HarnessError, UsageError
from harness.core.matrix import CellId
from harness.core.observation import BadObservation, Done, Observed
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.envs.environment import EnvFailed
from harness.judge import cell_result
from harness.judge.new_golden import CreationRefused
from harness.runner import pipeline
from harness.runner.golden import Golden
from harness.runner.pipeline import Reply
from harness.runner.plan import Planned
from harness.runner.workers.pool import WorkerFailed
from harness.store.manifest import BadFixture, NoFixture

ID = CellId("lora-x", "v061", "current")
GOLDEN = Golden(Observed("lora-x", {}, {}, {}, {}), note="a note")


def test_a_value_goes_to_the_next_step_and_a_verdict_skips_it() -> None:
    def next_step(value: int) -> int | Cell:
        return value + 1

    verdict = cell_result.could_not_tell(ID, Verdict.UNSUPPORTED, "no such feature")
    assert pipeline.then(1, next_step) == 2
    assert pipeline.then(verdict, next_step) is verdict


ERRORS = [
    (EnvFailed("v1", "build", "uv fails", "an installation", "read"), Verdict.ENV_FAILED),
    (WorkerFailed("it does not import"), Verdict.ENV_FAILED),
    (BadFixture("damaged", "sound", "restore it"), Verdict.BAD_FIXTURE),
    (NoFixture("none", "one", "create it"), Verdict.NO_FIXTURE),
    (CreationRefused("no effect", "one", "fix it"), Verdict.NO_FIXTURE),
    (BadObservation("cut short", "whole", "run it again"), Verdict.NOT_COMPARABLE),
    (UsageError("no scenario", "one", "name it"), Verdict.NOT_COMPARABLE),
    (HarnessError("anything else"), Verdict.NOT_COMPARABLE),
]


@pytest.mark.parametrize(("error", "verdict"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_every_error_has_one_verdict(error: HarnessError, verdict: Verdict) -> None:
    cell = pipeline.failed(ID, error)
    assert (cell.id, cell.verdict) == (str(ID), verdict)
    assert cell.reason.startswith(error.found.partition("\n")[0])


def test_a_reply_without_an_observation_is_a_death_and_keeps_the_golden_s_note(tmp_path: Path) -> None:
    reply = pipeline.reply(GOLDEN, Done(str(ID), "died", "SIGSEGV", "", 1.0), tmp_path)
    assert reply == Reply(GOLDEN, reply.done, None)
    cell = pipeline.judged(ID, reply)
    assert (cell.verdict, cell.notes) == (Verdict.CRASH, ("a note",))
    assert pipeline.judged(ID, replace(reply, golden=replace(GOLDEN, note=""))).notes == ()


def test_a_reply_that_can_t_be_read_is_an_error_of_the_step(tmp_path: Path) -> None:
    with pytest.raises(BadObservation):
        pipeline.reply(GOLDEN, Done(str(ID), "done", "", "", 1.0), tmp_path)


def test_decoration_leaves_the_verdict() -> None:
    cell = cell_result.could_not_tell(ID, Verdict.UNSUPPORTED, "no such feature")
    found = pipeline.decorated(cell, family="lora", method="Lora", reproduce="peft-regress check", duration_s=1.0)
    assert (found.family, found.method, found.reproduce, found.duration_s) == (
        "lora",
        "Lora",
        "peft-regress check",
        1.0,
    )
    assert found.verdict == cell.verdict


def test_a_silent_deviation_is_looked_at_again_without_further_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def run(self: pipeline.Replay, _: Any, attempt: str = "", **_more: Any) -> Reply:
        runs.append((attempt, self.cell.further))
        return Reply(GOLDEN, Done(str(ID), "done", "", "", 1.0), GOLDEN.observed)

    wrong = cell_result.could_not_tell(ID, Verdict.SILENT_WRONG, "")
    monkeypatch.setattr(pipeline.Replay, "run", run)
    monkeypatch.setattr(pipeline.Replay, "_judged", lambda _, __: wrong)
    unused: Any = None
    shared: Any = SimpleNamespace(agree=lambda *_: False, observed=lambda *_: None)
    fixture: Any = SimpleNamespace(manifest=None)
    cell = Planned(ID, unused, "v061", "current", further=True)
    loader: Any = SimpleNamespace(environment=None)
    remembered: Any = SimpleNamespace(key=lambda *_: "", keep=lambda *_: None)
    pipeline.Replay(cell, loader, shared, remembered, tmp_path)._computed(fixture)
    assert runs == [("", True), ("-again", False)]
