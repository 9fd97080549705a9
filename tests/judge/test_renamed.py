"""Names that changed between creator and loader: a sound load is no alarm, a broken one is none the less."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.verdict import Verdict
from tests.support import observations
from tests.support.observations import KEYS, LAYERS, Mutation, Pair, both, fact, swapped_layers, told

NEW = {layer: layer.replace("layers", "body.blocks") for layer in LAYERS}
FUSED = "body.experts"


def renamed(pair: Pair) -> None:
    """The loader's base calls every adapted layer otherwise, and fed alone each does what it did."""
    now = pair.now.facts
    now["layers"] |= {"names": sorted(NEW.values()), "renamed": dict(NEW)}
    added = [_new(key) for key in KEYS]
    now["roundtrip"] |= {"lost": list(KEYS), "added": added, "renamed": dict(zip(KEYS, added, strict=True))}
    now["roundtrip"]["config"] |= {"target_modules": ["q"]}
    now["structure"]["inference"] = {_new(name): values for name, values in now["structure"]["inference"].items()}
    now["structure"]["trainable"] = sorted(_new(name) for name in now["structure"]["trainable"])
    now["structure"]["ties"] = pair.golden.facts["structure"]["ties"]


def made_anew_under_other_names(pair: Pair) -> None:
    pair.golden.facts["created"] = {"filled": [f"{layer}.lora_A.weight" for layer in LAYERS]}
    pair.now.facts["fresh"]["filled"] = [f"{layer}.lora_A.weight" for layer in NEW.values()]
    pair.now.shift("fresh", 0.5)


def fused(pair: Pair) -> None:
    """The loader's base has one stack in place of the layers."""
    now = pair.now.facts
    now["layers"] |= {"names": [FUSED], "missing": list(LAYERS)}
    now["accounting"]["tensors"] = {key: {"found": "nowhere", "at": []} for key in KEYS}
    now["roundtrip"] |= {"lost": list(KEYS), "added": [f"base_model.model.{FUSED}.lora_A.weight"]}
    now["roundtrip"]["config"] |= {"target_modules": [], "target_parameters": [FUSED]}
    now["structure"]["trainable"] = [f"{FUSED}.lora_A.weight"]
    for precision in ("float32", "float64"):
        for layer in LAYERS:
            pair.now.drop(f"layers/{precision}/{layer}")
            pair.now.drop(f"gradients/{precision}/{layer}")
        pair.now.arrays[f"gradients/{precision}/{FUSED}.lora_A.weight"] = np.arange(6.0)


def _new(name: str) -> str:
    for layer, new in NEW.items():
        name = name.replace(layer, new)
    return name


SOUND: list[tuple[str, Mutation]] = [
    ("layers under other names", renamed),
    ("made anew under other names", made_anew_under_other_names),
    ("both", both(renamed, made_anew_under_other_names)),
    ("layers that went into a stack", fused),
]

BROKEN: list[tuple[str, Mutation, Verdict, str]] = [
    ("two renamed layers changed places", both(renamed, swapped_layers), Verdict.SILENT_WRONG, "values"),
    ("the outputs moved", both(renamed, lambda pair: pair.move_outputs(0.1)), Verdict.SILENT_WRONG, "values"),
    ("a key is gone and nothing has its values", both(renamed, fact("now", "roundtrip", "renamed", {})),
     Verdict.CONTRACT, "roundtrip-keys"),
    ("a stack that computes something else", both(fused, lambda pair: pair.move_outputs(0.1)),
     Verdict.SILENT_WRONG, "lost-tensors"),
    ("made anew under the same names", lambda pair: pair.now.shift("fresh", 0.5), Verdict.CONTRACT, "fresh-values"),
    ("the config says another rank", both(renamed, lambda pair: pair.now.facts["roundtrip"]["config"].update(r=8)),
     Verdict.CONTRACT, "config"),
]  # fmt: skip


@pytest.mark.parametrize("mutation", [row[1] for row in SOUND], ids=[row[0] for row in SOUND])
def test_a_sound_load_under_other_names_is_no_alarm(mutation: Mutation) -> None:
    judgement = observations.mutated(mutation)
    assert judgement.verdict in (Verdict.CLOSE, Verdict.EXACT), told(judgement)
    assert judgement.notes


@pytest.mark.parametrize(("mutation", "verdict", "kind"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_other_names_hide_nothing(mutation: Mutation, verdict: Verdict, kind: str) -> None:
    judgement = observations.mutated(mutation)
    assert judgement.verdict is verdict, told(judgement)
    assert kind in {finding.kind for finding in judgement.findings}, told(judgement)
