"""What one change did: what is red, what is not, and what nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.comparison import Against
from harness.core.errors import ExitCode
from harness.core.pattern import Pattern
from harness.core.run import Cell, CheckpointKeys, ExpectationProblem, Figures, Finding, ProbeResult, Run
from harness.core.verdict import Verdict
from harness.judge import change
from harness.report import markdown, sentence
from tests.support import samples
from tests.support.samples import cell, crashed, exact, known, refused, wrong

SAID = Against(package="peft", spec="../peft", source="/src/peft", version="0.22.dev0",
               baseline="peft 0.21.2 (current)",
               loader="checkout", baseline_loader="current", scope="1 scenario that lokr can affect")  # fmt: skip


def held(now: list[Cell], before: list[Cell], **more: Any) -> Run:
    return change.held(samples.run(*now, **more), before, SAID)


def one(before: Cell | None, now: Cell, **more: Any) -> Run:
    return held([now], [before] if before else [], **more)


def off(by: float, kind: str = "values", pattern: Pattern | None = None, **more: Any) -> Cell:
    """Wrong by so much in one array."""
    figures = Figures(array="forward/float32/logits", max_abs=by, allowance=1e-6)
    finding = Finding(probe="forward", kind=kind, verdict=Verdict.SILENT_WRONG, message=f"{kind} by {by}",
                      figures=figures, pattern=pattern)  # fmt: skip
    return cell("a", "silent-wrong", findings=(finding,), **more)


def structure(*details: str, message: str = "the structure differs") -> Cell:
    """With what differs of its structure."""
    finding = Finding(probe="sft", kind="structure-steps", verdict=Verdict.CONTRACT, message=message, details=details)
    return cell("a", "contract", findings=(finding,))


def losing(*keys: str) -> Cell:
    """With tensors of the checkpoint that never arrive."""
    finding = Finding(probe="accounting", kind="lost-tensors", verdict=Verdict.SILENT_WRONG,
                      message=f"{len(keys)} of 8 tensors", details=keys)  # fmt: skip
    return cell("a", "silent-wrong", findings=(finding,), keys=CheckpointKeys(total=8, lost=keys))


def scaled(by: float, layers: tuple[str, ...] = ("a", "b")) -> Cell:
    """Wrong by so much, since some of two layers are scaled by alpha/r."""
    factor = Pattern(kind="factor", says="×3", factor=3.0, expressions=("alpha/r",), layers=layers, compared=2)
    return off(by, pattern=factor)


EMPTY = off(0.25, pattern=Pattern(kind="zero", says="the effect is 0", factor=0.0, layers=("a", "b"), compared=2))
NORMS, HALF = "trained: norm layers: float32 → bfloat16", "trained: lora_A (8 parameters): float32 → float16"


@pytest.mark.parametrize(
    ("before", "now", "expected", "code"),
    [
        ("exact", "close", None, ExitCode.CLEAN),
        ("exact", "silent-wrong", "regressed", ExitCode.REGRESSED),
        ("contract", "silent-wrong", "regressed", ExitCode.REGRESSED),
        ("silent-wrong", "contract", "still", ExitCode.CLEAN),
        ("silent-wrong", "exact", "fixed", ExitCode.CLEAN),
        ("exact", "env-failed", "gone", ExitCode.CANNOT_TELL),
        ("exact", "unsupported", "gone", ExitCode.CANNOT_TELL),
        ("bad-fixture", "exact", "new", ExitCode.CANNOT_TELL),
        ("bad-fixture", "silent-wrong", "new", ExitCode.CANNOT_TELL),
        ("bad-fixture", "bad-fixture", None, ExitCode.CANNOT_TELL),
        (None, "exact", "new", ExitCode.CANNOT_TELL),
    ],
)
def test_what_a_change_did(before: str | None, now: str, expected: str | None, code: ExitCode) -> None:
    found = one(cell("a", before) if before else None, cell("a", now))
    assert [c.change for c in found.comparisons] == ([expected] if expected else [])
    assert found.exit_code == code
    assert bool(found.deviations) is (expected == "regressed")


def test_what_is_sound_beside_what_nobody_can_tell_is_not_green() -> None:
    both = [exact("a"), cell("b", "no-fixture")]
    assert held(both, both).exit_code == ExitCode.CANNOT_TELL
    assert held([*both, cell("c", "crash")], [*both, exact("c")]).exit_code == ExitCode.REGRESSED
    assert held([exact("a")], [exact("a")], plan=("a@v061:current[cpu]", "never-ran")).exit_code == ExitCode.CANNOT_TELL
    assert held([], []).exit_code == ExitCode.CANNOT_TELL


def test_a_known_deviation_on_both_sides_is_neither_red_nor_gating_and_nor_is_an_unknown_one() -> None:
    for before, now in ((known(off(0.5)), known(off(0.5))), (off(0.5), off(0.5)), (known(off(0.5)), off(0.5))):
        found = one(before, now)
        assert (found.exit_code, found.deviations) == (ExitCode.CLEAN, ())
        assert found.cells[0].expected
    assert one(off(0.5), off(0.5)).cells[0].expectation == change.STILL


def test_what_an_expectation_covers_is_red_where_the_change_made_it() -> None:
    found = one(exact("a"), known(off(0.5)))
    assert found.exit_code == ExitCode.REGRESSED
    assert not found.cells[0].expected
    assert "covers it here, but not on the baseline" in found.cells[0].notes[-1]


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (off(0.5), off(0.7), "further off: forward/float32/logits by 0.7, before by 0.5"),
        (off(0.5), off(float("nan")), "further off"),
        (off(0.5), off(0.5, kind="lost-tensors"), "for another reason: forward: lost-tensors"),
        (refused("a"), refused("a", message="another thing altogether"), "for another reason"),
        (off(0.5), crashed("a"), "for another reason"),
        (losing("a.0.bias"), losing("a.0.bias", "a.1.bias"), "1 tensor more lost on loading: a.1.bias"),
        (losing("a.0.bias"), losing("a.1.bias"), "1 tensor more lost on loading: a.1.bias"),
        (off(0.5), losing("a.0.bias"), "1 tensor more lost on loading: a.0.bias"),
        (structure(NORMS), structure(NORMS, HALF), f"for another reason: sft: {HALF}"),
        (structure(NORMS), structure(NORMS.replace("float32 → bfloat16", "bfloat16 → float32")), "bfloat16 → float32"),
        (structure(), structure(message="another thing"), "for another reason: sft: another thing"),
        (scaled(0.5), EMPTY, "in another way: forward values: found the effect is 0, known is factor alpha/r"),
    ],
)
def test_the_same_verdict_can_be_worse(before: Cell, now: Cell, why: str) -> None:
    found = one(before, now)
    assert found.exit_code == ExitCode.REGRESSED
    assert why in found.comparisons[0].why


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (off(0.5), off(0.5 + 5e-7), ""),
        (scaled(0.5), scaled(0.2, ("a",)), "nearer: forward/float32/logits off by 0.2, before by 0.5"),
        (off(0.5), off(0.3), "nearer: forward/float32/logits off by 0.3, before by 0.5"),
        (refused("a"), cell("a", "contract", findings=(samples.regressed().cells[0].findings)), ""),
        (wrong("a"), wrong("a"), ""),
        (structure(NORMS, HALF), structure(NORMS), ""),
        (losing("a.0.bias", "a.1.bias"), losing("a.0.bias"), ""),
        (structure("at 0x7f01"), structure("at 0x7f02"), ""),
    ],
)
def test_and_can_be_as_bad_or_less(before: Cell, now: Cell, why: str) -> None:
    found = one(before, now)
    assert found.exit_code == ExitCode.CLEAN
    assert found.comparisons[0].change == "still"
    assert found.comparisons[0].why == why


def test_an_expectation_that_the_change_makes_stale_is_good_news() -> None:
    stale = ExpectationProblem(id="scaling", problem="stale", message="nothing deviates any more")
    found = one(known(off(0.5)), exact("a"), expectation_problems=(stale,))
    assert found.exit_code == ExitCode.CLEAN
    assert "no longer shows the known break" in found.comparisons[0].why
    assert "1 of them fixed" in sentence.of(found).text


def test_a_new_warning_is_told_and_is_red_only_where_it_is_asked_to_be() -> None:
    warned = cell("a", "warned", new_warnings=("FutureWarning: gone tomorrow",))
    assert one(exact("a"), warned).exit_code == ExitCode.CLEAN
    assert any("gone tomorrow" in note for note in one(exact("a"), warned).notes)
    assert one(exact("a"), warned, strict=True).exit_code == ExitCode.REGRESSED
    assert one(warned, warned, strict=True).exit_code == ExitCode.CLEAN


def test_what_makes_a_verdict_worse_is_named() -> None:
    error = Finding(probe="door.inject", kind="inject-error", verdict=Verdict.RUN_ERROR, message="no", error_type="E")
    now = off(0.25)
    run = one(cell("a", "run-error", findings=(error,)), now.model_copy(update={"findings": (*now.findings, error)}))
    assert run.comparisons[0].why == "run-error became silent-wrong: forward: values by 0.25"


def test_a_distance_from_the_golden_is_not_compared_with_one_from_a_twin() -> None:
    twin, golden = (Figures(array="unmerged/float32/logits", max_abs=by, allowance=0.2) for by in (4.5, 4.9))
    finding = Finding(probe="unmerged", kind="differs-from-forward", verdict=Verdict.SILENT_WRONG, message="it differs",
                      figures=twin)  # fmt: skip
    probes = {
        "unmerged": ProbeResult(verdict=Verdict.SILENT_WRONG, outcome="ok", golden_outcome="ok", figures=(golden,))
    }
    same = cell("a", "silent-wrong", findings=(finding,), probes=probes)
    assert one(same, same).comparisons[0].change == "still"
    far = probes["unmerged"].model_copy(update={"figures": (golden.model_copy(update={"max_abs": 5.3}),)})
    assert one(same, same.model_copy(update={"probes": {"unmerged": far}})).comparisons[0].change == "regressed"


def test_the_comment_says_what_was_compared_and_what_is_worse() -> None:
    found = held([off(0.7), exact("b")], [off(0.5), exact("b")], left_out={"c": "not affected: only lokr changed"})
    said = markdown.render(found, budget=20_000)
    assert said.startswith("**REGRESSED**: 1 new break (silent-wrong, 1 cause); 1 loads and computes the same")
    for part in ("- baseline: `peft 0.21.2 (current)`", "further off", "only lokr changed", "1 scenario that lokr"):
        assert part in said
    clean = markdown.render(held([exact("b")], [exact("b")]), budget=20_000)
    assert "1 loads and computes the same (exact)" in clean
    assert "- change: `peft 0.22.dev0 from /src/peft`" in clean


def test_causes_of_what_was_sound_stand_apart_from_what_got_worse() -> None:
    from harness.judge import causes

    before = [off(0.5), exact("b")]
    now = [off(0.7), off(0.7).model_copy(update={"id": "b@v061:current[cpu]", "scenario": "b"})]
    assert [len(cause.cells) for cause in causes.unexpected(held(now, before))] == [1, 1]


def probed(verdict: Verdict, **more: Any) -> Cell:
    """With this verdict of its gradients."""
    outcome = more.pop("outcome", "ok")
    return cell("a", "exact", probes={"gradients": ProbeResult(verdict=verdict, outcome=outcome)}, **more)


def test_a_probe_that_can_no_longer_be_judged_counts_as_unknown() -> None:
    run = one(probed(Verdict.CLOSE), probed(Verdict.NOT_COMPARABLE))

    (comparison,) = run.comparisons
    assert (comparison.change, comparison.unjudged) == ("gone", ("gradients",))
    assert "gradients" in comparison.why
    assert comparison.unknown
    assert run.exit_code == ExitCode.CANNOT_TELL
    assert "1 could not be judged" in sentence.of(run).text


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (probed(Verdict.NOT_COMPARABLE), probed(Verdict.NOT_COMPARABLE)),
        (probed(Verdict.NOT_COMPARABLE), probed(Verdict.CLOSE)),
        (probed(Verdict.CLOSE), probed(Verdict.UNSUPPORTED, outcome="skipped")),
        (probed(Verdict.UNSUPPORTED, outcome="skipped"), probed(Verdict.NOT_COMPARABLE)),
    ],
    ids=["on neither side", "only now", "it does not apply any more", "it did not apply"],
)
def test_a_probe_that_was_not_judged_before_is_no_loss(before: Cell, now: Cell) -> None:
    run = one(before, now)
    assert (run.comparisons, run.exit_code) == ((), ExitCode.CLEAN)
