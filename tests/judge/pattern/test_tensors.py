"""Where the checkpoint's tensors are, for the creator and now → the pattern."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.observation import Observed
from harness.judge.pattern import tensors

LAYERS = ("layers.0.q_proj", "layers.1.q_proj")
KEYS = tuple(f"base_model.model.{layer}.lora_{part}.weight" for layer in LAYERS for part in "AB")


@pytest.mark.parametrize(
    ("lost", "says", "detail"),
    [
        (KEYS[:1], f"{KEYS[0]} never arrives", ""),
        (KEYS[1::2], "all 2 tensors ….lora_B.weight never arrive", ".lora_B.weight"),
        (KEYS[:2], f"{KEYS[0]}, {KEYS[1]} never arrive", ""),
        (KEYS, "all 4 tensors ….weight never arrive", ".weight"),
    ],
)
def test_dropped_tensors_are_named_by_what_only_they_have(lost: tuple[str, ...], says: str, detail: str) -> None:
    found = tensors.dropped(lost, KEYS)

    assert (found.kind, found.says, found.detail, found.tensors) == ("dropped", says, detail, lost)


def observed(places: dict[str, str], found: str = "whole") -> Observed:
    """An observation with these tensors in these places."""
    said = {key: {"found": found, "at": [place]} for key, place in places.items()}
    return Observed("x", {}, {}, {"accounting": {"tensors": said}}, {})


AT_HOME = {key: key.removeprefix("base_model.model.") for key in KEYS}


def exchanged(*parts: str) -> dict[str, str]:
    """The places if the two layers have each other's tensors of these names."""
    moved = {
        k: p.replace("layers.0", "@").replace("layers.1", "layers.0").replace("@", "layers.1")
        for k, p in AT_HOME.items()
    }
    return {key: moved[key] if any(part in key for part in parts) else AT_HOME[key] for key in KEYS}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (observed(exchanged("lora_A", "lora_B")), "layers.0.q_proj and layers.1.q_proj have each other's tensors"),
        (observed(exchanged("lora_A")), "layers.0.q_proj and layers.1.q_proj have each other's lora_A"),
        (observed(AT_HOME, "transposed"), "4 of 4 tensors of the checkpoint arrive transposed"),
        (observed(AT_HOME), None),
        (observed({key: f"other.{place}" for key, place in AT_HOME.items()}), None),
        (observed({**AT_HOME, KEYS[0]: AT_HOME[KEYS[2]]}), None),
    ],
    ids=["two layers", "their first factors", "transposed", "as before", "renamed", "one place twice"],
)
def test_tensors_in_the_place_of_others(now: Observed, says: Any) -> None:
    found = tensors.misplaced(observed(AT_HOME), now, LAYERS)

    assert (found and found.says) == says
