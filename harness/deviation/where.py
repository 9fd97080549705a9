"""Where a deviation starts: the first layer that differs, and why (pure).

Compares a golden with a trace. For the first layer that differs three questions decide, in this order: Does its input
differ already? Do its parameters equal the checkpoint's? Does its own effect, computed from the golden's input, differ?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pydantic

from harness.core.model import Model
from harness.core.observation import Observed
from harness.core.run import Cell, Figures, Finding
from harness.core.text import enumerated, many
from harness.judge import numbers, twins
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.worker.shared import LOAD_PATH, canonical

FORMAT = 1
"""Format of the file that is kept beside a run. Raise it when an older reader would misread the file."""

PROMPT = "prompt_encoder"
"""The name of the pseudo-layer for a prompt that is put before the input (see the worker's `trace`)."""

Doing = Literal["", "loading", "computation", "base", "base layer", "prompt", "afterwards", "not loaded"]
"""What caused the difference; `afterwards`: it appears only in what is done with the loaded adapter."""

COSTS: Mapping[str, str] = {
    "load": "loading base and adapter; nothing runs",
    "accounting": "loading, and searching for the checkpoint's tensors by value; nothing runs",
    "structure": "loading, and reading names, dtypes and ties; nothing runs",
    "layers": "one layer runs on its stored input",
    "forward": "one run of the model",
    "base": "one run of the base",
    "train": "one run in train mode",
    "gradients": "one run and one backward pass",
}
"""The work that the cheap probes do, the cheapest first."""


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


class Where(Model):
    """Where a cell's deviation starts."""

    format: int = FORMAT
    cell: str
    first: str = ""
    """The first layer, in execution order, that differs."""
    doing: Doing = ""
    said: tuple[str, ...] = ()
    """The reasoning in words; the conclusion is last."""
    probe: str = ""
    """The cheapest probe that shows the deviation."""
    probe_says: str = ""
    layers: tuple[Layer, ...] = ()

    @property
    def first_layer(self) -> Layer | None:
        """The first layer that differs."""
        return next((layer for layer in self.layers if layer.name == self.first), None)


def find(cell: Cell, golden: Observed, now: Observed, creators: Observed | None = None) -> Where:
    """Conclude from a trace where a cell's deviation starts.

    Args:
        cell: the judged cell; its findings give the cheapest probe.
        now: a trace with the loader's libraries.
        creators: a trace with the creator's libraries, if there is one.
    """
    probe, probe_says = smallest(cell.findings)
    found = Where(cell=cell.id, probe=probe, probe_says=probe_says)
    loaded = now.load.get("float32", {})
    if loaded.get("outcome") != "ok":
        error = loaded.get("error") or {}
        raised = f"it does not load ({error.get('stage')}): {error.get('type')}: {error.get('message')}"
        return found.model_copy(update={"doing": "not loaded", "said": (raised, "no layer runs: the loading changed")})
    layers = _Layers(golden, now, creators).all()
    first = next((layer for layer in layers if layer.differs), None)
    doing, said = _meaning(first, Evidence(golden, now), now, _elsewhere(layers, golden, now))
    if doing == "afterwards" and (by_path := _load_path(cell)):
        doing, said = by_path
    update = {"first": first.name if first else "", "doing": doing, "said": said, "layers": layers}
    return found.model_copy(update=update)


def smallest(findings: Iterable[Finding]) -> tuple[str, str]:
    """The cheapest probe that shows the deviation, and its message; empty if there are no findings."""
    order = list(COSTS)
    deviating = [f for f in findings if f.verdict.is_deviation or f.kind == "new-warning"]
    cheapest = min(deviating, key=lambda f: order.index(f.probe) if f.probe in order else len(order), default=None)
    return (cheapest.probe, cheapest.message) if cheapest else ("", "")


class _Layers:
    """Compares each layer of two traces."""

    def __init__(self, golden: Observed, now: Observed, creators: Observed | None) -> None:
        self.golden, self.now, self.creators = golden, now, creators
        self.evidence = Evidence(golden, now)
        self.renamed: Mapping[str, str] = now.fact("layers", "renamed") or {}
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
        known = {name for name, _ in order} | set(self.renamed.values())
        return order + [(name, "adapter") for name in self.facts if name not in known]

    def _by_layer(self, probe: str) -> dict[str, Figures]:
        """The figures of each layer: in float32 if they exceed the allowance, else those with the greatest ratio."""
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
            lost=tuple(k for k in self.missing if _within(k, name) and k not in arrived) if kind == "adapter" else (),
            base_changed=tuple(weight for weight in self.changed if f"{weight}.".startswith(f"{here}.")),
            scalars=facts.get("scalars", {}),
            scalars_before=self.before.get(name, {}).get("scalars", {}),
        )

    def _input(self, name: str, here: str) -> Figures | None:
        before = self.golden.arrays.get(f"layers/input/{name}")
        after = self.now.arrays.get(f"trace/input/{here}")
        if before is None or after is None:
            return None
        # an input is an activation like the outputs, so their allowance applies
        allowance = self.evidence.allowance(f"forward/float32/{name}", before)
        return numbers.difference(f"input of {name}", before, after, allowance)


def _within(key: str, layer: str) -> bool:
    return f".{layer}." in f".{canonical(key)}."


