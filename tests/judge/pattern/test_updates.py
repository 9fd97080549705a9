"""Layers' updates as matrices → whose they are, and whether they act transposed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.core.observation import Observed
from harness.judge.pattern import updates
from harness.judge.pattern.arrays import Change

LAYERS = ("a", "b", "c")
DRAW = np.random.default_rng(3)
INPUTS = {name: DRAW.uniform(-1, 1, (1, 5, 8)).astype(np.float32) for name in LAYERS}
UPDATES = {name: DRAW.uniform(-1, 1, (8, 8)) for name in LAYERS}
GOLDEN = Observed("x", {}, {}, {}, {f"layers/input/{name}": value for name, value in INPUTS.items()})


def pattern(now: dict[str, Any]) -> Any:
    """The pattern if the layers have these updates now, with noise."""
    noise = np.random.default_rng(4)
    observed = Observed("x", {}, {}, {}, {f"updates/float64/{name}": update for name, update in now.items()})
    changes = {
        name: Change.of(
            INPUTS[name].astype(np.float64) @ UPDATES[name],
            INPUTS[name].astype(np.float64) @ now[name] + noise.uniform(-5e-7, 5e-7, (1, 5, 8)),
            1e-6,
        )
        for name in LAYERS
    }
    return updates.of(GOLDEN, observed, changes, "float64")


@pytest.mark.parametrize(
    ("now", "kind", "says"),
    [
        ({n: u.T for n, u in UPDATES.items()}, "transposition", "the update acts transposed in 3 of 3 layers"),
        (UPDATES | {"a": UPDATES["b"], "b": UPDATES["a"]}, "exchange", "a and b have each other's effect"),
        (
            {"a": UPDATES["b"], "b": UPDATES["c"], "c": UPDATES["a"]},
            "exchange",
            "c has the effect of a, a has the effect of b, b has the effect of c",
        ),
    ],
)
def test_an_update_is_recognised(now: dict[str, Any], kind: str, says: str) -> None:
    found = pattern(now)

    assert found is not None
    assert (found.kind, found.says) == (kind, says)


@pytest.mark.parametrize("now", [UPDATES, {n: u + 0.1 for n, u in UPDATES.items()}, UPDATES | {"a": UPDATES["b"]}])
def test_nothing_is_claimed_of_other_updates(now: dict[str, Any]) -> None:
    assert pattern(now) is None
