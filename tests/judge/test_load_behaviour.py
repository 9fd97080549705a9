"""What a loader did with a checkpoint: refused, dropped, ignored, read."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.run import CheckpointKeys, ProbeResult
from harness.core.verdict import Verdict
from harness.judge import load_behaviour
from harness.judge.config_entries import SAID_NOTHING
from tests.support import samples

OK = {name: ProbeResult(verdict=Verdict.EXACT, outcome="ok") for name in ("forward", "roundtrip")}
LOST = CheckpointKeys(total=4, arrived=2, lost=("a.lora_magnitude_vector", "b.lora_magnitude_vector"))
KEPT = CheckpointKeys(total=4, arrived=4)

READINGS = [
    # verdict, the rest, what it did
    ("exact", {"probes": OK, "keys": KEPT}, "read"),
    ("close", {"probes": OK}, "read"),
    ("silent-wrong", {"probes": OK, "keys": LOST}, "dropped"),
    ("contract", {"probes": OK, "keys": LOST, "config_differences": ("- a (was 1)",)}, "dropped"),
    ("contract", {"probes": OK, "keys": KEPT, "config_differences": ("- use_dora (was True)",)}, "ignored"),
    ("contract", {"probes": OK, "config_differences": (f"- eva_config (was None){SAID_NOTHING}", "r: 4 → 8")}, "read"),
    ("exact", {"probes": OK, "config_differences": ("+ bias = 'none'",)}, "read"),
    ("crash", {}, ""),
    ("env-failed", {"reason": "no wheel"}, ""),
    ("unsupported", {"reason": "creator: needs peft>=0.9"}, ""),
    ("not-comparable", {"probes": OK}, ""),
]


@pytest.mark.parametrize(("verdict", "more", "expected"), READINGS)
def test_what_the_loader_did(verdict: str, more: dict[str, Any], expected: str) -> None:
    assert load_behaviour.of(samples.cell("lora-x", verdict, **more)) == expected


def test_a_refusal_stays_one_whatever_it_is_called() -> None:
    cell = samples.refused("lora-x")
    assert load_behaviour.of(cell) == "refused"
    assert load_behaviour.of(cell.model_copy(update={"verdict": Verdict.UNSUPPORTED})) == "refused"


GONE = ("- use_dora (was True)", f"- pattern (was {{}}){SAID_NOTHING}", "- n (was 16)", "r: 4 → 8")
WARNED = (
    "load: UserWarning: Unexpected keyword arguments ['eva_config', 'peft_version', 'r'] for class PeftConfig",
    "load: UserWarning: Unexpected keyword arguments ['eva_config', 'peft_version'] for class LoraConfig, these are …",
)


def test_ignored_keys_are_those_that_say_something() -> None:
    cell = samples.cell("lora-x", "contract", probes=OK, config_differences=GONE, new_warnings=WARNED)
    assert load_behaviour.ignored_keys(cell) == ("n", "use_dora")


def test_where_nothing_could_be_saved_again_the_warnings_tell() -> None:
    probes = {"forward": OK["forward"], "roundtrip": ProbeResult(verdict=Verdict.RUN_ERROR, outcome="error")}
    cell = samples.cell("lora-x", "run-error", probes=probes, new_warnings=WARNED)
    assert load_behaviour.ignored_keys(cell) == ("eva_config",)
    assert load_behaviour.of(cell) == "ignored"
    assert load_behaviour.ignored_keys(cell.model_copy(update={"new_warnings": ()})) == ()


LACKS = "needs peft>=0.9, has peft 0.7.1"


def test_a_tried_loader_that_refuses_is_unsupported_and_says_how() -> None:
    tried = load_behaviour.tried(samples.refused("lora-x", "unexpected 'use_dora'\nand more"), LACKS)
    assert tried.verdict is Verdict.UNSUPPORTED
    assert tried.reason == f"loader: {LACKS}; it refuses at stage state dict: RuntimeError: unexpected 'use_dora'"
    assert tried.findings == ()
    assert tried.error is not None
    assert not tried.deviates


@pytest.mark.parametrize("make", [samples.wrong, samples.exact])
def test_a_tried_loader_that_loads_counts_as_any_other(make: Any) -> None:
    before = make("lora-x")
    tried = load_behaviour.tried(before, LACKS)
    assert tried.verdict is before.verdict
    assert tried.findings == before.findings
    lacks = f"the loader lacks the feature ({LACKS}), but does not refuse"
    assert tried.notes[-1] == f"{lacks}: it reads tensors and config completely"


@pytest.mark.parametrize("verdict", ["crash", "timeout", "run-error"])
def test_other_deaths_stay_what_they_are(verdict: str) -> None:
    assert load_behaviour.tried(samples.cell("lora-x", verdict), LACKS).verdict == verdict
