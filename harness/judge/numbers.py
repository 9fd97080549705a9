"""Compares arrays: how much they differ, and how much they may (pure).

The allowance is measured. A golden holds the same output in float32 and in float64; their difference is the rounding
noise of *this* model on *these* inputs. Nothing here is a tolerance that somebody chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.core.observation import Array, Observed
from harness.core.run import Figures
from harness.judge import sketches
from harness.judge.sketches import Sketches
from harness.worker.shared import LOAD_PATH, PRECISIONS

BELIEVED = 10.0
"""How many times the creator's rounding noise a loader's own may be and still count as rounding.

Another order of summation changes rounding by a small factor, arithmetic in a narrower type (bfloat16 for float32) by a
factor of 65,536. An order of magnitude separates the two: beyond it the loader is less precise."""

UNMEASURED = 10.0
"""Rounding noise ÷ float32's resolution at the array's greatest value, if there is no float64 to measure it with.

In the 85 goldens of PEFT 0.6.1 that have both precisions it is between 0.5 and 18 for outputs, half below 3, nine of
ten below 6. The sum over both sides (20) covers them all; the resolution alone would call most sound pairs moved. The
report says when it is used."""

_EPSILON = {"torch.bfloat16": 2.0**-7, "torch.float16": 2.0**-10}
_FLOAT32 = float(np.finfo(np.float32).eps)
_MERGES = frozenset({"merged", "merged_after_run", "unmerged", "safe_merged", "merge_and_unload", "merged_saved"})
"""Probes that merge into the weights: those of a quantised base are quantised again."""

PLAIN = "plain"
SKETCH = "sketch"
"""The array of a probe that has a sketch in each row; `sketch/NAME` is the row of one layer."""

_GROUPS = {"layers": "layers", "gradients": "gradients"}
_EDGES = np.concatenate([[0.0], 10.0 ** np.arange(-18.0, 2.0)])


@dataclass(frozen=True)
class Kernels:
    """The cost of other arithmetic for a quantised base, measured at creation (see the worker's `kernel_cost`).

    Attributes:
        apart: kind → array (`probe/rest`) → how far it is from the golden's with that kind of arithmetic.
            `plain`: the dequantised base, float32 from float64: rounding alone. The others: what a bfloat16 kernel
            rounds.
        relative: the greatest of these ÷ root mean square, by (kind, group of arrays).
    """

    apart: Mapping[str, Mapping[str, float]]
    relative: Mapping[tuple[str, str], float]

    @property
    def narrow(self) -> tuple[str, ...]:
        """The roundings that add up to a bfloat16 kernel's error."""
        return tuple(kind for kind in self.apart if kind != PLAIN)

    def cost(self, kind: str, name: str, golden: Array) -> float:
        """The cost of one kind for the array `probe/precision/rest`."""
        probe, _, rest = name.split("/", 2)
        own = self.apart.get(kind, {}).get(f"{probe}/{rest}", 0.0)
        return max(own, self.relative.get((kind, _group(probe, rest)), 0.0) * rms(golden))


@dataclass(frozen=True)
class Noise:
    """The rounding noise of one observation.

    Attributes:
        own: array (without its precision) → greatest |float32 − float64|.
        relative: group of arrays → the greatest own noise ÷ root mean square in it. A small array can equal its float64
            twin by chance; the group's noise, scaled to the array, is the better estimate then.
        spread: array (with precision) → the difference between two runs at creation; absent for stable arrays.
        narrow: array (with precision) → resolution of the type that it was computed in, if narrower than float32.
        sketches: probe → the noise of its sketches, which are too small to be measured one by one.
    """

    own: Mapping[str, float] = field(default_factory=dict)
    relative: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    narrow: Mapping[str, float] = field(default_factory=dict)
    kernels: Kernels | None = None
    """For a quantised base only; its float64 is dequantised, so `own` is the cost of its kernels."""
    sketches: Mapping[str, Sketches] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """True if at least one output exists in both precisions."""
        return bool(self.relative)

    def measures(self, name: str) -> bool:
        """True if the array `probe/precision/rest`, or one that rounds like it, exists in both precisions."""
        probe, _, rest = name.split("/", 2)
        if self._is_sketch(probe, rest):
            return self.sketches.get(probe, Sketches()).share is not None
        return self._relative(probe, rest) is not None

    def of(self, name: str, golden: Array) -> float:
        """The noise of the array `probe/precision/rest`, at least its type's resolution."""
        if not np.issubdtype(golden.dtype, np.floating):
            return 0.0
        probe, _, rest = name.split("/", 2)
        if self._is_sketch(probe, rest):
            return self.sketches.get(probe, Sketches()).noise(rest, golden)
        size, relative = greatest(golden), self._relative(probe, rest)
        resolution = self.narrow.get(name, _FLOAT32) * size
        if relative is None:
            return max(UNMEASURED * _FLOAT32 * size, resolution)
        return max(self.own.get(f"{probe}/{rest}", 0.0), relative * rms(golden), resolution)

    def _is_sketch(self, probe: str, rest: str) -> bool:
        """True if the pooled noise of sketches applies. That of a quantised base is the cost of its kernels."""
        return self.kernels is None and (probe == "gradients" or rest.startswith(SKETCH))

    def _relative(self, probe: str, rest: str) -> float | None:
        return self.relative.get(_group(probe, rest), self.relative.get("outputs"))


def rounding(name: str, array: Array, golden: Noise, now: Noise) -> float:
    """How far rounding alone may bring a replay of the array `probe/precision/rest` from the golden.

    By the triangle inequality, two float32 results of one float64 result differ by at most the sum of their noises.
    Both are measured. The replay's counts up to `BELIEVED` times the golden's; without float64 it counts as the
    golden's. Arrays in float64 have the same allowance, since many models compute their norms in float32 inside.
    """
    if golden.kernels is not None:
        return _of_kernels(name, array, golden, golden.kernels)
    if not np.issubdtype(array.dtype, np.floating):
        return 0.0
    creators = golden.of(name, array)
    loaders = now.of(name, array) if now.measures(name) else creators
    return creators + min(loaders, BELIEVED * creators)


def _of_kernels(name: str, array: Array, golden: Noise, kernels: Kernels) -> float:
    """The same for a quantised base, whose float64 is dequantised.

    A loader's own distance from that reference cannot count: a defect of the quantised layers would allow itself. So
    the golden gives both sides: its kernels' error, and for the loader the greater of that and the cost of bfloat16
    kernels. The reference itself is plain arithmetic, which both sides may round.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return 0.0
    if name.split("/", 2)[1] == "float64":
        return 2 * max(kernels.cost(PLAIN, name, array), _FLOAT32 * greatest(array))
    creators = golden.of(name, array)
    # roundings that were measured one by one add up at worst
    return creators + max(creators, sum(kernels.cost(kind, name, array) for kind in kernels.narrow))


def allowance(name: str, array: Array, golden: Noise, now: Noise) -> float:
    """How far a replay may be from the golden: by rounding, or by the difference of two runs of one side.

    Two runs are a small sample: up to `BELIEVED` times their difference says nothing.
    """
    return max(rounding(name, array, golden, now), BELIEVED * spread(name, golden, now))


def spread(name: str, golden: Noise, now: Noise) -> float:
    """The difference of two runs, of the side where it is greater; a replay runs twice on a GPU."""
    return max(golden.spread.get(name, 0.0), now.spread.get(name, 0.0))


def _group(probe: str, rest: str) -> str:
    if rest.startswith(SKETCH):
        return "sketch"
    if probe.startswith(LOAD_PATH):  # a load path with a decomposition rounds more, which must not excuse the others
        return probe
    return _GROUPS.get(probe, "outputs")


def measure(side: Observed) -> Noise:
    """The rounding noise of an observation, from its two precisions."""
    own: dict[str, float] = {}
    relative: dict[str, float] = {}
    quantised = bool(side.facts.get("kernel_spread"))
    for name, narrow in side.arrays.items():
        probe, _, rest = name.partition("/float32/")
        wide = side.arrays.get(f"{probe}/float64/{rest}") if rest else None
        if wide is None or wide.shape != narrow.shape or not np.issubdtype(narrow.dtype, np.floating):
            continue
        if quantised and probe in _MERGES:
            continue  # a merge into few bits quantises again: no noise, and the creator's own gap has its cost
        noise, scale, group = greatest(_gap(wide, narrow)), rms(wide), _group(probe, rest)
        own[f"{probe}/{rest}"] = noise
        if scale > 0:
            relative[group] = max(relative.get(group, 0.0), noise / scale)
    return Noise(own, relative, _spread(side), _narrow(side), _kernels(side), _sketches(side))


def _sketches(side: Observed) -> dict[str, Sketches]:
    """The noise of gradients, and of the layers' and blocks' activations."""
    narrow, wide = (side.group("gradients", precision) for precision in PRECISIONS)
    gradients = sketches.measure((name, sketch, wide.get(name)) for name, sketch in narrow.items())
    return {"gradients": gradients, "forward": sketches.measure(_rows(side))}


def _rows(side: Observed) -> Iterable[tuple[str, Array, Array | None]]:
    narrow, wide = (side.arrays.get(f"forward/{precision}/{SKETCH}") for precision in PRECISIONS)
    if narrow is None:
        return
    twins = wide if wide is not None and wide.shape == narrow.shape else [None] * len(narrow)
    for (name, _), row, twin in zip(side.fact("forward", SKETCH) or [], narrow, twins, strict=False):
        yield f"{SKETCH}/{name}", row, twin


def _kernels(side: Observed) -> Kernels | None:
    """The cost of other arithmetic, measured at creation; None if the base is not quantised."""
    said: Mapping[str, Mapping[str, float]] = side.facts.get("kernel_spread", {})
    if not said:
        return None
    apart: dict[str, dict[str, float]] = {}
    relative: dict[tuple[str, str], float] = {}
    for kind, found in said.items():
        for name, value in found.items():
            probe, _, rest = name.split("/", 2)
            # what is not a finite number is no measurement: it makes its own array worthless, and no other
            apart.setdefault(kind, {})[f"{probe}/{rest}"] = float(value) if np.isfinite(value) else float("inf")
            scale = rms(side.arrays[name]) if name in side.arrays and np.isfinite(value) else 0.0
            if scale > 0 and probe not in _MERGES:
                key = kind, _group(probe, rest)
                relative[key] = max(relative.get(key, 0.0), float(value) / scale)
    return Kernels(apart, relative)


def _spread(side: Observed) -> dict[str, float]:
    """If one of two runs has NaN, they are infinitely far apart."""
    found = {str(name): float(value) for name, value in side.facts.get("repeat", {}).items()}
    return {name: float("inf") if np.isnan(value) else value for name, value in found.items()}


def _narrow(side: Observed) -> dict[str, float]:
    wider: Mapping[str, str] = side.facts.get("stored_wider", {})
    return {name: _EPSILON[dtype] for name, dtype in wider.items() if dtype in _EPSILON}


def rms(array: Array) -> float:
    """Root mean square over the finite elements."""
    wide = _finite(array)
    greatest = float(np.max(np.abs(wide))) if wide.size else 0.0
    if greatest == 0:
        return 0.0
    shares = wide / greatest  # the square of a great number would overflow
    return float(greatest * np.sqrt(np.mean(shares * shares)))


def greatest(array: Array) -> float:
    """The greatest size of a finite element; an infinite one must not make everything allowed."""
    wide = _finite(array)
    return float(np.max(np.abs(wide))) if wide.size else 0.0


def _finite(array: Array) -> Array:
    wide = np.asarray(array, dtype=np.float64)
    return np.asarray(wide[np.isfinite(wide)])


def same_bits(a: Array, b: Array) -> bool:
    """True if the two arrays are equal to the bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def difference(name: str, golden: Array, now: Array, allowance: float) -> Figures:
    """How far `now` is from `golden`, with the place of the greatest difference.

    Elements that are not finite on one side only, or in different ways, are infinitely far apart; NaN equals NaN.
    Arrays of different shapes differ in every element.
    """
    common: dict[str, Any] = {
        "array": name,
        "dtype": str(now.dtype),
        "shape": tuple(now.shape),
        "elements": int(golden.size),
        "allowance": allowance,
        "scale": rms(golden),
    }
    if golden.shape != now.shape:
        return Figures(**common, differing=int(golden.size), max_abs=float("inf"))
    if not golden.size:
        return Figures(**common)
    if same_bits(golden, now):  # most are
        first = float(golden.flat[0])
        counts = (int(golden.size), *(0 for _ in _EDGES))
        return Figures(**common, index=(0,) * golden.ndim, golden=first, now=first, histogram=counts)
    gap = _gap(golden, now)
    place = int(np.argmax(gap if np.issubdtype(golden.dtype, np.inexact) else gap > 0))
    return Figures(
        **common,
        differing=int(np.count_nonzero(gap > allowance)),
        max_abs=float(gap.flat[place]),
        index=tuple(int(i) for i in np.unravel_index(place, gap.shape)),
        golden=float(golden.flat[place]),
        now=float(now.flat[place]),
        histogram=histogram(gap),
    )


def _gap(golden: Array, now: Array) -> Array:
    a, b = np.asarray(golden, dtype=np.float64), np.asarray(now, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(a - b)
    gap = np.where(np.isfinite(a) & np.isfinite(b), gap, np.inf)
    return np.asarray(np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, gap))


def positions(golden: Array, now: Array) -> Array:
    """The greatest difference at each position: [batch, token] of [batch, token, feature], else [batch].

    Positions are separate: an output that moved under the padding does not explain another token's.
    """
    gap = _gap(golden, now)
    kept = 2 if gap.ndim == 3 else min(gap.ndim, 1)
    return np.asarray(gap.max(axis=tuple(range(kept, gap.ndim)), initial=0.0))


def histogram(gap: Array) -> tuple[int, ...]:
    """Elements by decade of absolute difference: equal ones first, then below 1e-18 …, the last 10 and more or
    infinite."""
    flat = gap.ravel()
    counts = [int(np.count_nonzero(flat == 0))]
    positive = np.where(np.isfinite(flat), flat, np.finfo(np.float64).max)[flat > 0]
    places = np.clip(np.searchsorted(_EDGES, positive, side="right") - 1, 0, len(_EDGES) - 1)
    return (*counts, *(int(n) for n in np.bincount(places, minlength=len(_EDGES))))


def beyond(figures: Figures) -> bool:
    """True if a difference is greater than its allowance."""
    return figures.max_abs > figures.allowance


def by_ratio(figures: Iterable[Figures]) -> tuple[Figures, ...]:
    """The figures, the greatest error ÷ allowance first."""
    return tuple(sorted(figures, key=lambda f: (-f.ratio, f.array)))
