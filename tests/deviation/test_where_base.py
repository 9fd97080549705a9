"""Where a base that moved begins to differ: by hand-made traces of a small base, renamed and fused by the loader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from harness.core.observation import Observed
from harness.deviation import where_base
from harness.deviation.where_base import Base

OLD = ("embed", "enc.layer.0.query", "enc.layer.0.act", "enc.layer.0", "enc.layer.1.query", "enc.layer.1", "embed_out")
NEW = ("embed", "layers.0.q_proj", "layers.0.act", "layers.0", "layers.1.q_proj", "layers.1", "lm_head")
RENAMED = dict(zip(OLD, NEW, strict=True))
WEIGHTS = ("embed", "enc.layer.0.query", "enc.layer.1.query", "embed_out")
ROWS = ("enc.layer.0.query", "enc.layer.0", "enc.layer.1.query", "enc.layer.1", "embed_out")


def trace(modules: Sequence[str], drift: Callable[[str], float] = lambda _: 0.0, **weights: Any) -> Observed:
    """A trace of the bare base.

    Args:
        drift: how far a module's output is from the sound one.
        weights: where the tensors of a module are, instead of in the module of that name.
    """
    arrays = {}
    given = np.arange(1.0, 7.0)
    for at, name in enumerate(modules):
        output = np.arange(1.0, 7.0) + at + drift(name)
        for precision, noise in (("float32", 1e-7), ("float64", 0.0)):
            arrays[f"base_trace/{precision}/input/{name}"] = given + noise
            arrays[f"base_trace/{precision}/output/{name}"] = output + noise
        given = output
    called = dict(zip(OLD, modules, strict=True))
    places: dict[str, Any] = {f"{n}.weight": {"found": "whole", "at": [f"{called[n]}.weight"]} for n in WEIGHTS}
    for name, place in weights.items():
        places[f"{name.replace('_DOT_', '.')}.weight"] = place
    facts = {"base_trace": {"modules": [[name, "Module"] for name in modules], "weights": places}}
    return Observed("s", {}, {}, facts, arrays)


def after(*moved: str, by: float = 1e-3) -> Callable[[str], float]:
    """These modules and all after them differ."""

    def drift(name: str) -> float:
        order = OLD if name in OLD and not set(moved) & set(NEW) - set(OLD) else NEW
        return by if any(order.index(name) >= order.index(one) for one in moved if one in order) else 0.0

    return drift


def compared(now: Observed, creators: Observed | None) -> Base:
    return where_base.compare(ROWS, now, creators)


def test_a_renamed_base_is_matched_by_its_weights() -> None:
    found = compared(trace(NEW), trace(OLD))
    assert found.names == RENAMED
    assert found.first is None
    assert found.said == ("none of the 7 modules of the bare base differs: the change is between them",)


def test_the_same_in_the_other_direction() -> None:
    rows = [RENAMED[row] for row in ROWS]
    swapped = {after: before for before, after in RENAMED.items()}
    assert where_base.compare(rows, trace(OLD), trace(NEW)).names == swapped


FIRSTS = [
    (
        "a leaf",
        "layers.1.q_proj",
        "enc.layer.1.query",
        "its weights equal the checkpoint's and its input agrees; its own",
    ),
    ("a module around others", "layers.0", "enc.layer.0", "as do the 2 modules inside it; its own computation changed"),
    ("the embedding", "embed", "embed", "the base changed in embed: "),
    ("the head", "lm_head", "embed_out", "the base changed in embed_out: "),
    ("a module without weights", "layers.0.act", "enc.layer.0.act", "the base changed in enc.layer.0.act: "),
]


@pytest.mark.parametrize(("moved", "first", "says"), [row[1:] for row in FIRSTS], ids=[row[0] for row in FIRSTS])
def test_the_first_module_that_differs_is_named(moved: str, first: str, says: str) -> None:
    found = compared(trace(NEW, after(moved)), trace(OLD))
    assert found.first is not None
    assert (found.first.name, found.first.called or first) == (first, moved)
    assert says in found.said[-1]


def test_rounding_is_no_difference() -> None:
    assert compared(trace(NEW, after("embed", by=1e-7)), trace(OLD)).first is None


def test_a_weight_that_was_not_loaded_is_named() -> None:
    lost = {"enc_DOT_layer_DOT_1_DOT_query": {"found": "nowhere", "at": []}}
    found = compared(trace(NEW, after("layers.1.q_proj"), **lost), trace(OLD))
    assert found.first is not None
    assert found.first.changed == ("enc.layer.1.query.weight",)
    assert "enc.layer.1.query.weight of the checkpoint is not in the loaded base" in found.said[-1]


def test_without_the_creators_side_the_weights_still_tell() -> None:
    lost = {"embed": {"found": "nowhere", "at": []}}
    found = compared(trace(NEW, after("embed"), **lost), None)
    assert found.names["enc.layer.0"] == "layers.0"
    assert found.said == ("the base changed: embed.weight of its checkpoint is not in the loaded base",)
    assert "not available" in compared(trace(NEW), None).said[0]


def test_what_was_fused_is_said_to_be_part_of_another() -> None:
    part = {"found": "slice", "at": ["layers.1.qkv.weight"]}
    gone = tuple(name for name in NEW if name != "layers.1.q_proj")
    now = trace(NEW, enc_DOT_layer_DOT_1_DOT_query=part)
    now.facts["base_trace"]["modules"] = [[name, "Module"] for name in gone]
    found = compared(now, trace(OLD))
    assert "enc.layer.1.query" not in found.names
    assert found.places["enc.layer.1.query"] == "part of layers.1.qkv.weight"
    assert found.fused["enc.layer.1.query"] == "layers.1.qkv.weight"


def test_a_golden_whose_base_was_wrapped_is_matched_by_the_names_of_the_checkpoint() -> None:
    def wrapped(names: Sequence[str]) -> Observed:
        return trace([f"inner.{name}" for name in names])

    found = where_base.compare(ROWS, wrapped(OLD), wrapped(OLD))
    assert found.names["enc.layer.0.query"] == "inner.enc.layer.0.query"
    assert found.names["enc.layer.1"] in ("inner.enc.layer.1", "inner.enc.layer.1.query")
