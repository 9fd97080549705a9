"""Where a deviation starts: the first layer that differs, what it was given, whose values it has, and what that means.

Pure: a golden and a trace in, words and figures out. The order of the questions is the policy: did the layer's input
differ already? Are its parameters the checkpoint's? Is its own effect, fed the golden's input, another?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pydantic

from harness.core.model import Model
from harness.core.observation import Observed
from harness.core.run import Cell, Figures, Finding
from harness.judge import numbers
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.worker.shared import canonical

FORMAT = 1
"""Of the file that is kept beside a run: raise it when an older reader would misread it."""

PROMPT = "prompt_encoder"
"""What stands for a layer where something is put before the input (see the worker's `trace`)."""

Doing = Literal["", "loading", "computation", "base", "base layer", "prompt", "afterwards", "not loaded"]
"""Whose doing it is; `afterwards`: nothing differs before what is done with the loaded adapter."""

COSTS: Mapping[str, str] = {
    "load": "loading base and adapter; nothing is run",
    "accounting": "loading, and looking for the checkpoint's tensors by value; nothing is run",
    "structure": "loading, and looking at names, types and ties; nothing is run",
    "layers": "one layer, fed its stored input; the model is not run",
    "forward": "one run of the model",
    "base": "one run of the base",
    "train": "one run in train mode",
    "gradients": "one run and one backward pass",
}
"""What the probes take that are cheap, in the order of what they take."""


class Parameter(Model):
    """One parameter of an adapter layer, held against the checkpoint."""

    name: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    key: str = ""
    """The checkpoint's key that it came from; empty: none did, it keeps its initial value."""
    found: Literal["by value", "by name", "nowhere"] = "nowhere"
    max_abs: float | None = None
    """Greatest difference from the checkpoint's tensor; None where there is none, or one of another shape."""
    stored_shape: tuple[int, ...] = ()
    holds: str = ""
    """Another key, whose values it has to the bit."""

    @property
    def agrees(self) -> bool:
        """True where it is the checkpoint's to the bit."""
        return self.max_abs == 0.0

    def __str__(self) -> str:
        short = f"{self.name} ({self.dtype}, {'×'.join(map(str, self.shape)) or 'scalar'})"
        if not self.key:
            return f"{short}: no tensor of the checkpoint; it keeps its initial value"
        if self.stored_shape:
            return f"{short}: {self.key} is {'×'.join(map(str, self.stored_shape))}"
        if self.agrees:
            return f"{short}: {self.key}, to the bit"
        holds = f"; it holds what the checkpoint has under {self.holds}" if self.holds else ""
        return f"{short}: {self.key}, but |Δ| {self.max_abs:.3g}{holds}"


class Layer(Model):
    """One adapter layer or block, in execution order."""

    name: str
    kind: Literal["adapter", "block", "prompt"]
    called: str = ""
    """What it is called here, where that is not what the golden calls it."""
    class_name: str = ""
    input: Figures | None = None
    """What it was given, against what it was given when the golden was made; None where nobody kept that."""
    output: Figures | None = None
    """A sketch of what it put out."""
    effect: Figures | None = None
    """What its adapter does alone, fed the golden's own input."""
    parameters: tuple[Parameter, ...] = ()
    lost: tuple[str, ...] = ()
    """Keys of the checkpoint that belong to it and are nowhere in the model."""
    base_changed: tuple[str, ...] = ()
    """Weights of the base within it that are not what they were."""
    scalars: dict[str, Any] = pydantic.Field(default_factory=dict)
    scalars_before: dict[str, Any] = pydantic.Field(default_factory=dict)
    """The same in the creator's own environment; empty where it was not asked."""

    @property
    def foreign(self) -> tuple[Parameter, ...]:
        """The parameters that are not the checkpoint's."""
        return tuple(p for p in self.parameters if p.key and not p.agrees)

    @property
    def differs(self) -> bool:
        """True where anything of it is otherwise."""
        figures = (self.input, self.output, self.effect)
        return bool(self.lost or self.foreign or any(f is not None and beyond(f) for f in figures))

    @property
    def scalar_changes(self) -> tuple[str, ...]:
        """What it keeps besides tensors and kept otherwise for the creator: `scaling: 1.0 → 3.0`."""
        before, now = self.scalars_before, self.scalars
        shared = [name for name in before if name in now and before[name] != now[name]]
        return tuple(f"{name}: {before[name]!r} → {now[name]!r}" for name in shared)


class Where(Model):
    """What a trace says of a cell."""

    format: int = FORMAT
    cell: str
    first: str = ""
    """The first layer, in execution order, that differs."""
    doing: Doing = ""
    said: tuple[str, ...] = ()
    """In words, the conclusion last."""
    probe: str = ""
    """The smallest probe that shows it."""
    probe_says: str = ""
    layers: tuple[Layer, ...] = ()

    @property
    def first_layer(self) -> Layer | None:
        """The layer of that name."""
        return next((layer for layer in self.layers if layer.name == self.first), None)


def find(cell: Cell, golden: Observed, now: Observed, creators: Observed | None = None) -> Where:
    """What a trace says.

    Args:
        cell: as it was judged; its findings say which probe is the smallest that shows it.
        now: a trace under the loader.
        creators: a trace in the creator's own environment, where there is one.
    """
    probe, probe_says = smallest(cell.findings)
    found = Where(cell=cell.id, probe=probe, probe_says=probe_says)
    loaded = now.load.get("float32", {})
    if loaded.get("outcome") != "ok":
        error = loaded.get("error") or {}
        raised = f"it does not load ({error.get('stage')}): {error.get('type')}: {error.get('message')}"
        return found.model_copy(update={"doing": "not loaded", "said": (raised, "no layer is reached: the loading")})
    layers = _Layers(golden, now, creators).all()
    first = next((layer for layer in layers if layer.differs), None)
    doing, said = _meaning(first, Evidence(golden, now), now)
    told = {"first": first.name if first else "", "doing": doing, "said": said, "layers": layers}
    return found.model_copy(update=told)


def smallest(findings: Iterable[Finding]) -> tuple[str, str]:
    """The cheapest probe that shows the deviation, and what it says; empty where nothing was found."""
    order = list(COSTS)
    deviating = [f for f in findings if f.verdict.is_deviation or f.kind == "new-warning"]
    cheapest = min(deviating, key=lambda f: order.index(f.probe) if f.probe in order else len(order), default=None)
    return (cheapest.probe, cheapest.message) if cheapest else ("", "")


class _Layers:
    """Makes the rows."""

    def __init__(self, golden: Observed, now: Observed, creators: Observed | None) -> None:
        self.golden, self.now, self.creators = golden, now, creators
        self.evidence = Evidence(golden, now)
        self.renamed: Mapping[str, str] = now.fact("layers", "renamed") or {}
        self.facts: Mapping[str, Any] = now.fact("trace", "layers") or {}
        self.before: Mapping[str, Any] = (creators.fact("trace", "layers") or {}) if creators else {}
        self.effects = self._by_layer("layers")
        self.nowhere = [
            key for key, found in (now.fact("accounting", "tensors") or {}).items() if found["found"] == "nowhere"
        ]
        self.changed: list[str] = list(now.fact("accounting", "base_changed") or [])

    def all(self) -> tuple[Layer, ...]:
        """Every layer and block in execution order: the golden's, then what only the trace has."""
        rows = [self._row(name, kind) for name, kind in self._order()]
        return tuple(rows)

    def _order(self) -> list[tuple[str, str]]:
        order = [(str(name), str(kind)) for name, kind in self.golden.fact("forward", "sketch") or []]
        if PROMPT in self.facts:
            order.insert(0, (PROMPT, "prompt"))
        known = {name for name, _ in order} | set(self.renamed.values())
        return order + [(name, "adapter") for name in self.facts if name not in known]

    def _by_layer(self, probe: str) -> dict[str, Figures]:
        """The figures of each layer, in float32 where that is beyond its allowance, else the greatest ratio."""
        found: dict[str, Figures] = {}
        for figures in self.evidence.figures(probe):
            found.setdefault(figures.array.split("/", 2)[2], figures)
        return found

    def _row(self, name: str, kind: str) -> Layer:
        here = self.renamed.get(name, name)
        facts = self.facts.get(here, {})
        parameters = tuple(Parameter(**row) for row in facts.get("parameters", []))
        arrived = {p.key for p in parameters if p.key}
        sketches = {sketch.name: sketch for sketch in self.evidence.sketches()}
        sketch = sketches.get(name)
        output = Figures(array=f"sketch of {name}", max_abs=sketch.max_abs, allowance=sketch.allowance,
                         scale=sketch.scale) if sketch else None  # fmt: skip
        prompts = [f for n, f in self.effects.items() if n.startswith("prompt")] if kind == "prompt" else []
        return Layer(
            name=name,
            kind=kind,  # type: ignore[arg-type]
            called=here if here != name else "",
            class_name=facts.get("class", ""),
            input=self._input(name, here),
            output=output,
            effect=prompts[0] if prompts else self.effects.get(name),
            parameters=parameters,
            lost=tuple(k for k in self.nowhere if _within(k, name) and k not in arrived) if kind == "adapter" else (),
            base_changed=tuple(weight for weight in self.changed if f"{weight}.".startswith(f"{here}.")),
            scalars=facts.get("scalars", {}),
            scalars_before=self.before.get(name, {}).get("scalars", {}),
        )

    def _input(self, name: str, here: str) -> Figures | None:
        before = self.golden.arrays.get(f"layers/input/{name}")
        after = self.now.arrays.get(f"trace/input/{here}")
        if before is None or after is None:
            return None
        # it stands for an activation like the outputs, so it may be as far off as they may
        allowance = self.evidence.allowance(f"forward/float32/{name}", before)
        return numbers.difference(f"input of {name}", before, after, allowance)


def _within(key: str, layer: str) -> bool:
    return f".{layer}." in f".{canonical(key)}."


def _meaning(first: Layer | None, evidence: Evidence, now: Observed) -> tuple[Doing, tuple[str, ...]]:
    """Whose doing it is, and the words for it."""
    if first is None:
        return _nothing_differs(evidence, now)
    said = [f"{first.name} is the first that differs, in execution order"]
    if first.kind == "block":
        return _in_block(first, now, said)
    if first.kind == "prompt" and not first.foreign:
        return "prompt", (*said, *_own_effect(first), "what is put before the input differs")
    if first.input is not None:
        said.append(f"its inputs {_agreement(first.input)}")
    else:
        said.append("its inputs are not stored, so that nobody can tell whether they differed already")
    said += _whose(first)
    said += _own_effect(first)
    if first.lost or first.foreign:
        return "loading", (*said, "its parameters are not the checkpoint's: the loading")
    if first.effect is not None and beyond(first.effect):
        changes = f" ({', '.join(first.scalar_changes)})" if first.scalar_changes else ""
        return "computation", (*said, f"the computation changed{changes}, not the loading")
    if first.input is not None and beyond(first.input):
        moved = "the base moved before it" if _moved(evidence) else "what comes before it computes otherwise"
        return "base", (*said, f"its inputs already differed: {moved}")
    if first.base_changed:
        return "loading", (*said, f"loading changed the base's own weights in it: {', '.join(first.base_changed[:3])}")
    return "base layer", (*said, "its adapter does what it did: the base's own layer in it computes otherwise")


def _nothing_differs(evidence: Evidence, now: Observed) -> tuple[Doing, tuple[str, ...]]:
    nowhere = [k for k, found in (now.fact("accounting", "tensors") or {}).items() if found["found"] == "nowhere"]
    if nowhere and any(beyond(f) for f in evidence.figures("forward")):
        return "loading", ("no layer differs", f"but of the checkpoint nowhere in the model: {', '.join(nowhere[:4])}")
    if evidence.reference_agrees("base") is False:
        said = "what its quantised weights stand for has changed, by less than its kernels' own rounding shows"
        return "base", ("no layer differs by more than rounding explains", f"the base moved: {said}")
    if any(beyond(f) for f in evidence.figures("forward")):
        return "base", ("no layer that was looked at differs", "the output does: what comes after the last of them")
    return "afterwards", (
        "no layer differs: loaded and run, it computes what it did",
        "what deviates is done with the loaded adapter afterwards, or is no number",
    )


def _in_block(first: Layer, now: Observed, said: list[str]) -> tuple[Doing, tuple[str, ...]]:
    nowhere = [k for k, found in (now.fact("accounting", "tensors") or {}).items() if found["found"] == "nowhere"]
    lost = [key for key in nowhere if _within(key, first.name)]
    said.append(f"it is a block of the base; its output {_agreement(first.output)}" if first.output else "")
    said.append("every adapter layer before its end does what it did")
    if lost:
        return "loading", (*said, f"of the checkpoint nowhere in the model: {', '.join(lost[:4])}: the loading")
    return "base", (*said, "the base moved in it")


def _whose(first: Layer) -> list[str]:
    said = []
    if first.parameters and not first.foreign and not first.lost:
        from_checkpoint = [p for p in first.parameters if p.key]
        if from_checkpoint:
            said.append(f"its {len(from_checkpoint)} parameters are the checkpoint's to the bit")
    said += [f"{key} never arrived" for key in first.lost[:3]]
    said += [str(parameter) for parameter in first.foreign[:3]]
    return said


def _own_effect(first: Layer) -> list[str]:
    if first.effect is None:
        return ["its own effect could not be looked at alone"]
    return [f"its own effect, fed the stored input, {_agreement(first.effect)}"]


def _agreement(figures: Figures) -> str:
    if beyond(figures):
        return f"is {figures.max_abs:.2g} off (allowance {figures.allowance:.1g})".replace("is inf", "is infinitely")
    return f"agree{'' if figures.array.startswith('input') else 's'} ({figures.max_abs:.2g} ≤ {figures.allowance:.1g})"


def _moved(evidence: Evidence) -> bool:
    return any(beyond(f) for f in evidence.figures("base") if "/disabled." not in f.array)
