"""Probes beside a base that moved are judged by what is left to judge them by."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.verdict import Verdict
from tests.support.observations import Mutation, Pair, base_moves, both, golden, mutated, now, tokens, told

V = Verdict
PROBES = ("forward", "gradients", "train", "fresh", "merged", "unmerged", "merge_and_unload", "roundtrip", "unloaded")


def times(probe: str, factor: float) -> Mutation:
    def apply(pair: Pair) -> None:
        for name in pair.now.names(probe):
            pair.now.arrays[name] = (pair.now.arrays[name] * factor).astype(pair.now.arrays[name].dtype)

    return apply


def test_every_probe_that_follows_a_moved_base_has_its_verdict() -> None:
    judgement = mutated(base_moves(0.01))

    assert {probe: judgement.probes[probe].verdict for probe in PROBES} == dict.fromkeys(PROBES, V.BASE_MOVED)


def dropout(*sides: str) -> Mutation:
    def apply(pair: Pair) -> None:
        for side in sides:
            getattr(pair, side).shift("train", 0.5)

    return apply


TABLE: list[tuple[str, Mutation, str, str, Verdict]] = [
    ("gradients times 3", times("gradients", 3), "gradients", "values", V.SILENT_WRONG),
    ("no gradients", times("gradients", 0), "gradients", "values", V.SILENT_WRONG),
    ("gradients of the other sign", times("gradients", -1), "gradients", "values", V.SILENT_WRONG),
    ("gradients that are not finite", times("gradients", np.nan), "gradients", "values", V.SILENT_WRONG),
    ("dropout stops", dropout("golden"), "train", "train-mode", V.CONTRACT),
    ("dropout starts", dropout("now"), "train", "train-mode", V.CONTRACT),
    ("a new adapter means something else", now("shift", "fresh", 0.2), "fresh", "fresh-values", V.CONTRACT),
    ("merging", now("shift", "merged", 0.2), "merged", "differs-from-forward", V.SILENT_WRONG),
    (
        "a merge that the creator got wrong by far less",
        both(golden("shift", "merged", 0.01), now("shift", "merged", 0.5)),
        "merged",
        "differs-from-forward",
        V.SILENT_WRONG,
    ),
    ("other tokens than it predicts", tokens("now", [0, 0]), "generate", "values", V.SILENT_WRONG),
]


@pytest.mark.parametrize(
    ("mutation", "probe", "kind", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_moved_base_hides_no_break(mutation: Mutation, probe: str, kind: str, verdict: Verdict) -> None:
    judgement = mutated(both(base_moves(0.01), mutation))

    found = {(f.probe, f.kind, f.verdict) for f in judgement.findings}
    assert (probe, kind, verdict) in found, told(judgement)
    assert judgement.probes[probe].verdict is verdict


def test_dropout_beside_a_moved_base_is_no_break() -> None:
    judgement = mutated(both(base_moves(0.01), dropout("golden", "now")))
    assert {f.kind for f in judgement.findings} == {"base-moved"}, told(judgement)


def test_a_merge_that_the_creator_got_wrong_as_much_is_no_break() -> None:
    judgement = mutated(both(base_moves(0.01), golden("shift", "merged", 0.1), now("shift", "merged", 0.2)))
    assert {f.kind for f in judgement.findings} == {"base-moved"}, told(judgement)
