"""What SFTTrainer makes of a model: other types, tensors that do not train or do not arrive, a loader without TRL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.core.scenario import Scenario
from harness.judge import structure_steps
from harness.judge.contracts import Found
from harness.judge.outcomes import compare as compare_outcomes
from harness.report.pages import trl_structure
from harness.report.pages.trl_structure import Seen
from tests.judge.test_structure_steps import FACTORS, put, structure
from tests.support.observations import Pair


def pair_of(change: Callable[[dict[str, Any]], object] = lambda _: None) -> Pair:
    pair = Pair()
    for side in (pair.golden, pair.now):
        recorded = {step: structure() for step in ("constructed", "trained", "reloaded")}
        side.facts["sft"] = {"steps": recorded, "unchanged": [], "lost": [], "losses": [3.0, 2.9], "apart": 0.0}
        side.probes["sft"] = {"float32": {"outcome": "ok"}}
    change(pair.now.facts["sft"])
    return pair


def found_in(pair: Pair) -> Found:
    found = Found()
    structure_steps.sft(pair.golden.observed(), pair.now.observed(), found)
    return found


def test_what_is_the_same_says_nothing() -> None:
    found = found_in(pair_of())
    assert (found.findings, found.notes, found.standing) == ([], [], [])


def in_bfloat16(facts: dict[str, Any]) -> None:
    put(FACTORS, 0, "bfloat16", "constructed")(facts["steps"])


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (in_bfloat16, "structure-steps", "constructed: lora_A, lora_B (4 parameters): float32 → bfloat16"),
        (lambda facts: facts.update(unchanged=list(FACTORS[:1])), "untrained", FACTORS[0]),
        (lambda facts: facts.update(lost=list(FACTORS[:1])), "trained-lost", FACTORS[0]),
    ],
    ids=["dtype", "untrained", "lost"],
)
def test_what_broke_is_told(change: Callable[[dict[str, Any]], object], kind: str, told: str) -> None:
    assert [(f.kind, f.details) for f in found_in(pair_of(change)).findings] == [(kind, (told,))]


def test_other_numbers_of_another_trainer_are_a_note() -> None:
    found = found_in(pair_of(lambda facts: facts.update(apart=0.02)))
    assert found.findings == []
    assert found.notes == ["trained by this TRL, the adapter differs from the stored one by up to 0.02"]


def test_a_loader_without_trl_is_told_of_and_no_contract() -> None:
    pair = pair_of()
    pair.now.probes["sft"] = {"float32": {"outcome": "skipped", "reason": "TRL is not installed here"}}
    found = Found()
    compare_outcomes(pair.golden.observed(), pair.now.observed(), found)
    assert not [f for f in found.findings if f.probe == "sft"]
    assert "training with SFTTrainer was skipped: TRL is not installed here" in found.notes


ADAPTER = {"config": "LoraConfig", "args": {}}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "a condition on TRL"),
        ({"creator_requires": ["trl>=0.7"], "beside": ADAPTER}, "cannot be combined with"),
        ({"creator_requires": ["trl>=0.7"], "adapter_name": "mine"}, "needs `sft.wrapped = true`"),
    ],
)
def test_a_scenario_that_no_trainer_makes_is_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Scenario.model_validate({"name": "a", "why": "b", "base": "llama", "adapter": ADAPTER, "sft": {}} | more)


def seen(
    release: str,
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    *,
    scenario: str = "sft-8bit",
    peft: str = "0.18.0",
) -> Seen:
    facts = pair_of(change).now.facts["sft"]
    versions = {"trl": release, "peft": peft, "torch": "2.13.0"}
    return Seen(scenario, f"trl-{release}", versions, facts["steps"])


def rows(text: str, section: str) -> list[str]:
    """The rows of a section's table, without its header."""
    body = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [line for line in body.splitlines() if line.startswith("| ")][2:]


def test_the_page_tells_in_which_release_a_type_changed() -> None:
    # 0.9 comes before 0.24, whatever the order in which they are stored
    text = trl_structure.render([seen("0.26.2", in_bfloat16), seen("0.9.6"), seen("0.24.0")])
    change = "`constructed: lora_A, lora_B (4 parameters): float32 → bfloat16`"
    assert rows(text, "Changes by release") == [f"| 0.24.0 → 0.26.2 | nothing | {change} | sft-8bit |"]
    assert rows(text, "Result by scenario") == [
        "| sft-8bit | 0.9.6 – 0.24.0 | 2 | float32 | bfloat16 |",
        "| sft-8bit | 0.26.2 | 1 | bfloat16 | bfloat16 |",
    ]
    assert [row.split(" ")[1] for row in rows(text, "The releases")] == ["0.9.6", "0.24.0", "0.26.2"]


def test_what_changed_is_said_once_of_all_steps_and_scenarios_with_what_moved_beside_it() -> None:
    def everywhere(facts: dict[str, Any]) -> None:
        for step in ("trained", "constructed"):
            put(FACTORS, 0, "bfloat16", step)(facts["steps"])

    names = ("sft-8bit", "sft-4bit")
    later = [seen("0.26.2", everywhere, scenario=name, peft="0.18.1") for name in names]
    text = trl_structure.render([*later, *(seen("0.24.0", scenario=name) for name in names)])
    change = "`constructed and trained: lora_A, lora_B (4 parameters): float32 → bfloat16`"
    assert rows(text, "Changes by release") == [
        f"| 0.24.0 → 0.26.2 | PEFT 0.18.0 → 0.18.1 | {change} | sft-4bit, sft-8bit |"
    ]


@pytest.mark.parametrize(
    ("between", "told"),
    [
        (["0.22.2"], "without 0.22.2"),
        (["0.10.1", "0.22.2"], "without 0.10.1 and 0.22.2"),
        (["0.10.1", "0.11.4", "0.12.2", "0.22.2"], "without 4 of the releases between"),
    ],
)
def test_a_range_tells_of_the_releases_that_lack_the_scenario(between: list[str], told: str) -> None:
    others = [seen(release, scenario="sft-plain") for release in ("0.9.6", *between, "0.24.0", "1.16.0")]
    text = trl_structure.render([seen("0.9.6"), seen("0.24.0"), *others])
    assert rows(text, "Result by scenario")[0].startswith(f"| sft-8bit | 0.9.6 – 0.24.0, {told} | 2 |")
    assert "\n\nNothing changed.\n" in text


def in_another_class(facts: dict[str, Any]) -> None:
    layers = facts["steps"]["constructed"]["adapter_layers"]
    layers.update(dict.fromkeys(layers, "Linear"))


def not_trained(facts: dict[str, Any]) -> None:
    facts["steps"]["trained"] = {"outcome": "failed", "error": {"type": "ValueError", "message": "no"}}


@pytest.mark.parametrize(
    ("change", "told"),
    [(in_another_class, "Linear4bit → Linear`"), (not_trained, "`trained: ok → failed`")],
    ids=["wrapper", "outcome"],
)
def test_another_wrapper_or_a_step_that_fails_is_a_change(
    change: Callable[[dict[str, Any]], object], told: str
) -> None:
    row, *more = rows(trl_structure.render([seen("0.24.0"), seen("0.25.1", change)]), "Changes by release")
    assert told in row
    assert not more


def test_the_page_without_goldens_says_so() -> None:
    assert "No golden is stored." in trl_structure.render([])
