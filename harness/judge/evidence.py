"""The measured differences between two observations, each with its allowance (pure).

`harness.judge.compare` decides what a difference means.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import numpy as np

from harness.core.observation import Array, Observed
from harness.core.run import Figures, LayerSketch
from harness.judge import numbers, renaming, signal
from harness.judge.numbers import beyond
from harness.worker.shared import PRECISIONS, RELOADED

FINE = 1e-12
"""Greatest difference ÷ greatest value that float64's own rounding explains. Sound pairs are below 1e-14, or, if a
model computes in float32 inside, above 1e-8; none is near this line."""


class Evidence:
    """A golden, a replay, and the measured noise of both.

    Args:
        creator: what the creator's own reload computed, if the golden is not that (see `harness.judge.standard`).
    """

    def __init__(self, golden: Observed, now: Observed, creator: Observed | None = None) -> None:
        self.golden, self.now, self.creator = golden, now, creator or golden
        self.noise, self.own_noise = numbers.measure(self.creator), numbers.measure(now)
        self._allowances: dict[tuple[str, int], float] = {}
        self.weak = signal.weak(golden, self.noise, self.own_noise, golden.probes)
        """Probes of the golden that prove nothing: their arrays are not compared."""
        self.unmeasured = signal.unmeasured(golden, self.noise, golden.probes) if self.noise.kernels else []
        """Arrays without a usable allowance: they are not compared."""

    # -- the replay and the golden -------------------------------------------------------------------------------------

    def figures(self, probe: str) -> tuple[Figures, ...]:
        """Every array of a probe that both sides have; the greatest error ÷ allowance first."""
        if probe in self.weak:
            return ()
        return numbers.by_ratio(
            numbers.difference(name, before, after, self.allowance(name, before) + self._wide_apart(name))
            for name, before, after in self._pairs(probe)
            if name not in self.unmeasured
        )

    def _wide_apart(self, name: str) -> float:
        """For a float32 array, how far its float64 twins are apart, where the base computes in float32 inside.

        Rounding is the distance from one's own twin. Two releases that compute such a base otherwise have two twins,
        and the distance between these adds up with the rounding of both. What runs in float32 only has the output's.
        """
        probe, precision, rest = name.split("/", 2)
        if precision != "float32" or self.noise.kernels is not None or self.base_is_fine:
            return 0.0
        for twin in (f"{probe}/float64/{rest}", f"forward/float64/{rest}"):
            before, after = self.golden.arrays.get(twin), self.now.arrays.get(twin)
            if before is not None and after is not None:
                gap = numbers.difference(twin, before, after, self.allowance(twin, before))
                return 0.0 if beyond(gap) else gap.max_abs
        return 0.0

    def same_bits(self, probe: str) -> bool:
        """True if all arrays of a probe that both sides have are equal to the bit."""
        return all(numbers.same_bits(before, after) for _, before, after in self._pairs(probe))

    def says_something(self, probe: str) -> bool:
        """True if at least one finite number can be compared: NaN that equals NaN says nothing."""
        return any(np.isfinite(before).any() for _, before, _ in self._pairs(probe))

    def missing(self, probe: str) -> list[str]:
        """Arrays in float32 that the golden has and the replay lacks, though the probe ran on both sides."""
        if not self.golden.outcome(probe) == self.now.outcome(probe) == "ok":
            return []
        return sorted(set(self.golden.group(probe, "float32")) - set(self.now.group(probe, "float32")) - {"sketch"})

    def allowance(self, name: str, array: Array) -> float:
        """How far the array of that name may be from the golden's."""
        key = (name, id(array))  # both observations live as long as this
        if key not in self._allowances:
            self._allowances[key] = numbers.allowance(name, array, self.noise, self.own_noise)
        return self._allowances[key]

    def rounding(self, figures: Figures) -> float:
        """The part of an allowance that rounding alone accounts for."""
        plain = numbers.rounding(figures.array, self.golden.arrays[figures.array], self.noise, self.own_noise)
        return plain + self._wide_apart(figures.array)

    def _pairs(self, probe: str) -> Iterable[tuple[str, Array, Array]]:
        for precision in PRECISIONS:
            before, after = self.golden.group(probe, precision), self.now.group(probe, precision)
            for name in sorted(set(before) & set(after)):
                if name != "sketch" and not name.startswith("input/"):
                    yield f"{probe}/{precision}/{name}", before[name], after[name]

    # -- is it the adapter or the base? -----------------------------------------------------------------------------

    def explained_by_base(self) -> bool:
        """True if the output agrees on the base's stored weights, or moved not much further than the base's own did.

        The latter is at most `BELIEVED` times as far, in the same place: in sound pairs, the adapted model passes on a
        perturbation of its base by a factor of 0.1 to 3. What is not finite explains nothing.
        """
        return all(
            self._on_stored_weights(name, before) or self._explained(name, before, after)
            for name, before, after in self._pairs("forward")
        )

    def _on_stored_weights(self, name: str, before: Array) -> bool:
        """True if the replay ran the model on the base's stored weights too, and that output is the golden's."""
        restored = self.now.arrays.get(name.replace("forward/", "restored_forward/", 1))
        if restored is None:
            return False
        return not beyond(numbers.difference(name, before, restored, self.allowance(name, before)))

    def _explained(self, name: str, before: Array, after: Array) -> bool:
        moved = numbers.difference(name, before, after, self.allowance(name, before))
        if not beyond(moved):
            return True
        base_name = name.replace("forward/", "base/", 1)
        base_before, base_after = self.golden.arrays.get(base_name), self.now.arrays.get(base_name)
        if base_before is None or base_after is None or not np.isfinite(moved.max_abs):
            return False
        if base_before.shape != base_after.shape:
            return False
        cause, effect = numbers.positions(base_before, base_after), numbers.positions(before, after)
        if cause.shape != effect.shape:  # virtual tokens lengthen the output, so places do not correspond
            cause, effect = cause.max(initial=0.0), effect.max(initial=0.0)
        cause = np.where(np.isfinite(cause), np.maximum(cause, self.allowance(base_name, base_before)), 0.0)
        return bool(np.all((effect <= moved.allowance) | (effect <= numbers.BELIEVED * cause)))

    def hidden_by_float32(self) -> list[str]:
        """Arrays in float64 that differ by less than float32's noise, if the base's own output does not.

        Float64 rounds at 1e-15, unless a model computes in float32 inside; then its base would differ too.
        """
        if not self.base_is_fine:
            return []
        return [name for probe in ("forward", "layers") for name in self._coarse(probe)]

    @functools.cached_property
    def base_is_fine(self) -> bool:
        """True if the base's own output in float64 agrees as well as float64 can."""
        has_any = any("/float64/" in name for name, _, _ in self._pairs("base"))
        return has_any and not any(True for _ in self._coarse("base"))

    def _coarse(self, probe: str) -> Iterable[str]:
        for name, before, after in self._pairs(probe):
            greatest = float(np.abs(before).max(initial=0.0))
            gap = numbers.difference(name, before, after, self.allowance(name, before))
            if "/float64/" in name and FINE * greatest < gap.max_abs and not beyond(gap):
                yield name

    def follows_outputs(self, side: Observed) -> bool | None:
        """True if the first token that a side generated is the one that its own outputs predict; None if unknown.

        The outputs are of the same prompt that the tokens continue, so greedy decoding must take the last place's best.
        """
        prompt = self.golden.arrays.get("inputs/input_ids")
        logits, tokens = (side.arrays.get(name) for name in ("forward/float32/logits", "generate/float32/tokens"))
        if prompt is None or logits is None or tokens is None or logits.ndim != 3 or tokens.ndim != 2:
            return None
        length = prompt.shape[1]
        if tokens.shape[1] <= length or not np.array_equal(tokens[0, :length], prompt[0]):
            return None  # an encoder-decoder model generates from a prompt of its own
        last, chosen = logits[0, -1], int(tokens[0, length])
        if not np.isfinite(last).all() or chosen >= last.size:
            return None
        return bool(last.max() - last[chosen] <= self.allowance("forward/float32/logits", logits))

    def reference_agrees(self, probe: str) -> bool | None:
        """True if the dequantised reference computes what the golden's does; None if the base is not quantised.

        If it does, the quantised layers cause a difference; if not, the meaning of the checkpoint or the base changed.
        """
        gaps = [f for f in self.figures(probe) if "/float64/" in f.array]
        return not any(beyond(f) for f in gaps) if gaps and self.noise.kernels is not None else None

    # -- what must be equal within one library ------------------------------------------------------------------------

    def twin_gap(self, side: Observed, probe: str, twin: str) -> Figures | None:
        """How far a probe's outputs are from its twin's on one side; allowed is the *golden's* measured noise."""
        found = []
        # a dequantised reference merges and unloads what no quantised layer has a part in
        for precision in PRECISIONS if self.noise.kernels is None else PRECISIONS[:1]:
            mine, other = side.group(probe, precision), side.group(twin, precision)
            for name in sorted(set(mine) & set(other)):
                if name != "sketch" and not name.startswith("disabled."):
                    full = f"{probe}/{precision}/{name}"
                    found.append(self._twins(full, f"{twin}/{precision}/{name}", other[name], mine[name]))
        return next(iter(numbers.by_ratio(found)), None)

    def against(self, probe: str, side: Observed, twin: str) -> tuple[Figures, ...]:
        """How far the replay's outputs of a probe are from a side's outputs of another; the greatest ratio first."""
        found = []
        for precision in PRECISIONS:
            mine, other = self.now.group(probe, precision), side.group(twin, precision)
            for name in sorted(set(mine) & set(other)):
                if name != "sketch":
                    full, reference = f"{probe}/{precision}/{name}", f"{twin}/{precision}/{name}"
                    further = self._wide_apart(reference) if side is self.golden else 0.0
                    found.append(self._twins(full, reference, other[name], mine[name], further))
        return numbers.by_ratio(found)

    def creators_gap(self, probe: str) -> tuple[Figures, ...]:
        """How far the creator's outputs of a probe are from its own `forward`."""
        return Evidence(self.creator, self.creator).against(probe, self.creator, "forward")

    def reloaded_gap(self) -> Figures | None:
        """How far the replay's new adapter, saved and read again, is from what it computed before."""
        arrays = self.now.group("fresh", "float32")
        name = "fresh/float32/"
        found = [
            self._twins(name + again, "created/float32/" + plain, arrays[plain], arrays[again])
            for again in sorted(arrays)
            if (plain := again.removeprefix(RELOADED)) != again and plain in arrays
        ]
        return next(iter(numbers.by_ratio(found)), None)

    def created_gap(self) -> Figures | None:
        """How far the creator's reload is from what the adapter computed when it was saved."""
        return self.twin_gap(self.creator, "forward", "created")

    def disabled_gap(self, side: Observed) -> Figures | None:
        """How far the outputs with the adapter disabled are from the base's on one side."""
        found = []
        for precision in PRECISIONS:
            arrays = side.group("base", precision)
            for name in sorted(arrays):
                plain = name.removeprefix("disabled.")
                if plain != name and plain in arrays:
                    full = f"base/{precision}/{name}"
                    found.append(self._twins(full, f"base/{precision}/{plain}", arrays[plain], arrays[name]))
        return next(iter(numbers.by_ratio(found)), None)

    def is_rounding(self, gap: Figures) -> bool:
        """True if rounding explains a gap between two outputs of one library.

        Merging, unmerging and saving round the weights once more than a run does, by as much as the creator's noise.
        Goldens list such gaps as defects of their creator, and at creation they still do: manifests must not change.
        """
        if self.creator is self.now:
            return not beyond(gap)
        array = self.creator.arrays.get(gap.array)
        return gap.max_abs <= gap.allowance + (self.noise.of(gap.array, array) if array is not None else 0.0)

    def _twins(self, name: str, twin_name: str, reference: Array, array: Array, further: float = 0.0) -> Figures:
        allowance = max(self.allowance(name, reference), self.allowance(twin_name, reference))
        return numbers.difference(name, reference, array, allowance + further)

    # -- the layer-by-layer sketch ------------------------------------------------------------------------------------

    def sketches(self, names: renaming.Names | None = None) -> tuple[LayerSketch, ...]:
        """How far each layer's and block's activation is from the golden's, in the golden's order of execution.

        Args:
            names: their names in the loaded model, if more is known of these.
        """
        # for a quantised base float64 is the dequantised reference: only float32 shows where its kernels differ
        wide = "forward/float64/sketch" in self.now.arrays and self.noise.kernels is None
        precision = "float64" if wide else "float32"
        before, after = (side.arrays.get(f"forward/{precision}/sketch") for side in (self.golden, self.now))
        names_before, names_after = (side.fact("forward", "sketch") or [] for side in (self.golden, self.now))
        if before is None or after is None or len(before) != len(names_before) or len(after) != len(names_after):
            return ()
        place = {name: index for index, (name, _) in enumerate(names_after)}
        now = (names or self.names()).now
        return tuple(
            self._sketch(name, kind, precision, before[index], after[place[now[name]]])
            for index, (name, kind) in enumerate(names_before)
            if now.get(name) in place
        )

    def names(self, known: Mapping[str, str] | None = None) -> renaming.Names:
        """The names of the golden's layers and blocks in the loaded model.

        Args:
            known: those that were found by other means.
        """
        before, after = (side.fact("forward", "sketch") or [] for side in (self.golden, self.now))
        return renaming.names(before, after, {**(self.now.fact("layers", "renamed") or {}), **(known or {})})

    def _sketch(self, name: str, kind: str, precision: str, before: Array, after: Array) -> LayerSketch:
        # not `self.allowance`: it remembers arrays by their identity, and a row is a new array each time
        full = f"forward/{precision}/{numbers.SKETCH}"
        if self.noise.kernels is None:
            full += f"/{name}"
        allowance = numbers.allowance(full, before, self.noise, self.own_noise)
        figures = numbers.difference(full, before, after, allowance)
        return LayerSketch(
            name=name,
            kind=kind,  # type: ignore[arg-type]
            max_abs=figures.max_abs,
            allowance=figures.allowance,
            scale=figures.scale,
        )
