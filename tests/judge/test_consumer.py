"""The judgement of a consumer: right, refused, dropped, scaled wrongly, moved with its base. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from harness.core.observation import Array, Observed
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.judge import consumer, expected
from harness.judge.breaks import Condition

ROWS, LENGTH, VOCABULARY = 4, 5, 12
RANDOM = np.random.default_rng(0)
BASE = RANDOM.normal(size=(ROWS, LENGTH, VOCABULARY))
EFFECT = RANDOM.normal(size=(ROWS, LENGTH, VOCABULARY))
PLACES = [[row, LENGTH - 1] for row in range(ROWS)]
KEYS = ["base_model.model.lm_head.lora_A.weight", "base_model.model.lm_head.lora_B.weight"]
NAMED = {
    "tensors": KEYS,
    "options": ["alora_invocation_tokens", "lora_alpha", "use_dora"],
    "method": "LORA",
    "base": ["LlamaForCausalLM"],
}
ACCOUNTED = {KEYS[0]: "output.lora_a", KEYS[1]: "output.lora_b"}


def golden() -> Observed:
    arrays = {}
    for probe, wide in (("base", BASE), ("forward", BASE + EFFECT)):
        arrays[f"{probe}/float64/logits"] = wide
        arrays[f"{probe}/float32/logits"] = wide.astype(np.float32)
    return Observed("s", {}, {}, {}, arrays)


def log_softmax(logits: Array) -> Array:
    last = logits[:, -1]
    return np.asarray(last - np.log(np.exp(last).sum(-1, keepdims=True)))


def now(
    base: Array = BASE,
    effect: Array = EFFECT,
    accounted: Any = ACCOUNTED,
    load: Mapping[str, Any] | None = None,
    **said: Any,
) -> Observed:
    facts = {"named": NAMED, "positions": PLACES, "accounted": accounted, **said}
    arrays = {"consumer/base": log_softmax(base), "consumer/adapter": log_softmax(base + effect)}
    return Observed("s", {"float32": load or {"outcome": "ok"}}, {}, {"consumer": facts}, arrays)


def test_the_same_is_close_and_all_tensors_arrived() -> None:
    found = consumer.judge(golden(), now())
    assert found.verdict is Verdict.CLOSE
    assert found.keys is not None
    assert (found.keys.total, found.keys.arrived, found.keys.lost) == (2, 2, ())
    assert found.adapter_delta is not None
    assert found.adapter_delta < 1e-6


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.001, -1.0])
def test_another_scale_is_silently_wrong(factor: float) -> None:
    found = consumer.judge(golden(), now(effect=factor * EFFECT))
    assert found.verdict is Verdict.SILENT_WRONG
    assert [one.message for one in found.findings] == ["the adapter has another effect than with PEFT"]


def test_an_adapter_that_does_nothing_is_named_as_that() -> None:
    found = consumer.judge(golden(), now(effect=0 * EFFECT))
    assert [one.message for one in found.findings] == ["the adapter does nothing"]


def test_dropped_tensors_are_named_where_the_effect_is_wrong() -> None:
    found = consumer.judge(golden(), now(effect=0 * EFFECT, accounted={KEYS[0]: "output.lora_a"}))
    assert found.verdict is Verdict.SILENT_WRONG
    assert found.keys is not None
    assert found.keys.lost == (KEYS[1],)
    assert any(one.kind == "lost-tensors" and KEYS[1] in one.details for one in found.findings)


def test_tensors_that_are_not_found_are_no_loss_where_the_effect_is_right() -> None:
    found = consumer.judge(golden(), now(accounted={}))
    assert found.verdict is Verdict.CLOSE
    assert found.keys is not None
    assert found.keys.undecided == tuple(KEYS)


def test_tensors_that_the_consumer_lists_are_not_without_a_word() -> None:
    listed = {KEYS[0]: "output.lora_a", KEYS[1]: "listed: ignoring lm_head"}
    found = consumer.judge(golden(), now(effect=0 * EFFECT, accounted=listed))
    assert found.verdict is Verdict.SILENT_WRONG
    assert [one.kind for one in found.findings] == ["values"]
    assert f"{KEYS[1]}: ignoring lm_head" in found.notes


def test_a_base_that_moved_is_told_from_the_adapter() -> None:
    found = consumer.judge(golden(), now(base=BASE + 0.001 * np.sin(BASE * 7)))
    assert found.verdict is Verdict.BASE_MOVED
    assert [one.probe for one in found.findings] == ["base"]


def test_a_base_that_moved_excuses_no_lost_adapter() -> None:
    found = consumer.judge(golden(), now(base=BASE + 0.1 * np.sin(BASE * 7), effect=0 * EFFECT, accounted={}))
    assert found.verdict is Verdict.SILENT_WRONG
    assert {one.probe for one in found.findings} == {"base", "forward", "accounting"}


def test_another_base_altogether_says_nothing_of_the_effect() -> None:
    found = consumer.judge(golden(), now(base=10 * RANDOM.normal(size=BASE.shape)))
    assert found.verdict is Verdict.BASE_MOVED
    assert any(one.kind == "proves-nothing" for one in found.findings)


def rounded(seed: int, size: float = 1e-3) -> Array:
    """What arithmetic in float16 changes."""
    return np.asarray(size * np.random.default_rng(seed).normal(size=BASE.shape))


@pytest.mark.parametrize("times", [1, 2, 4])
def test_coarse_arithmetic_may_cost_the_adapter_a_few_times_what_it_costs_the_base(times: float) -> None:
    for seed in range(20):
        found = consumer.judge(golden(), now(base=BASE + rounded(seed), effect=EFFECT + times * rounded(seed + 99)))
        assert found.verdict is Verdict.BASE_MOVED
        assert [one.probe for one in found.findings] == ["base"]


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, 1.1, 2.0])
def test_coarse_arithmetic_excuses_no_other_scale(factor: float) -> None:
    for seed in range(20):
        found = consumer.judge(golden(), now(base=BASE + rounded(seed), effect=factor * EFFECT))
        assert found.verdict is Verdict.SILENT_WRONG


def test_a_base_that_is_far_off_at_one_prompt_excuses_that_prompt_only() -> None:
    moved = BASE + rounded(0)
    moved[0] += 0.6 * RANDOM.normal(size=moved[0].shape)
    there = np.where(np.arange(ROWS)[:, None, None] == 0, 0, EFFECT)
    assert consumer.judge(golden(), now(base=moved, effect=there)).verdict is Verdict.BASE_MOVED

    found = consumer.judge(golden(), now(base=moved, effect=0 * EFFECT))
    wrong = next(one for one in found.findings if one.probe == "forward")
    assert (found.verdict, wrong.kind) == (Verdict.SILENT_WRONG, "values")
    assert wrong.figures is not None
    assert wrong.figures.index[0] != 0
    assert wrong.figures.allowance < 0.2


def test_a_base_that_agrees_at_one_prompt_by_luck_makes_no_other_prompt_exact() -> None:
    lucky = rounded(0)
    lucky[2] = 0
    found = consumer.judge(golden(), now(base=BASE + lucky, effect=EFFECT + rounded(1)))
    assert found.verdict is Verdict.BASE_MOVED


def test_a_prompt_at_which_the_adapter_amplifies_rounding_may_differ_by_more() -> None:
    twin = golden()
    sensitive = twin.arrays["forward/float32/logits"].astype(np.float64)
    sensitive[1] += 100 * rounded(5, 1e-7)[1]
    standard = Observed("s", {}, {}, {}, {**twin.arrays, "forward/float64/logits": sensitive})
    for row, verdict in ((1, Verdict.BASE_MOVED), (2, Verdict.SILENT_WRONG)):
        effect = EFFECT.copy()
        effect[row] += 200 * rounded(6)[row]
        assert consumer.judge(standard, now(base=BASE + rounded(7), effect=effect)).verdict is verdict


def test_an_effect_at_a_prompt_where_the_adapter_has_none_is_wrong() -> None:
    without = np.where(np.arange(ROWS)[:, None, None] == 3, 0, EFFECT)
    arrays = {**golden().arrays, "forward/float64/logits": BASE + without}
    arrays["forward/float32/logits"] = (BASE + without).astype(np.float32)
    standard = Observed("s", {}, {}, {}, arrays)
    assert consumer.judge(standard, now(effect=without)).verdict is Verdict.CLOSE
    assert consumer.judge(standard, now(effect=EFFECT)).verdict is Verdict.SILENT_WRONG


def test_a_base_that_is_not_finite_says_nothing_of_the_effect() -> None:
    found = consumer.judge(golden(), now(base=BASE * np.nan))
    assert found.verdict is Verdict.BASE_MOVED
    assert any(one.kind == "proves-nothing" for one in found.findings)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Unexpected name 'base_model.model.lm_head.lora_A.weight': no", KEYS[0]),
        ("DoRA is not supported", "dora"),
        ("no Activated LoRA (aLoRA).", "alora"),
        ("invocation tokens are unknown", ""),
        ("the option use_dora is unknown", "use_dora"),
        ("no lm_head, please", "lm_head"),
        ("LlamaForCausalLM is not supported", "LlamaForCausalLM"),
        ("something went wrong", ""),
        ("this LoRA cannot be read", ""),
        ("missing field `r`", ""),
        ("the adorable model", ""),
        ("use_dora_too is unknown", ""),
        ("", ""),
    ],
)
def test_a_refusal_is_right_if_it_names_something(text: str, name: str) -> None:
    assert consumer.names_what_it_refuses(text, NAMED) == name
    refusal = {"what": "adapter", "stage": "converting the adapter", "text": text}
    found = consumer.judge(golden(), now(refused=refusal))
    assert found.verdict is (Verdict.REFUSED if name else Verdict.LOAD_ERROR)
    assert (name in found.reason) if name else found.findings[0].kind == "refused-unnamed"


def test_a_method_is_named_by_its_name() -> None:
    assert consumer.names_what_it_refuses("IA3Config cannot be read", {"method": "IA3"}) == "IA3Config"
    assert consumer.names_what_it_refuses("IA3 cannot be read", {"method": "IA3"}) == "IA3"
    assert consumer.names_what_it_refuses("prompt tuning is not for us", {"method": "PROMPT_TUNING"}) == "PROMPT TUNING"


def test_an_error_is_a_load_error_with_its_stage() -> None:
    error = {"stage": "converting the adapter", "type": "KeyError", "message": "'lora_alpha'", "traceback": ""}
    found = consumer.judge(golden(), now(load={"outcome": "error", "error": error}))
    assert found.verdict is Verdict.LOAD_ERROR
    assert found.findings[0].stage == "converting the adapter"


@pytest.mark.parametrize(
    "broken",
    [
        now(positions=[]),
        Observed("s", {"float32": {"outcome": "ok"}}, {}, {"consumer": {"named": NAMED, "positions": PLACES}}, {}),
    ],
)
def test_where_nothing_was_computed_nothing_is_said(broken: Observed) -> None:
    assert consumer.judge(golden(), broken).verdict is Verdict.NOT_COMPARABLE


def test_another_vocabulary_is_wrong_and_no_crash() -> None:
    wide = now()
    arrays = {name: np.concatenate([array, array], -1) for name, array in wide.arrays.items()}
    found = consumer.judge(golden(), Observed("s", wide.load, {}, wide.facts, arrays))
    assert found.verdict is Verdict.NOT_COMPARABLE
    assert "shape" in found.findings[0].message


def test_numbers_that_are_not_finite_are_wrong() -> None:
    broken = now()
    arrays = {**broken.arrays, "consumer/adapter": broken.arrays["consumer/adapter"] * np.nan}
    assert (
        consumer.judge(golden(), Observed("s", broken.load, {}, broken.facts, arrays)).verdict is Verdict.SILENT_WRONG
    )


@pytest.mark.parametrize(
    ("loaders", "selected"),
    [
        ("llama-cpp-python>=0.3.6", True),
        ("llama-cpp-python<0.3.6", False),
        ("llama-cpp-python>=0.3, transformers>=5", True),
        ("transformers>=5", False),
        (["consumer-llama.cpp*"], True),
        (["*"], False),
        (["current"], False),
    ],
)
def test_a_known_break_is_about_a_consumer_only_if_it_says_so(loaders: str | list[str], selected: bool) -> None:
    condition = Condition(scenarios=["*"], creators=["*"], loaders=loaders, verdict=Verdict.SILENT_WRONG)
    cell = Cell(id="s@v:l", scenario="s", creator="v", loader="consumer-llama.cpp", verdict=Verdict.SILENT_WRONG)
    versions = {"consumer-llama.cpp": {"llama-cpp-python": "0.3.36", "transformers": "5.24.0"}}
    assert expected.selects(condition, cell, versions) is selected
