"""Which layer of a loaded model is one of the golden under another name, told by the base's weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.worker.observe import renamed_layers


class Tensor:
    """As much of a tensor as is asked for."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, dtype=np.float32)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self  # detach, to, float, contiguous

    def numpy(self) -> Any:
        return self.values

    def numel(self) -> int:
        return self.values.size

    def flatten(self) -> Any:
        return self.values.ravel()

    def is_floating_point(self) -> bool:
        return True

    def __eq__(self, other: object) -> Any:
        return self.values == other

    __hash__ = None  # type: ignore[assignment]


class Base:
    """A model that has parameters, and nothing else."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        self.parameters = parameters

    def named_parameters(self) -> Any:
        return list(self.parameters.items())


ONES = Tensor(np.ones(6))
W = [Tensor(np.arange(6) + 10 * index) for index in range(4)]
STORED = {"visual.blocks.0.q.weight": W[0], "visual.blocks.1.q.weight": W[1], "visual.blocks.1.q.bias": W[2]}
LOADED = {"model.seen.0.query.weight": W[0], "model.seen.1.query.weight": W[1], "model.seen.1.query.bias": W[2]}
OLD, NEW = ["visual.blocks.0.q", "visual.blocks.1.q"], ["model.seen.0.query", "model.seen.1.query"]


@pytest.mark.parametrize(
    ("stored", "loaded", "missing", "found", "expected"),
    [
        (STORED, LOADED, OLD, NEW, dict(zip(OLD, NEW, strict=True))),
        # the file was written under yet other names, as what saves a model may undo what loading it renamed
        ({"blocks.0.q.weight": W[0]}, LOADED, OLD[:1], NEW, {OLD[0]: NEW[0]}),
        ({"whole.visual.blocks.0.q.weight": W[0]}, LOADED, OLD[:1], NEW, {OLD[0]: NEW[0]}),
        # the layer that has the weights carries no adapter
        (STORED, LOADED, OLD[:1], NEW[1:], {}),
        # the weights are nowhere (fused), or are not in the file
        (STORED, {"model.seen.stack": W[3]}, OLD, NEW, {}),
        ({}, LOADED, OLD, NEW, {}),
        # weights that could be anybody's say nothing
        ({"visual.blocks.0.q.weight": ONES}, {"model.seen.0.query.weight": ONES}, OLD[:1], NEW, {}),
        # two layers that share their weights can't be told apart
        (STORED, {**LOADED, "model.other.query.weight": W[0]}, OLD[:1], [*NEW, "model.other.query"], {}),
    ],
)  # fmt: skip
def test_by_the_base_s_weights(stored: Any, loaded: Any, missing: Any, found: Any, expected: dict[str, str]) -> None:
    assert renamed_layers.layers(stored, Base(loaded), missing, found) == expected
