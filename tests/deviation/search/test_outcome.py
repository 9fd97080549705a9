"""When two cells show the same deviation: the same finding, about the same tensors, of about the same size."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from harness.core.pattern import Pattern
from harness.core.run import Figures, Finding
from harness.core.verdict import Verdict
from harness.deviation.search.outcome import Deviation, Seen, result_words
from tests.support.samples import cell


def seen(*findings: Finding, verdict: Verdict = Verdict.SILENT_WRONG) -> Seen:
    """What a cell with these findings shows."""
    return Seen.of(cell("two-layers", verdict, findings=findings))


def values(
    size: float = 1.0, probe: str = "forward", shape: tuple[int, ...] = (2, 8), by: Pattern | None = None
) -> Finding:
    """Values that differ."""
    figures = Figures(array=f"{probe}/float32/logits", shape=shape, max_abs=size)
    return Finding(probe=probe, kind="values", verdict=Verdict.SILENT_WRONG, message="m", figures=figures, pattern=by)


def factor(number: float) -> Pattern:
    """A constant factor."""
    return Pattern(kind="factor", says=f"×{number}", factor=number)


def lost(*keys: str) -> Finding:
    """Tensors that never arrive."""
    return Finding(probe="accounting", kind="lost-tensors", verdict=Verdict.SILENT_WRONG, message="m", details=keys)


def error(kind: str = "KeyError", message: str = "'lora_A.weight'", stage: str = "state dict") -> Finding:
    """Something raised."""
    said = f"loading raised {kind}: {message}"
    verdict = Verdict.LOAD_ERROR
    return Finding(probe="load", kind="error", verdict=verdict, message=said, stage=stage, error_type=kind)


CONTRACT = Finding(probe="roundtrip", kind="config", verdict=Verdict.CONTRACT, message="m", details=("r",))
CLEAN = seen(verdict=Verdict.EXACT)

#: the deviation in question, what a mix shows, the outcome
TABLE = [
    ("the same", seen(values()), seen(values()), "bad"),
    ("rounded otherwise", seen(values(1.0)), seen(values(1.01)), "bad"),
    ("clean", seen(values()), CLEAN, "good"),
    ("a warning", seen(values()), seen(verdict=Verdict.WARNED), "good"),
    ("a tenth of the size", seen(values(1.0)), seen(values(0.1)), "other"),
    ("three times the size", seen(values(1.0)), seen(values(3.0)), "other"),
    ("infinite", seen(values(1.0)), seen(values(math.inf)), "other"),
    ("infinite as before", seen(values(math.inf)), seen(values(math.inf)), "bad"),
    ("the same factor", seen(values(by=factor(3.0))), seen(values(by=factor(3.0001))), "bad"),
    ("another factor, of one size", seen(values(by=factor(3.0))), seen(values(by=factor(2.5))), "other"),
    ("no factor was recognised", seen(values(by=factor(3.0))), seen(values()), "bad"),
    ("another shape", seen(values()), seen(values(shape=(2, 4))), "other"),
    ("another probe", seen(values()), seen(values(probe="merged")), "other"),
    ("an error instead", seen(values()), seen(error(), verdict=Verdict.LOAD_ERROR), "other"),
    ("a lesser finding of it is left", seen(values(), CONTRACT), seen(CONTRACT, verdict=Verdict.CONTRACT), "other"),
    ("a lesser finding of it is gone", seen(values(), CONTRACT), seen(values()), "bad"),
    ("another finding comes with it", seen(values()), seen(values(), lost("a")), "bad"),
    ("fewer tensors are lost", seen(lost("a", "b")), seen(lost("a")), "other"),
    ("the same tensors are lost", seen(lost("a", "b")), seen(lost("b", "a")), "bad"),
    ("the same error", seen(error()), seen(error(message="'lora_B.bias'")), "bad"),
    ("another type of error", seen(error()), seen(error("TypeError")), "other"),
    ("the same error at another stage", seen(error()), seen(error(stage="forward")), "other"),
    ("an error of the same type with another message",
     seen(error("ValueError", "Target modules {'q'} not found in the base model")),
     seen(error("ValueError", "unknown entry")), "other"),
    ("a message that was reworded",
     seen(error("ValueError", "Target modules {'q'} not found in the base model. Please check the target modules")),
     seen(error("ValueError", "Target modules {'q'} not found in the base model. Please check them and retry")), "bad"),
    ("it takes too long", seen(values()), seen(verdict=Verdict.TIMEOUT), "other"),
    ("it dies", seen(values()), seen(verdict=Verdict.CRASH), "other"),
    ("flaky", seen(values()), seen(verdict=Verdict.UNSTABLE), "untestable"),
    ("the environment fails", seen(values()), Seen.untestable("it does not import"), "untestable"),
    ("not comparable", seen(values()), seen(verdict=Verdict.NOT_COMPARABLE), "untestable"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "asked", "shown", "kind"), TABLE)
def test_the_outcome(what: str, asked: Seen, shown: Seen, kind: str) -> None:
    assert Deviation.of(asked).outcome(shown).kind == kind, what


def test_another_size_is_said() -> None:
    why = Deviation.of(seen(values(1.0))).outcome(seen(values(0.25))).why
    assert why.endswith("values differ, by 0.25 instead of 1")


def test_what_the_good_end_shows_too_is_accepted() -> None:
    asked, left = seen(values(), CONTRACT), seen(CONTRACT, verdict=Verdict.CONTRACT)
    deviation = Deviation.of(asked)
    assert deviation.leaves(left)
    assert deviation.accepting(left).outcome(left).kind == "good"
    assert not deviation.leaves(seen(lost("a"))), "the good end deviates otherwise"
    assert not deviation.leaves(asked)
    assert not deviation.leaves(Seen.untestable("it does not import"))


def test_a_bisection_asks_for_the_main_finding_alone() -> None:
    """What appears beside the main finding does not hide it."""
    deviation = Deviation.of(seen(values(), CONTRACT)).accepting_lesser()
    left = deviation.outcome(seen(CONTRACT, verdict=Verdict.CONTRACT))
    assert (left.kind, result_words(left.kind, left.verdict)) == ("good", "without it")
    assert deviation.outcome(seen(lost("a"))).kind == "other"
    assert deviation.outcome(seen(values())).kind == "bad"
    assert result_words("good", "exact") == "clean"


def test_the_journal_keeps_everything() -> None:
    for _, asked, shown, _ in TABLE:
        for one in (asked, shown):
            assert Seen.read(json.loads(json.dumps(dataclasses.asdict(one)))) == one
