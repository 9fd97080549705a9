"""How far rounding may move a sketch (pure).

A sketch stands for a tensor of n elements: [mean, root mean square, four projections] (the worker's `sketch`). Six
numbers are few, so the greatest of their measured errors says little about the error of the next run. This derives what
they do say.

Let e be the rounding error of the tensor's elements, and s its root mean square.

- The mean and the root mean square move by at most s (the triangle inequality).
- A projection Σ e·d ÷ √n has a fixed direction d, uniform in [-1, 1], that does not depend on e. So it is a random
  number of mean 0 and variance s² ÷ 3, close to normal. This is how random projections estimate a norm: Alon, Matias
  and Szegedy, "The space complexity of approximating the frequency moments" (1996).

Hence three times the mean square of the four measured errors estimates s², with four degrees of freedom. One tensor
alone is a lucky sample too often: it shows less than a quarter of its noise once in 140 times. Therefore the tensors of
one probe are pooled: ρ² = Σ s² ÷ Σ (root mean square of the tensor)². Sums of squares, not the greatest quotient: a
gradient that cancels (that of an attention's key bias is 0, whatever the loss) is nothing but noise, and must not allow
the others anything. A projection of another run ÷ its estimate follows Student's t distribution; its quantile at
`SIGMAS` is what ρ allows. The degrees of freedom are four for each tensor if all are of one size, and fewer if one
outweighs the rest: 4 (Σ size²)² ÷ Σ size⁴ (Satterthwaite, "An approximate distribution of estimates of variance
components", 1946).

A tensor whose own measured errors exceed that is noisier than the pool says. It has its own noise, times the
`BELIEVED` of `harness.judge.numbers`, since it rests on four numbers again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.core.observation import Array

SIGMAS = 6.0
"""Two in a billion normal numbers are beyond it. A run over all creators compares a few million sketch numbers."""

UNMEASURED = 100.0
"""Rounding noise ÷ float32's resolution at the tensor's root mean square, if there is no float64 to measure it with.

In 3,400 goldens it is below 8 for half, below 18 for nine of ten, below 73 for 99 of 100. The measured noise of a few
tensors never allows more than this either."""

CANCELLED = 10.0
"""The same at the greatest root mean square of the probe's tensors: the noise of a gradient that cancels."""

FEW = 10.0
"""What four measured numbers count for: the order of magnitude."""

_PROJECTIONS = slice(2, None)
_FLOAT32 = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Sketches:
    """The rounding noise of one probe's sketches.

    Attributes:
        share: ρ, pooled over all tensors; None if nothing was measured.
        degrees: the degrees of freedom of ρ².
        own: tensor → root mean square of its error, by its own projections.
        greatest: tensor → its greatest measured error.
        largest: the greatest root mean square of a tensor.
    """

    share: float | None = None
    degrees: float = 0.0
    own: Mapping[str, float] = field(default_factory=dict)
    greatest: Mapping[str, float] = field(default_factory=dict)
    largest: float = 0.0

    def noise(self, name: str, sketch: Array) -> float:
        """How far rounding may move one number of a tensor's sketch, or of any row of a table of sketches."""
        if sketch.ndim > 1:
            return max((self.noise(name, row) for row in sketch), default=0.0)
        size = _size(sketch)
        resolution = _FLOAT32 * float(np.max(np.abs(sketch), initial=0.0, where=np.isfinite(sketch)))
        if self.share is None:
            return max(_FLOAT32 * (UNMEASURED * size + CANCELLED * self.largest), resolution)
        measured = self.greatest.get(name, 0.0)
        pooled = min(_quantile(self.degrees) / math.sqrt(3) * self.share, UNMEASURED * _FLOAT32) * size
        own = FEW * self.own.get(name, 0.0) if measured > pooled else 0.0
        return max(pooled, own, measured, resolution)


def measure(twins: Iterable[tuple[str, Array, Array | None]]) -> Sketches:
    """The noise of a probe's sketches.

    Args:
        twins: tensor, its sketch in float32, and in float64 if there is one.
    """
    own, greatest = dict[str, float](), dict[str, float]()
    sizes, largest = [], 0.0
    for name, narrow, wide in twins:
        largest = max(largest, _size(narrow))
        if wide is None or wide.shape != narrow.shape or not (np.isfinite(narrow).all() and np.isfinite(wide).all()):
            continue
        errors = np.abs(np.asarray(narrow, np.float64) - wide)
        own[name] = math.sqrt(3 * float(np.mean(errors[_PROJECTIONS] ** 2)))
        greatest[name] = float(errors.max())
        sizes.append(_size(wide))
    if not own:
        return Sketches(largest=largest)
    share = _norm(own.values()) / (_norm(sizes) or 1.0)
    return Sketches(share, _degrees(sizes), own, greatest, largest)


def _degrees(sizes: Iterable[float]) -> float:
    """The degrees of freedom of the pooled noise of tensors of these sizes."""
    squares = [size * size for size in sizes]
    return 4 * sum(squares) ** 2 / (sum(square * square for square in squares) or 1.0) or 4.0


def _size(sketch: Array) -> float:
    """The root mean square of the tensor."""
    size = abs(float(sketch[1]))
    return size if math.isfinite(size) else 0.0


def _norm(values: Iterable[float]) -> float:
    return math.sqrt(sum(value * value for value in values))


def _quantile(degrees: float) -> float:
    """Student's t at `SIGMAS` for so many degrees of freedom.

    By Wallace, "Bounds on normal approximations to Student's and the chi-square distributions" (1959); for few degrees
    it is too great by half, which `UNMEASURED` bounds.
    """
    z = SIGMAS * (8 * degrees + 3) / (8 * degrees + 1)
    return math.sqrt(degrees * math.expm1(z * z / degrees))
