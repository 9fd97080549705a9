"""`show --layers`: a changed computation, a dropped tensor, a changed base, and errors."""

from __future__ import annotations

import json
import re

import pytest

from harness.core.errors import UsageError
from harness.deviation import where_trace
from harness.deviation.one_cell import CellRequest
from harness.runner.request import Places
from tests.support.mini.world import HANDLER, Said, World, main


def asked(world: World, cell: str, *words: str) -> Said:
    return main("show", cell, "--layers", *world.where("create"), f"--reports={world.reports}", *words)


def without_ratios(text: str) -> str:
    """The text without multiples of allowances, which include rounding that differs between replays."""
    return " ".join(re.sub(r"\(\S+×\)", "", text).split())


def checked(world: World, release: str) -> World:
    world.run("check", "--loader", world.spec(release))
    return world


#: release, the cause, the first layer, words, the cheapest probe
TABLE = [
    ("2.1", "computation", "layer1", "the computation changed (scaling: 0.75 → 1.5), not the loading", "layers"),
    ("2.2", "loading", "layer3", "from the checkpoint: the loading changed", "accounting"),
    ("2.6", "base", "layer2", "the base changed", "base"),
    ("2.7", "afterwards", "", "what happens after loading", "merged"),
    ("2.4", "not loaded", "", "it does not load", "load"),
]


@pytest.mark.parametrize(("release", "doing", "first", "words", "probe"), TABLE, ids=[t[0] for t in TABLE])
def test_first_layer_and_cause(mini: World, release: str, doing: str, first: str, words: str, probe: str) -> None:
    checked(mini, release)
    said = asked(mini, "two-layers", f"--creator={mini.spec('1.0')}")
    assert said.code == 0, said
    assert words in said.line, said
    found = json.loads(asked(mini, "two-layers", "--json").out)
    assert (found["doing"], found.get("first", ""), found["probe"]) == (doing, first, probe)


def test_the_result_is_kept_beside_the_run(mini: World) -> None:
    checked(mini, "2.1")
    first = asked(mini, "two-layers")
    replays = mini.traced("trace")
    again = asked(mini, "two-layers")
    assert again.out == first.out
    assert mini.traced("trace") == replays
    assert [path.parent.name for path in mini.folder().rglob("two-layers*.json")] == ["where"]
    asked(mini, "two-layers", "--again")
    assert len(mini.traced("trace")) > len(replays)


def test_a_damaged_result_is_traced_again(mini: World) -> None:
    checked(mini, "2.1")
    first = asked(mini, "two-layers")
    (path,) = mini.folder().rglob("two-layers*.json")
    path.write_text("{")
    assert without_ratios(asked(mini, "two-layers").out) == without_ratios(first.out)
    assert json.loads(path.read_text())


def test_parameters_are_compared_with_the_checkpoint(mini: World) -> None:
    checked(mini, "2.2")
    found = json.loads(asked(mini, "two-layers", "--json").out)
    rows = {p["name"]: p for layer in found["layers"] for p in layer.get("parameters", [])}
    assert rows["layer1.low_rank_A"]["max_abs"] == 0.0
    assert rows["layer3.low_rank_A"]["max_abs"] > 0.1


def test_inputs_that_differ_already_are_shown(mini: World) -> None:
    checked(mini, "2.1")
    found = json.loads(asked(mini, "two-layers", "--json").out)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["layer1"]["input"].get("max_abs", 0.0) == 0.0
    assert layers["layer3"]["input"]["max_abs"] > layers["layer3"]["input"]["allowance"]


def test_a_cell_that_cannot_be_traced(mini: World) -> None:
    checked(mini, "2.8")
    said = asked(mini, "two-layers")
    assert said.code == 2
    assert "env-failed" in said.err
    assert asked(mini, "nothing").code == 64


def test_a_whole_id_needs_no_run(mini: World) -> None:
    said = asked(mini, f"two-layers@{mini.name('1.0')}:{mini.spec('2.1')}[cpu]")
    assert said.code == 0, said
    assert "the computation changed" in said.line


def test_the_trace_is_a_function(mini: World) -> None:
    checked(mini, "2.1")
    places = Places(mini.matrices, mini.fixtures, mini.reports)
    log: list[str] = []
    found = where_trace.trace(CellRequest("two-layers", places, worker_handler=HANDLER), log=log.append)
    assert (found.doing, found.first) == ("computation", "layer1")
    assert where_trace.trace(CellRequest("two-layers", places)) == found, "kept"
    with pytest.raises(UsageError, match="no cell"):
        where_trace.trace(CellRequest("nothing", places))
    assert log, "the creator's environment is not available under its name"


def test_without_layers_nothing_is_traced(mini: World) -> None:
    checked(mini, "2.1")
    assert "reproduce" in main("show", "two-layers", f"--reports={mini.reports}").out
    assert mini.traced("trace") == []
