"""Layers whose effect moved because the base's weights under them did (pure).

The effect of some methods contains the base's own weights: DoRA's norm, a rotation, a saved module. If the base's
weights move, such an effect moves too, though the adapter is sound. No list of methods says which: the replay runs
the layers once more on the stored weights (`restored`), and a real change of the adapter differs there too. A quantised
base has no such weights; there the replay measures how far each effect moves with the base (`sensitivity`).
"""

from __future__ import annotations

import numpy as np

from harness.core.run import Figures
from harness.core.text import many
from harness.core.verdict import Verdict
from harness.judge import numbers
from harness.judge.contracts import Found
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.worker.shared import LAYER_INPUTS

_OTHERWISE = 3.0
"""How many times further an effect may move than in the trials, since the weights moved in another direction.

In sound pairs of bitsandbytes 0.47 and 0.50 (other fp4 values, other scales; DoRA, OFT, IA³) it moves at most 0.8
times as far."""


def explained(evidence: Evidence, all_figures: tuple[Figures, ...]) -> tuple[Figures, ...]:
    """The differences of layers that the base's weights explain, the greatest ratio first; empty unless they are all.

    Args:
        all_figures: the differences of the probe `layers`.
    """
    moved = tuple(f for f in all_figures if beyond(f))
    return moved if all(_on_stored_weights(evidence, f) or _within(evidence, f) for f in moved) else ()


def scaled(evidence: Evidence, all_figures: tuple[Figures, ...]) -> tuple[Figures, ...]:
    """The differences of embeddings that the base scales inside the layer now, and scaled after it before.

    Empty unless these are all, and the model computes what it did: all tokens of the inputs go through an embedding, so
    a wrong one would show in the outputs.
    """
    moved = tuple(f for f in all_figures if beyond(f))
    outputs = [f for probe in ("forward", "base") for f in evidence.figures(probe)]
    agree = any("/float64/" in f.array for f in outputs) and not any(map(beyond, outputs))
    return moved if moved and agree and all(_is_scaled_embedding(evidence, f) for f in moved) else ()


def _is_scaled_embedding(evidence: Evidence, figures: Figures) -> bool:
    layer = figures.array.split("/", 2)[2]
    fed = evidence.golden.arrays.get(f"{LAYER_INPUTS}{layer}")
    before, after = (side.arrays.get(figures.array) for side in (evidence.golden, evidence.now))
    if fed is None or not np.issubdtype(fed.dtype, np.integer) or before is None or after is None:
        return False
    factor = numbers.greatest(after) / (numbers.greatest(before) or np.inf)
    return not beyond(numbers.difference(figures.array, before * factor, after, factor * figures.allowance))


def report(evidence: Evidence, moved: tuple[Figures, ...], found: Found) -> None:
    """Add the finding for layers that moved with the base, if there are any."""
    if not moved:
        return
    on_stored = bool(evidence.now.fact("closer", "base_weights"))
    why = "with the stored weights it agrees" if on_stored else "by no more than that explains"
    count = len({f.array.split("/", 2)[2] for f in moved})
    message = f"the adapter's effect differs in {many(count, 'layer')} because the base's weights do; {why}"
    found.add("layers", "base-moved", Verdict.BASE_MOVED, message, figures=moved[0])


def _on_stored_weights(evidence: Evidence, figures: Figures) -> bool:
    """True if the effect on the base's stored weights is the golden's."""
    _, precision, layer = figures.array.split("/", 2)
    if layer not in (evidence.now.fact("closer", "base_weights") or []):
        return False
    restored = evidence.now.arrays.get(f"restored/{precision}/{layer}")
    if restored is None:
        return False
    again = numbers.difference(figures.array, evidence.golden.arrays[figures.array], restored, figures.allowance)
    return not beyond(again)


def _within(evidence: Evidence, figures: Figures) -> bool:
    """True if the effect moved no further than the layer's own weights can have moved it."""
    _, precision, layer = figures.array.split("/", 2)
    ratio = (evidence.now.fact("closer", "sensitivity") or {}).get(layer)
    if ratio is None or not np.isfinite(figures.max_abs):
        return False
    base = [f.max_abs for f in evidence.figures("base") if f"/{precision}/" in f.array and "/disabled." not in f.array]
    return bool(figures.max_abs <= figures.allowance + _OTHERWISE * ratio * max(base, default=0.0))
