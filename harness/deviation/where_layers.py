"""The layers of a trace, each compared with the golden: input, own effect, output and parameters (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from harness.core.model import Model
from harness.core.observation import Observed
from harness.core.run import Figures
from harness.deviation.where_base import Base
from harness.judge import numbers, twins
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.judge.renaming import within
from harness.worker.shared import canonical

PROMPT = "prompt_encoder"
"""The name of the pseudo-layer for a prompt that is put before the input (see the worker's `trace`)."""


class Parameter(Model):
    """One parameter of an adapter layer, compared with the checkpoint."""

    name: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    key: str = ""
    """The checkpoint's key that it was loaded from; empty if there is none, so that it keeps its initial value."""
    found: Literal["by value", "by name", "nowhere"] = "nowhere"
    max_abs: float | None = None
    """Greatest difference from the checkpoint's tensor; None if there is none, or its shape differs."""
    stored_shape: tuple[int, ...] = ()
    holds: str = ""
    """Another key of the checkpoint that has exactly its values."""

    @property
    def agrees(self) -> bool:
        """True if it equals the checkpoint's tensor exactly."""
        return self.max_abs == 0.0

    def __str__(self) -> str:
        short = f"{self.name} ({self.dtype}, {'×'.join(map(str, self.shape)) or 'scalar'})"
        if not self.key:
            return f"{short}: not in the checkpoint; it keeps its initial value"
        if self.stored_shape:
            return f"{short}: the shape of {self.key} is {'×'.join(map(str, self.stored_shape))}"
        if self.agrees:
            return f"{short}: equals {self.key}"
        holds = f"; it holds the values of {self.holds}" if self.holds else ""
        return f"{short}: differs from {self.key} by up to {self.max_abs:.3g}{holds}"


class Layer(Model):
    """One adapter layer or block, in execution order."""

    name: str
    kind: Literal["adapter", "block", "prompt"]
    called: str = ""
    """Its name under the loader, if the golden's differs."""
    elsewhere: str = ""
    """What is known of it if it is no layer or block of the loaded model."""
    class_name: str = ""
    input: Figures | None = None
    """Its input, compared with its input when the golden was made; None if that was not stored."""
    output: Figures | None = None
    """A sketch of its output."""
    effect: Figures | None = None
    """What its adapter adds, computed from the golden's input."""
    parameters: tuple[Parameter, ...] = ()
    lost: tuple[str, ...] = ()
    """Keys of the checkpoint that belong to it and are missing from the model."""
    undecided: tuple[str, ...] = ()
    """The same for a layer that the loader fused into another that has an adapter: their values may be fused too."""
    base_changed: tuple[str, ...] = ()
    """Weights of the base within it that changed."""
    scalars: dict[str, Any] = pydantic.Field(default_factory=dict)
    scalars_before: dict[str, Any] = pydantic.Field(default_factory=dict)
    """The same with the creator's libraries; empty if that was not traced."""

    @property
    def foreign(self) -> tuple[Parameter, ...]:
        """The parameters that differ from the checkpoint's."""
        return tuple(p for p in self.parameters if p.key and not p.agrees)

    @property
    def differs(self) -> bool:
        """True if its input, output, effect or parameters differ."""
        figures = (self.input, self.output, self.effect)
        return bool(self.lost or self.foreign or any(f is not None and beyond(f) for f in figures))

    @property
    def scalar_changes(self) -> tuple[str, ...]:
        """Attributes that changed since the creator's libraries: `scaling: 1.0 → 3.0`."""
        before, now = self.scalars_before, self.scalars
        shared = [name for name in before if name in now and before[name] != now[name]]
        return tuple(f"{name}: {before[name]!r} → {now[name]!r}" for name in shared)


class Layers:
    """Compares each layer of two traces."""

    def __init__(self, golden: Observed, now: Observed, creators: Observed | None, base: Base) -> None:
        self.golden, self.now, self.creators, self.base = golden, now, creators, base
        self.evidence = Evidence(golden, now)
        rows = [str(name) for name, _ in golden.fact("forward", "sketch") or []]
        self.names = self.evidence.names({row: base.names[row] for row in rows if row in base.names})
        self.sketches = {sketch.name: sketch for sketch in self.evidence.sketches(self.names)}
        self.run = {str(name) for name, _ in now.fact("forward", "sketch") or []}
        self.facts: Mapping[str, Any] = now.fact("trace", "layers") or {}
        self.before: Mapping[str, Any] = (creators.fact("trace", "layers") or {}) if creators else {}
        self.effects = self._by_layer("layers")
        self.missing = [*now.missing(), *twins.lost(golden, now)]
        self.changed: list[str] = list(now.fact("accounting", "base_changed") or [])

    def all(self) -> tuple[Layer, ...]:
        """All layers and blocks in execution order: the golden's, then those that only the trace has."""
        rows = [self._row(name, kind) for name, kind in self._order()]
        return tuple(rows)

    def _order(self) -> list[tuple[str, str]]:
        order = [(str(name), str(kind)) for name, kind in self.golden.fact("forward", "sketch") or []]
        if PROMPT in self.facts:
            order.insert(0, (PROMPT, "prompt"))
        known = {name for name, _ in order} | set(self.names.now.values())
        return order + [(name, "adapter") for name in self.facts if name not in known]

    def _by_layer(self, probe: str) -> dict[str, Figures]:
        """The figures of each layer: in float32 if they exceed the allowance, else those with the greatest ratio."""
        found: dict[str, Figures] = {}
        for figures in self.evidence.figures(probe):
            found.setdefault(figures.array.split("/", 2)[2], figures)
        return found

    def _row(self, name: str, kind: str) -> Layer:
        here = self.names.now.get(name, name)
        facts = self.facts.get(here, {})
        parameters = tuple(Parameter(**row) for row in facts.get("parameters", []))
        arrived = {p.key for p in parameters if p.key}
        lost = tuple(k for k in self.missing if belongs(k, name) and k not in arrived) if kind == "adapter" else ()
        fused = any(within(self.base.fused.get(name, ""), layer) for layer in self.facts if name in self.base.fused)
        sketch = self.sketches.get(name)
        output = Figures(array=f"sketch of {name}", max_abs=sketch.max_abs, allowance=sketch.allowance,
                         scale=sketch.scale) if sketch else None  # fmt: skip
        prompts = [f for n, f in self.effects.items() if n.startswith("prompt")] if kind == "prompt" else []
        return Layer(
            name=name,
            kind=kind,  # type: ignore[arg-type]
            called=here if here != name else "",
            elsewhere=self._elsewhere(name, here, kind),
            class_name=facts.get("class", ""),
            input=self._input(name, here),
            output=output,
            effect=prompts[0] if prompts else self.effects.get(name),
            parameters=parameters,
            lost=() if fused else lost,
            undecided=lost if fused else (),
            base_changed=tuple(weight for weight in self.changed if f"{weight}.".startswith(f"{here}.")),
            scalars=facts.get("scalars", {}),
            scalars_before=self.before.get(name, {}).get("scalars", {}),
        )

    def _elsewhere(self, name: str, here: str, kind: str) -> str:
        if not self.run or here in self.run or here in self.facts or kind == "prompt":
            return ""
        if name in self.names.unclear:
            return f"the loader's name is one of {', '.join(self.names.unclear[name])}: the order does not decide"
        if name in self.base.places:
            return f"its weights are {self.base.places[name]}"
        if name in self.names.now:
            return "it ran no adapter here" if kind == "adapter" else "it did not run here"
        return "the loader has no such module"

    def _input(self, name: str, here: str) -> Figures | None:
        before = self.golden.arrays.get(f"layers/input/{name}")
        after = self.now.arrays.get(f"trace/input/{here}")
        if before is None or after is None:
            return None
        # an input is an activation like the outputs, so their allowance applies
        allowance = self.evidence.allowance(f"forward/float32/{name}", before)
        return numbers.difference(f"input of {name}", before, after, allowance)


def belongs(key: str, layer: str) -> bool:
    return f".{layer}." in f".{canonical(key)}."
