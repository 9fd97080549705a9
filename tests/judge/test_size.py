"""The one figure of how bad a cell is: that of what is said about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.core.matrix import CellId
from harness.core.observation import Done
from harness.core.run import Cell, Figures, Finding, ProbeResult
from harness.core.verdict import Verdict
from harness.judge import cell_result, size
from tests.support import samples
from tests.support.observations import FORWARD, KEYS, Mutation, Pair, both, lost, now

BAD = Figures(array="forward/float32/logits", dtype="float32", max_abs=1.0, allowance=1e-6)
SMALL = Figures(array="merged/float32/logits", dtype="float32", max_abs=3e-7, allowance=1e-6)
TOKENS = Figures(array="generate/float32/tokens", dtype="int64", max_abs=32.0, differing=4, elements=11)


def finding(kind: str, figures: Figures | None = None, verdict: Verdict = Verdict.SILENT_WRONG, **more: Any) -> Finding:
    return Finding(probe=more.pop("probe", "forward"), kind=kind, verdict=verdict, message="m", figures=figures, **more)


def cell(verdict: Verdict, *findings: Finding, **probes: tuple[Verdict, Figures]) -> Cell:
    results = {n: ProbeResult(verdict=v, outcome="ok", figures=(f,)) for n, (v, f) in probes.items()}
    return samples.cell("a", verdict, findings=findings, probes=results)


S, R, C, V = Verdict.SILENT_WRONG, Verdict.RUN_ERROR, Verdict.CONTRACT, Verdict
RAISED = finding("error", verdict=R, error_type="KeyError")

#: name, cell, error ÷ allowance
TABLE: list[tuple[str, Cell, float | None]] = [
    ("the own size", cell(S, finding("hotswap-differs", BAD, probe="door.hotswap"), forward=(V.CLOSE, SMALL)), 1e6),
    ("an error has none", cell(R, RAISED, forward=(V.CLOSE, SMALL)), None),
    ("an error beside a wrong value", cell(S, RAISED, finding("values", BAD)), 1e6),
    ("a clean probe that is not like the golden", cell(V.CLOSE, unmerged=(V.CLOSE, BAD), merged=(V.CLOSE, SMALL)), 0.3),
    ("what was lost shows in the values", cell(S, finding("lost-tensors"), finding("values", BAD)), 1e6),
    ("lost by a load path", cell(S, finding("auto-lost-tensors"), finding("auto-differs", BAD)), 1e6),
    ("what was lost without a value", cell(S, finding("lost-tensors"), finding("train-mode", BAD, C)), None),
    ("a finding without a size", cell(C, finding("trainability", None, C), finding("train-mode", BAD, C)), None),
    ("tokens have no size", cell(S, finding("values", TOKENS)), None),
    ("the greatest of a clean cell", cell(V.CLOSE, forward=(V.EXACT, BAD.model_copy(update={"max_abs": 0.0})),
                                          merged_saved=(V.CLOSE, SMALL)), 0.3),
    ("not comparable", cell(V.CLOSE, fresh=(V.NOT_COMPARABLE, BAD), forward=(V.CLOSE, SMALL)), 0.3),
    ("tokens of a clean cell", cell(V.CLOSE, generate=(V.EXACT, TOKENS), forward=(V.CLOSE, SMALL)), 0.3),
    ("two runs that are infinitely far apart", cell(V.CLOSE, forward=(V.CLOSE, BAD.model_copy(
        update={"allowance": float("inf")}))), 0.0),
    ("nothing", cell(V.NOT_COMPARABLE), None),
]  # fmt: skip


@pytest.mark.parametrize(("one", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_size_is_that_of_what_is_shown(one: Cell, expected: float | None) -> None:
    assert size.ratio(one) == (None if expected is None else pytest.approx(expected))


def judged(mutation: Mutation) -> Cell:
    pair = Pair()
    mutation(pair)
    identity = CellId("s", "a", "b", "cpu")
    return cell_result.cell(identity, pair.golden.observed(), pair.now.observed(), Done("s", "done", "", "", 0.0))


@pytest.mark.parametrize("probe", ["merged_saved", "roundtrip", "second", "gradients", "layers"])
def test_every_probe_that_fails_gives_the_size(probe: str) -> None:
    found = judged(now("shift", probe, 0.3))
    assert found.worst_ratio is not None
    assert found.worst_ratio > 1e4


def test_a_clean_cell_is_within_its_allowance() -> None:
    found = judged(lambda _: None)
    assert found.worst_ratio is not None
    assert 0 < found.worst_ratio <= 1


def test_other_tokens_are_placed_where_they_begin() -> None:
    def mutate(pair: Pair) -> None:
        pair.now.arrays["generate/float32/tokens"][0, -2:] = (6, 0)

    figures = next(f.figures for f in judged(mutate).findings if f.probe == "generate")
    assert figures is not None
    assert (figures.index, figures.differing) == ((0, 5), 2)


# -- the adapter's own effect -----------------------------------------------------------------------------------------


def _a_layer_is_missing(pair: Pair) -> None:
    name = pair.golden.facts["layers"]["names"][0]
    pair.now.facts["layers"] |= {"missing": [name], "names": pair.golden.facts["layers"]["names"][1:]}
    for precision in ("float32", "float64"):
        pair.now.drop(f"layers/{precision}/{name}")
    pair.now.shift("forward", 0.3)


PARTIAL: list[tuple[str, Mutation]] = [
    ("a layer is missing", _a_layer_is_missing),
    ("the forward pass raised", both(now("raises", "forward"), now("raises", "forward", "float64"))),
    ("a tensor was lost", both(lost(KEYS[0]), now("shift", "forward", 0.3))),
]


@pytest.mark.parametrize("mutation", [row[1] for row in PARTIAL], ids=[row[0] for row in PARTIAL])
def test_an_effect_that_was_measured_in_part_is_not_called_unchanged(mutation: Mutation) -> None:
    assert judged(mutation).adapter_delta is None


def test_an_effect_that_was_measured_is_stated() -> None:
    assert (judged(lambda _: None).adapter_delta or 0.0) > 0
    assert (judged(now("shift", "layers", 0.3)).adapter_delta or 0.0) > 0.2


# -- rounding is no defect --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "standing"), [(1.2, False), (1.45, False), (2.5, True), (1000.0, True)])
def test_rounding_of_a_merge_is_no_standing_defect(times: float, standing: bool) -> None:
    pair = Pair()
    for side in (pair.golden, pair.now):
        side.drop("unmerged")
        array = side.arrays[FORWARD].copy()
        array.flat[0] += times * pair.allowance(FORWARD)
        side.arrays["unmerged/float32/logits"] = array
    judgement = pair.judge()
    assert judgement.verdict is Verdict.CLOSE
    assert bool(judgement.standing_defects) is standing, judgement.standing_defects
    assert np.isfinite(pair.allowance(FORWARD))
