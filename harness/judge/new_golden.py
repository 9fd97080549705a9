"""Whether a new golden proves anything: what is refused at creation, and what the creator's own library fails. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.core.errors import HarnessError
from harness.core.observation import Observed
from harness.judge import checkpoint_keys, compare, numbers, signal, standard

EFFECT = 1e-3
"""An adapter must move the output by this share of its root mean square; else losing the adapter would not show.

This is no tolerance: what a loader may deviate is measured. The fill makes effects of 0.1 to 1. An effect near this
bound means that the adapter is off or that the inputs do not reach it."""

EFFECT_OF_GIVEN = 1e-6
"""The same for a user's own adapter: training may move a model little. Rounding in float32 moves it by less."""

_OTHER_RELOAD = "saved and reloaded by its own library it computes something else"
_NO_RELOAD = "its own library cannot load and run what it saved"
"""Words of standing defects. Manifests quote them, so they change only with the fixtures."""


class CreationRefused(HarnessError):
    """The scenario could not be created, or what came out would prove nothing."""


def refuse_unfit(golden: Observed, resolved: Mapping[str, Any]) -> None:
    """Raise CreationRefused where a golden would prove nothing.

    A creator that cannot load or run its own file is no reason: the file is what people have, and `created` is the
    standard for it (`harness.judge.standard`).
    """
    name, given = golden.scenario, bool(resolved.get("adapter", {}).get("given"))
    if not standard.has_saved(golden):
        _refuse_failed(golden, name, given)
    if wrong := standard.undeclared(golden, resolved):
        raise CreationRefused(f"{name}: {wrong[0]}", *wrong[1:])
    if problems := checkpoint_keys.unmet(golden, resolved):
        raise CreationRefused(
            f"{name}: the checkpoint does not hold what the scenario `expects`: {'; '.join(problems)}",
            "the keys and shapes under `expects`",
            f"keys are: {', '.join(checkpoint_keys.stored_keys(golden))}",
        )
    for array_name, array in golden.arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise CreationRefused(
                f"{name}: {array_name} is not finite",
                "finite numbers everywhere",
                "look for NaN or infinite values in the adapter's file" if given else "fix base, inputs or fill",
            )
    least = EFFECT_OF_GIVEN if given else EFFECT
    if (effect := effect_of(golden)) < least:
        raise CreationRefused(
            f"{name}: the adapter moves the output by {effect:.2g} of its size",
            f"at least {least:g}, so that losing the adapter would show",
            "an adapter that was not trained has no effect, nor has one of other layers or tokens than those that "
            "are looked at"
            if given
            else "check target modules, inputs and `fill`",
        )
    if (error := kernel_error(golden)) * numbers.BELIEVED > effect:
        raise CreationRefused(
            f"{name}: the quantised base deviates from its dequantised weights by {error:.2g} of its size, and the "
            f"adapter moves it by {effect:.2g}",
            f"kernels whose error is at most a {numbers.BELIEVED:g}th of the adapter's effect",
            "the creator's bitsandbytes computes wrongly on this processor, or for this PEFT: take another release",
        )
    _refuse_weak(golden, name)


def _refuse_weak(golden: Observed, name: str) -> None:
    made = standard.of(golden, golden)
    golden, noise = made.golden, numbers.measure(made.creator)
    decisive = (*signal.DECISIVE, "base")
    weak = [str(said) for said in signal.weak(golden, noise, noise, decisive).values()]
    weak += [
        f"the measured rounding noise of {array} is not finite" for array in signal.unmeasured(golden, noise, decisive)
    ]
    for said in weak:
        raise CreationRefused(
            f"{name}: {said}",
            "an allowance that is smaller than the signal, so that a loss would show",
            "the creator's libraries compute wrongly or imprecisely here: check the base, or take other releases",
        )


def _refuse_failed(golden: Observed, name: str, given: bool) -> None:
    for what, said in (("reloading it", golden.load.get("float32", {})), ("forward", _said(golden, "forward"))):
        if said.get("outcome") != "ok":
            error = said.get("error") or {}
            raised = f"{error.get('type')}: {error.get('message')}"
            if given:
                raise CreationRefused(
                    f"{name}: the release that is said to have written it cannot read it: {what} fails: {raised}",
                    "a release that can load and run the adapter, on the base that it was trained on",
                    "name another with --from, or another base with --base",
                )
            raise CreationRefused(
                f"{name}: {what} fails in the creator's own library: {raised}",
                "an adapter that its creator can load and run",
                "fix the scenario, or state under `requires` what it needs",
            )


def _said(golden: Observed, probe: str) -> Mapping[str, Any]:
    said: Mapping[str, Any] = golden.probes.get(probe, {}).get("float32", {})
    return said


def effect_of(golden: Observed) -> float:
    """How far the adapter moves the base's output, as a share of its root mean square; the greatest of all outputs.

    The adapter is the one that was saved; a golden of another device has only the reloaded one.
    """
    adapted = golden.group("created", "float32") or golden.group("forward", "float32")
    plain = golden.group("base", "float32")
    shares = [0.0]
    for name in set(adapted) & set(plain) - {"sketch"}:
        if adapted[name].shape != plain[name].shape:
            return float("inf")  # a prompt that lengthens the output is an effect
        scale = numbers.rms(plain[name]) or 1.0
        shares.append(numbers.rms(adapted[name].astype(np.float64) - plain[name]) / scale)
    return max(shares)


def kernel_error(golden: Observed) -> float:
    """How far a quantised base is from its dequantised reference, as a share of its root mean square; else 0."""
    if numbers.measure(golden).kernels is None:
        return 0.0
    own, reference = golden.group("base", "float32"), golden.group("base", "float64")
    shares = [0.0]
    for name in set(own) & set(reference) - {"sketch"}:
        scale = numbers.rms(reference[name]) or 1.0
        shares.append(numbers.rms(own[name].astype(np.float64) - reference[name]) / scale)
    return max(shares)


def standing_defects(golden: Observed) -> tuple[str, ...]:
    """Checks without a golden that the creator's own library fails: the golden is compared with itself."""
    defects = list(compare.judge(golden, golden).standing_defects)
    if (gap := standard.reload_loss(golden)) is not None:
        defects.insert(0, f"{_OTHER_RELOAD}, by {gap.max_abs:.3g}")
    if standard.has_saved(golden) and (error := standard.reload_error(golden)) is not None:
        defects.insert(0, f"{_NO_RELOAD}: {error.type}: {error.message}")
    return tuple(defects)


def kept(defects: Sequence[str]) -> str:
    """Why a fixture is kept although its creator cannot read it back; empty if it can."""
    own = next((defect for defect in defects if defect.startswith((_OTHER_RELOAD, _NO_RELOAD))), "")
    return f"{own}. The fixture is kept: loaders are compared with what it computed when it was saved" if own else ""
