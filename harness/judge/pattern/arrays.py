"""What turns one array into another: a factor, a permutation, a vector added to each row, … (pure).

An explanation holds only if nothing is left beyond the allowance, and if what it explains is far more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.core.observation import Array
from harness.core.pattern import PatternKind

TELLING = 20.0
"""How far a difference must exceed the allowance before a pattern is looked for: near it, anything fits."""
LEAST = 6
"""How many elements must differ by that much: fewer fit a pattern by chance."""

_AXES = {2: ("tokens", "features"), 3: ("batch", "tokens", "features"), 4: ("batch", "channels", "rows", "columns")}
_SHIFTS = (1, -1, 2, -2)
_RESOLUTION = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half the distance between neighbouring numbers ÷ their size, at most."""
_CUT = {"bfloat16": np.uint32(0xFFFF), "float16": np.uint32(0x1FFF)}
"""The bits of a float32 that such a number does not have."""


@dataclass(frozen=True)
class Change:
    """One golden array, what it became, and how far apart the two may be."""

    golden: Array
    now: Array
    allowance: float

    @classmethod
    def of(cls, golden: Array, now: Array, allowance: float) -> Change:
        """In float64, so that nothing more is rounded."""
        return cls(np.asarray(golden, dtype=np.float64), np.asarray(now, dtype=np.float64), allowance)

    @property
    def differs(self) -> bool:
        """True if the difference exceeds the allowance, or one side is not finite."""
        return self.golden.shape != self.now.shape or not self.left(self.golden) <= 1

    @property
    def telling(self) -> bool:
        """True if enough elements differ by enough for a pattern to mean something."""
        if self.golden.shape != self.now.shape or not np.isfinite(self.golden).all():
            return False
        with np.errstate(invalid="ignore"):
            gap = np.abs(self.now - self.golden)
        return int(np.count_nonzero(~(gap <= TELLING * self.allowance))) >= LEAST

    def left(self, predicted: Array, factor: float = 1.0) -> float:
        """The greatest error ÷ allowance of a prediction.

        Args:
            factor: what the golden's values were multiplied with; their rounding is too.
        """
        allowed = self.allowance * max(1.0, abs(factor))
        with np.errstate(invalid="ignore"):
            gap = float(np.max(np.abs(self.now - predicted), initial=0.0))
        return gap / allowed if allowed > 0 else (0.0 if gap == 0 else np.inf)


@dataclass(frozen=True)
class Explanation:
    """What turns one array into another."""

    kind: PatternKind
    left: float
    """The greatest remaining error ÷ allowance."""
    detail: str = ""
    factor: float | None = None


def explain(change: Change) -> Explanation | None:
    """The simplest explanation of a change; None if there is none."""
    if not change.telling:
        return None
    return next((found for rule in _RULES for found in rule(change) if found.left <= 1), None)


def holds(change: Change, factor: float) -> bool:
    """True if every value was multiplied with this factor."""
    return change.left(factor * change.golden, factor) <= 1


def _not_finite(change: Change) -> Iterator[Explanation]:
    bad = ~np.isfinite(change.now)
    if bad.any():
        what = "NaN" if np.isnan(change.now).any() else "infinite"
        rest = np.where(bad, change.golden, change.now)
        alone = Change(change.golden, rest, change.allowance).left(change.golden) <= 1
        yield Explanation("not-finite", 0.0, what if bad.all() or not alone else f"{what} in some elements only")


def _zero(change: Change) -> Iterator[Explanation]:
    yield Explanation("zero", change.left(np.zeros_like(change.golden)), factor=0.0)


def _factor(change: Change) -> Iterator[Explanation]:
    if change.left(-change.golden) <= 1:
        yield Explanation("sign", change.left(-change.golden), factor=-1.0)
    elif np.count_nonzero(np.abs(change.golden) > TELLING * change.allowance) >= LEAST:
        factor = float(_best(change, tuple(range(change.golden.ndim))).item())
        yield Explanation("factor", change.left(factor * change.golden, factor), factor=factor)


def _best(change: Change, axes: tuple[int, ...]) -> Array:
    """The factor that fits best along some axes: least squares, within the range that every element allows."""
    golden, now = change.golden, change.now
    square, product = (np.sum(a, axis=axes, keepdims=True) for a in (golden * golden, golden * now))
    factor = np.divide(product, square, out=np.zeros_like(product), where=square > 0)
    margin = change.allowance * np.maximum(1.0, np.abs(factor))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bounds = np.stack([(now - margin) / golden, (now + margin) / golden])
        bounds = np.where(golden == 0, np.array([-np.inf, np.inf]).reshape(2, *(1,) * golden.ndim), bounds)
        low = bounds.min(axis=0).max(axis=axes, keepdims=True)
        high = bounds.max(axis=0).min(axis=axes, keepdims=True)
        middle = (low + high) / 2  # of zeros alone, -∞ and ∞: any factor fits
    return np.asarray(np.where((low <= factor) & (factor <= high) | (low > high), factor, middle))


def _bias(change: Change) -> Iterator[Explanation]:
    """The same vector added to each row; rows that are alike could hide anything."""
    if change.golden.ndim < 2:
        return
    rows, moved = (a.reshape(-1, a.shape[-1]) for a in (change.golden, change.now - change.golden))
    if len(rows) >= 3 and np.ptp(rows, axis=0).max() > TELLING * change.allowance:
        middle = (moved.max(axis=0) + moved.min(axis=0)) / 2
        yield Explanation("bias", change.left(change.golden + middle))