def _load_path(cell: Cell) -> tuple[Doing, tuple[str, ...]] | None:
    """The conclusion if only other load paths than `PeftModel.from_pretrained` deviate; None if not."""
    deviating = [finding for finding in cell.findings if finding.verdict.is_deviation]
    if not deviating or not all(finding.probe.startswith(LOAD_PATH) for finding in deviating):
        return None
    names = enumerated(dict.fromkeys(finding.probe.removeprefix(LOAD_PATH) for finding in deviating), 4)
    lost = next((finding for finding in deviating if finding.kind.endswith("lost-tensors")), deviating[0])
    said = f"other load paths do not load it so ({names}): {lost.message}"
    return "loading", ("loaded by PeftModel.from_pretrained, no layer differs", said)


def _elsewhere(layers: Iterable[Layer], golden: Observed, now: Observed) -> tuple[str, ...]:
    """Tensors of the checkpoint that are lost and belong to no observed layer: all layers may share them."""
    names = [layer.name for layer in layers if layer.kind == "adapter"]
    lost = sorted({*now.missing(), *twins.lost(golden, now)} - set(golden.missing()))
    return tuple(key for key in lost if not any(_within(key, name) for name in names))


def _meaning(
    first: Layer | None, evidence: Evidence, now: Observed, elsewhere: tuple[str, ...]
) -> tuple[Doing, tuple[str, ...]]:
    """What caused the difference, and why we think so.

    Args:
        elsewhere: tensors that are lost and belong to no observed layer.
    """
    if first is None:
        return _nothing_differs(evidence, now)
    said = [f"{first.name} is the first layer that differs, in execution order"]
    if first.kind == "block":
        return _in_block(first, now, said, () if _base_changed(evidence) else elsewhere)
    if first.kind == "prompt" and not first.foreign:
        return "prompt", (*said, *_own_effect(first), "the prompt that is put before the input changed")
    if first.input is not None:
        said.append(f"its input {_agreement(first.input)}")
    else:
        said.append("its input is not stored, so it is unknown whether it differs already")
    said += _whose(first)
    said += _own_effect(first)
    if first.lost or first.foreign:
        return "loading", (*said, "its parameters differ from the checkpoint: the loading changed")
    moved = [figures for figures in (first.effect, first.input) if figures is not None and beyond(figures)]
    if moved and elsewhere and not first.scalar_changes and not _base_changed(evidence):
        count = many(len(elsewhere), "tensor is", "tensors are")
        return "loading", (*said, f"{count} missing from the model: {enumerated(elsewhere, 3)}: the loading changed")
    if first.effect is not None and beyond(first.effect):
        changes = f" ({', '.join(first.scalar_changes)})" if first.scalar_changes else ""
        not_loading = "" if now.missing() else ", not the loading"
        return "computation", (*said, f"the computation changed{changes}{not_loading}")
    if first.input is not None and beyond(first.input):
        change = "the base changed before it" if _base_changed(evidence) else "an earlier part of the model changed"
        return "base", (*said, f"its input differs already: {change}")
    if first.base_changed:
        return "loading", (*said, f"loading changed weights of the base inside it: {', '.join(first.base_changed[:3])}")
    return "base layer", (*said, "its adapter adds the same: the base's own layer inside it changed")


def _nothing_differs(evidence: Evidence, now: Observed) -> tuple[Doing, tuple[str, ...]]:
    output_differs = any(beyond(f) for f in evidence.figures("forward"))
    if (missing := now.missing()) and output_differs:
        keys = ", ".join(missing[:4])
        return "loading", ("no layer differs", f"but tensors of the checkpoint are missing from the model: {keys}")
    if evidence.reference_agrees("base") is False:
        said = "the values of its quantised weights changed by less than the rounding of its kernels"
        return "base", ("no layer differs by more than rounding explains", f"the base changed: {said}")
    if output_differs:
        return "base", ("no observed layer differs", "the output does: something after the last observed layer changed")
    return "afterwards", (
        "no layer differs: the loaded adapter computes the same",
        "the deviation is in what happens after loading, or is not a number",
    )


def _in_block(
    first: Layer, now: Observed, said: list[str], elsewhere: tuple[str, ...]
) -> tuple[Doing, tuple[str, ...]]:
    lost = [*(key for key in now.missing() if _within(key, first.name)), *elsewhere]
    said.append(f"it is a block of the base; its output {_agreement(first.output)}" if first.output else "")
    said.append("all adapter layers up to its end agree")
    if lost:
        return "loading", (*said, f"missing from the model: {', '.join(lost[:4])}: the loading changed")
    return "base", (*said, "the base changed inside it")


def _whose(first: Layer) -> list[str]:
    said = []
    if first.parameters and not first.foreign and not first.lost:
        from_checkpoint = [p for p in first.parameters if p.key]
        if from_checkpoint:
            said.append(f"its {len(from_checkpoint)} parameters equal the checkpoint's")
    said += [f"{key} is missing from the model" for key in first.lost[:3]]
    said += [str(parameter) for parameter in first.foreign[:3]]
    return said


def _own_effect(first: Layer) -> list[str]:
    if first.effect is None:
        return ["its own effect could not be computed separately"]
    return [f"its own effect, computed from the stored input, {_agreement(first.effect)}"]


def _agreement(figures: Figures) -> str:
    if beyond(figures):
        return f"differs by {figures.max_abs:.2g} (allowance {figures.allowance:.1g})"
    return f"agrees ({figures.max_abs:.2g} ≤ {figures.allowance:.1g})"


def _base_changed(evidence: Evidence) -> bool:
    return any(beyond(f) for f in evidence.figures("base") if "/disabled." not in f.array)
