"""What makes a fixture worthless is refused when it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.core.observation import Observed
from harness.judge import new_golden
from harness.judge.new_golden import CreationRefused

OK = {"outcome": "ok"}
ERROR = {"outcome": "error", "error": {"stage": "forward", "type": "ValueError", "message": "no", "traceback": ""}}
BASE = np.linspace(-1, 1, 12, dtype=np.float32)


def golden(**changes: Any) -> Observed:
    """A golden by hand: a base, and an adapter that moves its output by a tenth."""
    outputs = {"base": BASE, "forward": BASE + np.float32(0.1)}
    arrays = {
        f"{probe}/{precision}/logits": output.astype(precision)
        for probe, output in outputs.items()
        for precision in ("float32", "float64")
    }
    found = Observed(
        scenario="lora-x",
        load={"create": OK, "float32": OK, "float64": OK},
        probes={probe: {"float32": OK, "float64": OK} for probe in ("forward", "base")},
        facts={"accounting": {"tensors": {"a.lora_A": {"found": "whole"}, "a.lora_B": {"found": "whole"}}}},
        arrays=arrays,
    )
    return replace(found, **changes)


def with_output(probe: str, array: Any) -> Observed:
    return golden(arrays={**golden().arrays, f"{probe}/float32/logits": array})


def spoilt(value: float) -> Any:
    array = BASE + np.float32(0.1)
    array[3] = value
    return array


def test_a_sound_one_is_taken() -> None:
    new_golden.refuse_unfit(golden(), {"expects": {"*.lora_[AB]": 2}})
    new_golden.refuse_unfit(golden(), {"expects": None})
    assert new_golden.effect_of(golden()) == pytest.approx(0.16, rel=0.1)
    assert new_golden.standing_defects(golden()) == ()


REFUSALS: list[tuple[str, Observed, dict[str, int] | None, str]] = [
    ("no effect", with_output("forward", BASE), None, "moves the output by 0 of its size"),
    ("hardly any effect", with_output("forward", BASE + np.float32(1e-4)), None, "of its size"),
    ("nan", with_output("forward", spoilt(np.nan)), None, "forward/float32/logits is not finite"),
    ("inf", with_output("base", spoilt(-np.inf)), None, "base/float32/logits is not finite"),
    ("a key too few", golden(), {"*.lora_A": 2, "*.lora_B": 1}, "expected 2 keys like '*.lora_A', found 1"),
    ("a key that nobody named", golden(), {"*.lora_A": 1}, "key 'a.lora_B' matches no pattern"),
    ("not reloaded", golden(load={"create": OK, "float32": ERROR}), None, "reloading it fails in the creator's own"),
    (
        "forward raises",
        golden(probes={"forward": {"float32": ERROR}}),
        None,
        "forward fails in the creator's own library",
    ),
    ("forward missing", golden(probes={}), None, "forward fails in the creator's own library"),
]


@pytest.mark.parametrize(("name", "made", "expects", "said"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_what_proves_nothing_is_refused(name: str, made: Observed, expects: dict[str, int] | None, said: str) -> None:
    with pytest.raises(CreationRefused) as caught:
        new_golden.refuse_unfit(made, {"expects": expects})
    assert said in caught.value.found, name
    assert caught.value.found.startswith("lora-x: ")
    assert caught.value.expected
    assert caught.value.next_step


def test_a_longer_output_is_an_effect() -> None:
    """Prompt tuning lengthens the output: nobody can miss that."""
    assert new_golden.effect_of(with_output("forward", np.zeros(15, np.float32))) == float("inf")


def test_an_adapter_that_reads_back_as_another_is_a_standing_defect() -> None:
    created = golden(arrays={**golden().arrays, "created/float32/logits": BASE + np.float32(0.5)})
    (defect,) = new_golden.standing_defects(created)
    assert "saved and reloaded by its own library it computes something else, by 0.4" in defect


def unloadable(**changes: Any) -> Observed:
    """A golden by a creator that refuses its own file: what was saved, and the base."""
    arrays = {name: array for name, array in golden().arrays.items() if name.startswith("base/")}
    arrays["created/float32/logits"] = BASE + np.float32(0.1)
    found = golden(load={"create": OK, "float32": ERROR, "float64": ERROR}, probes={"base": {"float32": OK}})
    return replace(found, **{"arrays": arrays, **changes})


def test_what_its_own_creator_cannot_load_is_kept() -> None:
    new_golden.refuse_unfit(unloadable(), {"expects": {"*.lora_[AB]": 2}})
    defects = new_golden.standing_defects(unloadable())
    assert defects[0] == "its own library cannot load and run what it saved: ValueError: no"
    assert "The fixture is kept" in new_golden.kept(defects)
    assert new_golden.kept(("merging in place changes the output",)) == ""


def test_what_its_own_creator_cannot_load_must_still_have_an_effect() -> None:
    arrays = {**unloadable().arrays, "created/float32/logits": BASE}
    with pytest.raises(CreationRefused, match="moves the output by 0"):
        new_golden.refuse_unfit(unloadable(arrays=arrays), {"expects": None})


def test_a_declared_loss_must_occur() -> None:
    declared = {"expects": None, "leaves_out": "the mask is drawn anew"}
    sound = golden(arrays={**golden().arrays, "created/float32/logits": golden().arrays["forward/float32/logits"]})
    with pytest.raises(CreationRefused, match="`leaves_out` is declared, but"):
        new_golden.refuse_unfit(sound, declared)
    new_golden.refuse_unfit(with_created(BASE + np.float32(0.5)), declared)


def with_created(array: Any) -> Observed:
    return golden(arrays={**golden().arrays, "created/float32/logits": array})


def test_an_adapter_that_its_creator_loses_wholly_is_kept() -> None:
    lost = golden(
        arrays={
            **golden().arrays,
            **{f"forward/{each}/logits": BASE.astype(each) for each in ("float32", "float64")},
            "created/float32/logits": BASE + np.float32(0.1),
        }
    )
    new_golden.refuse_unfit(lost, {"expects": None})


GIVEN = {"expects": None, "adapter": {"given": "d1"}}


def test_a_users_own_adapter_may_do_less_and_hears_what_helps() -> None:
    moved = (BASE + np.float32(1e-4)).astype(np.float32)
    arrays = {f"forward/{precision}/logits": moved.astype(precision) for precision in ("float32", "float64")}
    new_golden.refuse_unfit(golden(arrays={**golden().arrays, **arrays}), GIVEN)
    with pytest.raises(CreationRefused, match="not trained"):
        new_golden.refuse_unfit(with_output("forward", BASE), GIVEN)
    with pytest.raises(CreationRefused, match="look for NaN"):
        new_golden.refuse_unfit(with_output("forward", spoilt(np.nan)), GIVEN)
    with pytest.raises(CreationRefused, match="--from"):
        new_golden.refuse_unfit(golden(load={"create": OK, "float32": ERROR}), GIVEN)