def _permutation(change: Change) -> Iterator[Explanation]:
    for axis, size in enumerate(change.golden.shape):
        before, now = (np.moveaxis(a, axis, 0).reshape(size, -1) for a in (change.golden, change.now))
        if size < 2:
            continue
        order = _order(before, now)
        left = change.left(np.take(change.golden, order, axis=axis))
        if left <= 1:
            yield Explanation("permutation", left, f"{_axis(change, axis)} {described(order)}")


def _order(before: Array, now: Array) -> Array:
    """The only order that can fit: both sides sorted by one projection of their slices."""
    direction = np.random.default_rng(1).uniform(-1, 1, before.shape[1])
    order = np.empty(len(before), dtype=np.int64)
    order[np.argsort(now @ direction)] = np.argsort(before @ direction)
    return order


def described(order: Array) -> str:
    """A permutation in words: `reversed`, `rotated by 1`, `read as 4×8 instead of 8×4`, `2 ↔ 5`, …"""
    size = len(order)
    places = np.arange(size)
    moved = np.flatnonzero(order != places)
    if len(moved) == 2:
        return f"{moved[0]} ↔ {moved[1]}"
    if np.array_equal(order, places[::-1]):
        return "reversed"
    for by in range(1, size):
        if np.array_equal(order, np.roll(places, by)):
            return f"rotated by {by}"
    for rows in (n for n in range(2, size) if size % n == 0):
        if np.array_equal(order, places.reshape(rows, -1).T.ravel()):
            return f"read as {rows}×{size // rows} instead of {size // rows}×{rows}"
    for length in (n for n in range(size // 2, 1, -1) if size % n == 0):
        blocks = order.reshape(-1, length)
        if np.array_equal(blocks, blocks[:, :1] + np.arange(length)) and not (blocks[:, 0] % length).any():
            return f"in blocks of {length} (as heads are): {described(blocks[:, 0] // length)}"
        if (blocks // length == np.arange(len(blocks))[:, None]).all() and (
            blocks % length == blocks[0] % length
        ).all():
            return f"within each block of {length}: {described(blocks[0] % length)}"
    return "in another order"


def _shift(change: Change) -> Iterator[Explanation]:
    """Positions moved along the tokens; what came in at the end is unknown."""
    axis = change.golden.ndim - 2
    if axis < 0 or change.golden.shape[axis] < 4:
        return
    before, now = (np.moveaxis(a, axis, 0) for a in (change.golden, change.now))
    for by in _SHIFTS:
        golden, moved = (before[:-by], now[by:]) if by > 0 else (before[-by:], now[:by])
        kept = Change(golden, moved, change.allowance)
        different = np.ptp(golden, axis=0).max() > TELLING * change.allowance  # equal positions fit any shift
        if different:
            yield Explanation("shift", kept.left(golden), f"{_axis(change, axis)} by {by:+d}")


def _clip(change: Change) -> Iterator[Explanation]:
    at_low, at_high = (
        np.abs(change.now - limit) <= 2 * change.allowance for limit in (change.now.min(), change.now.max())
    )
    low, high = (float(np.median(change.now[at])) for at in (at_low, at_high))
    if low < high and np.count_nonzero(at_low | at_high) >= LEAST:
        yield Explanation("clip", change.left(np.clip(change.golden, low, high)), f"to {low:.4g} … {high:.4g}")


def _factors(change: Change) -> Iterator[Explanation]:
    """A factor for each slice along an axis, if every slice has enough elements to show it."""
    for axis, size in enumerate(change.golden.shape):
        others = tuple(a for a in range(change.golden.ndim) if a != axis)
        count = change.golden.size // max(size, 1)
        if size < 2 or count < 3:
            continue
        factor = _best(change, others)
        left = change.left(factor * change.golden, float(np.abs(factor).max()))
        strong = np.abs(change.golden) > TELLING * change.allowance
        if (np.count_nonzero(strong, axis=others) >= 3).all():
            yield Explanation("factors", left, _axis(change, axis))


def _narrow(change: Change) -> Iterator[Explanation]:
    """Values that a narrower type holds, unlike the golden's."""
    for name, mask in _CUT.items():
        words = change.now.astype(np.float32).view(np.uint32)
        exact = np.array_equal(change.now.astype(np.float32), change.now) and not (words & mask).any()
        if exact and np.abs(change.golden - change.now).max() <= 2 * _RESOLUTION[name] * np.abs(change.golden).max():
            yield Explanation("narrow", 0.0, name)


def rounded(change: Change) -> Explanation | None:
    """A linear layer whose weights or input were rounded: it differs by the size of a narrower type's resolution."""
    scale, gap = float(np.sqrt(np.mean(change.golden**2))), change.now - change.golden
    size = float(np.sqrt(np.mean(gap * gap)))
    # rounding has no direction: of the golden's own values almost nothing is in it
    along = abs(float(np.mean(gap * change.golden))) / max(size * scale, np.finfo(np.float64).tiny)
    for name, unit in _RESOLUTION.items():
        if 0.25 * unit * scale <= size <= 1.5 * unit * scale and np.abs(gap).max() <= 8 * unit * scale and along < 0.5:
            return Explanation("narrow", 0.0, name)
    return None


def _axis(change: Change, axis: int) -> str:
    names = _AXES.get(change.golden.ndim)
    return names[axis] if names else f"axis {axis}"


_RULES: tuple[Callable[[Change], Iterator[Explanation]], ...] = (
    _not_finite,
    _zero,
    _factor,
    _bias,
    _permutation,
    _shift,
    _clip,
    _factors,
    _narrow,
)
"""The simplest first."""
