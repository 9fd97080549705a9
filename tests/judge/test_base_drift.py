"""An effect that contains the base's weights moves with them; a real change beside it stays red."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.verdict import Verdict
from tests.support.observations import LAYERS, Mutation, base_moves, both, fact, mutated, now, told

V = Verdict
PRECISIONS = ("float32", "float64")


def effects_move(by: float) -> Mutation:
    return now("shift", "layers", by)


def restored(off: float = 0.0, only: tuple[str, ...] = LAYERS) -> Mutation:
    """The layers ran once more on the stored weights.

    Args:
        off: how far the effect is from the golden's there.
        only: layers whose base weights were not the stored ones.
    """

    def apply(pair: object) -> None:
        golden, replay = pair.golden, pair.now  # type: ignore[attr-defined]
        replay.facts["closer"] = {"base_weights": list(only)}
        for precision in PRECISIONS:
            for layer in only:
                replay.arrays[f"restored/{precision}/{layer}"] = golden.arrays[f"layers/{precision}/{layer}"] + off

    return apply


def sensitive(ratio: float) -> Mutation:
    return fact("now", "closer", "sensitivity", dict.fromkeys(LAYERS, ratio))


def closer(mutation: Mutation) -> Mutation:
    def apply(pair: object) -> None:
        pair.now.facts.setdefault("closer", {})  # type: ignore[attr-defined]
        mutation(pair)  # type: ignore[arg-type]

    return apply


def output_moves(by: float, restored_off: float) -> Mutation:
    """The output moves further than the base's; on the stored weights it is off by so much."""

    def apply(pair: object) -> None:
        golden, replay = pair.golden, pair.now  # type: ignore[attr-defined]
        replay.shift("forward", by)
        for name in [name for name in golden.arrays if name.startswith("forward/") and not name.endswith("sketch")]:
            stored = name.replace("forward/", "restored_forward/", 1)
            replay.arrays[stored] = golden.arrays[name] + restored_off

    return apply


both_move = both(base_moves(0.01), effects_move(0.01))
TABLE: list[tuple[str, Mutation, Verdict]] = [
    ("on the stored weights it agrees", both(both_move, restored()), V.BASE_MOVED),
    ("on the stored weights it differs too", both(both_move, restored(0.005)), V.SILENT_WRONG),
    ("one layer's weights did not move", both(both_move, restored(only=LAYERS[:1])), V.SILENT_WRONG),
    ("the base's output did not move", both(effects_move(0.01), restored()), V.SILENT_WRONG),
    ("nothing was run on the stored weights", both_move, V.SILENT_WRONG),
    ("quantised: no further than the base explains", both(both_move, closer(sensitive(0.5))), V.BASE_MOVED),
    ("quantised: further than that", both(both_move, closer(sensitive(0.2))), V.SILENT_WRONG),
    ("quantised: it does not depend on the base", both(both_move, closer(sensitive(0.0))), V.SILENT_WRONG),
]


@pytest.mark.parametrize(("mutation", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_effects_beside_a_moved_base(mutation: Mutation, verdict: Verdict) -> None:
    judgement = mutated(mutation)

    assert judgement.verdict is verdict, told(judgement)
    assert judgement.probes["layers"].verdict is verdict


def test_a_layer_that_is_not_finite_is_never_explained() -> None:
    def spoil(pair: object) -> None:
        for precision in PRECISIONS:
            pair.now.arrays[f"layers/{precision}/{LAYERS[0]}"][:] = np.nan  # type: ignore[attr-defined]

    judgement = mutated(both(base_moves(0.01), spoil, closer(sensitive(1.0))))
    assert judgement.verdict is V.SILENT_WRONG


@pytest.mark.parametrize(("off", "verdict"), [(0.0, V.BASE_MOVED), (0.4, V.SILENT_WRONG)])
def test_an_output_that_moves_far_is_explained_only_by_the_stored_weights(off: float, verdict: Verdict) -> None:
    judgement = mutated(both(both_move, restored(), output_moves(0.5, off)))
    accused = {finding.probe for finding in judgement.findings if finding.verdict is V.SILENT_WRONG}
    assert ("forward" in accused) is (verdict is V.SILENT_WRONG), told(judgement)


def embeddings(by: float = 9.798, off: float = 0.0) -> Mutation:
    """The first layer is an embedding, and its effect is multiplied."""

    def apply(pair: object) -> None:
        golden, replay = pair.golden, pair.now  # type: ignore[attr-defined]
        golden.arrays[f"layers/input/{LAYERS[0]}"] = np.array([[3, 1, 4, 1, 5]])
        for precision in PRECISIONS:
            name = f"layers/{precision}/{LAYERS[0]}"
            replay.arrays[name] = (replay.arrays[name] * by).astype(replay.arrays[name].dtype)
            replay.arrays[name].flat[0] += off

    return apply


def test_a_scale_that_moved_into_the_embedding_is_no_deviation() -> None:
    judgement = mutated(embeddings())
    assert not judgement.verdict.is_deviation, told(judgement)
    assert any("scales its embeddings" in note for note in judgement.notes)


@pytest.mark.parametrize(
    "mutation",
    [
        both(embeddings(), now("shift", "forward", 0.1)),
        both(embeddings(), now("shift", "layers", 0.1, only=LAYERS[1])),
        both(embeddings(off=0.1)),
        both(embeddings(), now("without_float64")),
        both(embeddings(), lambda pair: pair.golden.drop("layers/input/")),
    ],
)
def test_another_change_of_an_embedding_is_one(mutation: Mutation) -> None:
    assert mutated(mutation).verdict is V.SILENT_WRONG
