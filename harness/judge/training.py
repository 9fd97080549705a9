"""Gradients and train mode: do they follow from the outputs? (pure)

Beside a base that moved, both move too. Then gradients are judged by how far the outputs moved, and train mode by the
loader's own outputs: a probe that cannot be compared with the golden must not hide a break of its own.
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

_RMS = 1
"""The place of the root mean square in a gradient's sketch."""


def gradients(evidence: Evidence, all_figures: tuple[Figures, ...], base_alone: bool, found: Found) -> bool:
    """Compare gradients; returns True if they differ only because the outputs do.

    Args:
        all_figures: the differences of the probe `gradients`.
        base_alone: the outputs moved, and the base's move explains that.
    """
    moved = [f for f in all_figures if beyond(f)]
    if base_alone:
        moved = [f for f in moved if not _explained(evidence, f)]
    if not moved:
        return bool(base_alone)
    name = moved[0].array.split("/", 2)[2]
    beside = ", by more than the base's move explains" if base_alone else ""
    message = f"gradients differ in {many(len(moved), 'array')}{beside}, most in {name}"
    found.add("gradients", "values", Verdict.SILENT_WRONG, message, subject=name, figures=moved[0])
    return False


def _explained(evidence: Evidence, figures: Figures) -> bool:
    """True if a gradient moved, relative to its size, at most `BELIEVED` times as far as the outputs did.

    In sound pairs it moves 0.01 to 2 times as far; a gradient times 3, or one of DoRA's norm, hundreds of times.
    """
    size = abs(float(evidence.golden.arrays[figures.array][_RMS]))
    outputs = [f for probe in ("forward", "base") for f in evidence.figures(probe) if f.scale > 0]
    relative = max((f.max_abs / f.scale for f in outputs), default=0.0)
    if not np.isfinite(figures.max_abs) or not np.isfinite(relative):
        return False
    return bool(figures.max_abs <= figures.allowance + numbers.BELIEVED * relative * size)


def train(
    evidence: Evidence, all_figures: tuple[Figures, ...], outputs_moved: bool, base_alone: bool, found: Found
) -> bool:
    """Compare train mode; returns True if it differs only because the outputs do.

    Releases draw other random numbers from the same seed, and training is sound all the same. That dropout starts or
    stops acting is a finding, which the loader's own outputs show.

    Args:
        all_figures: the differences of the probe `train`.
        base_alone: the outputs moved, and the base's move explains that.
    """
    if not any(map(beyond, all_figures)):
        return False
    before, after = (evidence.twin_gap(side, "train", "forward") for side in (evidence.creator, evidence.now))
    acts_before, acts_now = (gap is not None and beyond(gap) for gap in (before, after))
    if outputs_moved and (not base_alone or acts_before == acts_now):
        return True
    if acts_before and acts_now:
        found.notes.append(
            "train mode gives other numbers from the same seed: dropout draws or scales differently; not judged"
        )
        return False
    meaning = "dropout no longer acts in train mode" if acts_before else "the output in train mode differs"
    found.add("train", "train-mode", Verdict.CONTRACT, meaning, figures=all_figures[0])
    return False
