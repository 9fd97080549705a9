"""Whether a golden can show a loss: how far rounding may move its arrays, compared with what they hold (pure).

The question is whether a loader that lost everything would pass. For an output of the adapted model that is the base's
output, so the signal is the adapter's effect: how far it moves the golden's `forward` from its `base`. For the base, an
adapter layer's own effect or a gradient it is zero, so the signal is the array's own size. Where rounding may be as
large as the signal, any replay would agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.core.observation import Array, Observed
from harness.judge import numbers
from harness.judge.numbers import Noise
from harness.worker.shared import EQUALS, PRECISIONS

DECISIVE = ("forward", "layers")
"""Probes without which a cell is not comparable: what the model computes, and what each adapter layer adds."""

_WITHOUT_ADAPTER = ("base", "layers", "gradients", *(probe for probe, equal in EQUALS.items() if equal.probe == "base"))


@dataclass(frozen=True)
class Weak:
    """A probe of a golden that proves nothing: its array that shows most, with the figures."""

    probe: str
    array: str
    allowance: float
    signal: float
    what: str

    def __str__(self) -> str:
        allowed = f"rounding may move {self.array} by {self.allowance:.2g}" if np.isfinite(self.allowance) else (
            f"the measured rounding noise of {self.array} is not finite"
        )  # fmt: skip
        return f"the golden's {self.probe} proves nothing: {allowed}, and {self.what} {self.signal:.2g}"


def weak(golden: Observed, noise: Noise, own_noise: Noise, probes: Iterable[str]) -> dict[str, Weak]:
    """The probes in which no array of the golden shows more than rounding may move it.

    Float32 alone counts: the float64 twin of a quantised base is dequantised, and hides what its kernels cost.
    """
    found = {}
    for probe in probes:
        arrays = list(_weighed(golden, probe, noise, own_noise))
        if arrays and all(_is_weak(each) for each in arrays):
            found[probe] = max(arrays, key=_share)
    return found


def unmeasured(golden: Observed, noise: Noise, probes: Iterable[str]) -> list[str]:
    """Arrays whose rounding was measured as NaN or infinite, so that nothing could ever differ from them."""
    arrays = (f"{probe}/{precision}/{name}" for probe in probes for precision in PRECISIONS
              for name in golden.group(probe, precision) if name != "sketch")  # fmt: skip
    return [name for name in arrays if not np.isfinite(numbers.rounding(name, golden.arrays[name], noise, noise))]


def _weighed(golden: Observed, probe: str, noise: Noise, own_noise: Noise) -> Iterator[Weak]:
    for name, array in golden.group(probe, "float32").items():
        if np.issubdtype(array.dtype, np.floating) and name != "sketch" and not name.startswith("input/"):
            full = f"{probe}/float32/{name}"
            signal, what = _signal(golden, probe, name, array)
            yield Weak(probe, full, numbers.rounding(full, array, noise, own_noise), signal, what)


def _signal(golden: Observed, probe: str, name: str, array: Array) -> tuple[float, str]:
    adapted, plain = (golden.arrays.get(f"{each}/float32/{name}") for each in ("forward", "base"))
    if probe in _WITHOUT_ADAPTER or adapted is None or plain is None or adapted.shape != plain.shape:
        return numbers.greatest(array), "its greatest value is"
    return numbers.greatest(adapted.astype(np.float64) - plain), "the adapter moves it by"


def _is_weak(each: Weak) -> bool:
    return each.allowance > 0 and not each.allowance < each.signal


def _share(each: Weak) -> float:
    return each.signal / each.allowance if np.isfinite(each.allowance) else -1.0
