"""A replay in a precision, or with an attention, that users have though no golden is in it.

The adapter runs in float32 and float64 as always, and is compared with the golden there. In addition

* with another attention, everything runs with that attention. The base alone also runs with its release's own, so that
  a difference that the attention causes is not reported as a base that moved;
* in another precision, the base is loaded in that type and the adapter on it, as users do. The rounding noise of that
  type is measured on the same model: see `rounding`.
"""

from __future__ import annotations

from typing import Any, Callable, Collection, Mapping

import numpy as np

from ..compat import settings
from ..model import bases
from ..shared import AS_SAVED, NARROW
from . import rounding, types
from .capture import attempt
from .context import Context
from .recorder import Observation

PROBES = ("forward", "base", "layers", "gradients", "merged", "merge_and_unload")
"""The probes that run in a narrow type: those with outputs."""
FLASH = "flash_attention_2"
PLAIN = "plain"

Observe = Callable[[Context, Collection[str]], None]


class Asked:
    """The requested `dtype` and `attention`; each can be empty."""

    def __init__(self, torch: Any, scenario: Mapping[str, Any], said: Mapping[str, str], device: str) -> None:
        self.torch, self.device = torch, device
        self.dtype, self.attention = said.get("dtype", ""), said.get("attention", "")
        self.plain = scenario
        self.as_saved = False

    @property
    def scenario(self) -> Mapping[str, Any]:
        """The scenario for the replay in float32 and float64, which flash attention does not support."""
        return self._with(self.attention if self.attention != FLASH else "")

    def _with(self, attention: str) -> Mapping[str, Any]:
        return {**self.plain, "base": {**self.plain["base"], "attention": attention}} if attention else self.plain

    def possible(self, observation: Observation) -> bool:
        """False if this cannot run here; the observation then has the verdict and the reason."""
        verdict, reason = self._hindrance() if self.dtype or self.attention else ("", "")
        if verdict:
            observation.load["settings"] = {"outcome": verdict, "reason": reason}
        return not verdict

    def _hindrance(self) -> tuple[str, str]:
        base = self.plain["base"]
        if base.get("quantize"):
            return "unsupported", "its base is quantised: it computes in what its own declaration says"
        if not self.attention:
            return "", ""
        if base["kind"] not in ("transformers", "hub"):
            return "unsupported", "its base is no model of Transformers and has no attention to choose"
        if reason := settings.no_attention(base, self.attention):
            return "unsupported", f"loader: {reason}"
        if self.attention == FLASH and (reason := settings.no_flash(self.device)):
            return "no-device", reason
        if self.attention == FLASH and not self.dtype:
            return "not-comparable", "flash attention computes in float16 and bfloat16 alone: add --dtype"
        return "", ""

    def observe(self, observation: Observation, inputs: Any, layer_inputs: dict[str, Any], observe: Observe) -> None:
        """Observe what is asked for besides float32 and float64, after those."""

        def context(precision: str, into: Observation, scenario: Mapping[str, Any]) -> Context:
            as_saved = self.as_saved and precision in NARROW
            return Context(self.torch, scenario, into, precision, inputs, layer_inputs, self.device, as_saved=as_saved)

        self._without_dtype(observation, inputs)
        if not (self.dtype or self.attention) or not _loaded(observation, "float32"):
            return
        facts: dict[str, Any] = {"asked": {"dtype": self.dtype, "attention": self.attention}}
        if self.attention and self.attention != FLASH:
            facts["attention"] = settings.attention_of(context("float32", observation, self.scenario).base())
            self._base_alone(observation, context)
        if self.dtype:
            facts["dtype"] = self.dtype
            self._narrow(observation, context, observe, facts)
        observation.facts["settings"] = facts

    def _without_dtype(self, observation: Observation, inputs: Any) -> None:
        """Load a base that is saved in a narrow type as users do; if it comes in that type, it is observed there."""
        if not self.plain["base"].get("saved_dtype"):
            return
        context = Context(self.torch, self.plain, observation, "float32", inputs, {}, self.device, as_saved=True)
        types.observe_as_saved(context)
        narrow = [kind for kind in observation.facts[AS_SAVED].get("base", ()) if kind in NARROW]
        if narrow and not self.dtype and _loaded(observation, "float32"):
            self.dtype, self.as_saved = narrow[0], True

    def _base_alone(self, observation: Observation, context: Callable[..., Context]) -> None:
        """The base's outputs with its release's own attention."""
        for precision in ("float32", "float64"):
            if _loaded(observation, precision):
                plain = context(precision, observation, self.plain)
                with attempt(PLAIN), bases.precision(self.torch, precision):
                    plain.record(PLAIN, plain.run(plain.base()))

    def _narrow(
        self, observation: Observation, context: Callable[..., Context], observe: Observe, facts: dict[str, Any]
    ) -> None:
        scenario = self._with(self.attention)
        alone = context(self.dtype, observation, scenario)
        with attempt("base") as tried:
            base = alone.base()
            facts["widths"] = sorted({str(p.dtype)[len("torch.") :] for p in base.parameters()})
            outputs = alone.run(base)
            facts["overflows"] = [n for n, t in sorted(outputs.items()) if not bool(self.torch.isfinite(t).all())]
        if self.attention == FLASH:
            facts["attention"] = settings.attention_of(base)
        facts["base"] = tried.as_dict()
        if tried.outcome != "ok" or facts["overflows"]:
            return
        observe(context(self.dtype, observation, scenario), PROBES)
        types.observe(context(self.dtype, observation, scenario))
        reference = "float64" if _loaded(observation, "float64") else "float32"
        facts["reference"] = reference
        facts["cost"] = {}
        for kind in rounding.KINDS:
            other = Observation(observation.scenario)
            with rounding.every_operator(self.torch, reference, self.dtype, kind):
                observe(context(reference, other, self.scenario), PROBES)
            facts["cost"][kind] = _apart(observation.arrays(), other.arrays(), reference)
            facts.setdefault("unmeasured", []).extend(_errors(other, reference))


def _errors(observation: Observation, precision: str) -> list[str]:
    """Errors of the run with rounded operators: the libraries do not cause them, and they leave no measurement."""
    tried = {"loading": observation.load, **observation.probes}
    said = [(what, by.get(precision, {}).get("error")) for what, by in tried.items()]
    return [f"{what}: {error['type']}: {error['message'][:200]}" for what, error in said if error]


def _loaded(observation: Observation, precision: str) -> bool:
    return bool(observation.load.get(precision, {}).get("outcome") == "ok")


def _apart(wide: Mapping[str, Any], rounded: Mapping[str, Any], precision: str) -> dict[str, float]:
    """Array (`probe/rest`) → its greatest difference from the wide one's, over elements that are finite in both."""
    apart = {}
    for name, array in sorted(rounded.items()):
        reference = wide.get(name)
        if reference is None or reference.shape != array.shape or not np.issubdtype(array.dtype, np.floating):
            continue
        probe, found, rest = name.split("/", 2)
        gap = np.abs(array.astype(np.float64) - reference)
        if found == precision and gap.size and np.isfinite(gap).any():
            apart[f"{probe}/{rest}"] = float(gap[np.isfinite(gap)].max())
    return apart
