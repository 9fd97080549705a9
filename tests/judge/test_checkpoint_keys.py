"""What a checkpoint must hold: keys and shapes against what a scenario expects."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.core.observation import Observed
from harness.judge.checkpoint_keys import unexpected_keys, unexpected_shapes, unmet


@pytest.mark.parametrize(
    ("keys", "expects", "problems", "stray"),
    [
        (["a.x", "b.x"], {"*.x": 2}, [], []),
        (["a.x"], {"*.x": 2}, ["expected 2 keys like '*.x', found 1"], []),
        (["a.x", "c"], {"*.x": 1}, [], ["c"]),
        (["c"], None, [], []),
    ],
)
def test_unexpected_keys(
    keys: list[str], expects: Mapping[str, int] | None, problems: list[str], stray: list[str]
) -> None:
    assert unexpected_keys(keys, expects) == (problems, stray)


@pytest.mark.parametrize(
    ("expects", "problems"),
    [
        ({}, []),
        ({"*.delta": [2, 16]}, []),
        ({"a.*": [2, 16], "*.weight": [48, 16]}, []),
        (
            {"*.delta": [48, 16]},
            ["'a.delta' has shape [2, 16], not [48, 16]", "'b.delta' has shape [2, 16], not [48, 16]"],
        ),
        (
            {"*.delta": [16, 2]},
            ["'a.delta' has shape [2, 16], not [16, 2]", "'b.delta' has shape [2, 16], not [16, 2]"],
        ),
        ({"*.rows": [2]}, ["expected a key like '*.rows' of shape [2], found none"]),
    ],
)
def test_unexpected_shapes(expects: Mapping[str, list[int]], problems: list[str]) -> None:
    shapes = {"a.delta": [2, 16], "b.delta": [2, 16], "c.weight": [48, 16]}

    assert unexpected_shapes(shapes, expects) == problems


def test_what_a_golden_does_not_hold() -> None:
    facts = {"accounting": {"tensors": {"a.x": {}, "b": {}}, "shapes": {"a.x": [3], "b": [1]}}}
    golden = Observed("s", {}, {}, facts, {})

    assert unmet(golden, {"expects": None}) == []
    assert unmet(golden, {"expects": {"*": 2}}) == []
    assert unmet(golden, {"expects": {"*.x": 2}, "expects_shapes": {"b": [2]}}) == [
        "expected 2 keys like '*.x', found 1",
        "key 'b' matches no pattern",
        "'b' has shape [1], not [2]",
    ]
