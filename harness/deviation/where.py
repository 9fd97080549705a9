"""Where a deviation starts: the first layer that differs, and why (pure).

Compares a golden with a trace. For the first layer that differs three questions decide, in this order: Does its input
differ already? Do its parameters equal the checkpoint's? Does its own effect, computed from the golden's input, differ?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from harness.core.model import Model
from harness.core.observation import Observed
from harness.core.run import Cell, Figures, Finding
from harness.core.text import enumerated, many
from harness.deviation import where_base
from harness.deviation.where_base import Base, BaseModule
from harness.deviation.where_layers import Layer, Layers, belongs
from harness.judge import standard, twins
from harness.judge.evidence import Evidence
from harness.judge.numbers import beyond
from harness.judge.renaming import within
from harness.worker.shared import LOAD_PATH

FORMAT = 2
"""Format of the file that is kept beside a run. Raise it when an older reader would misread the file."""

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
    base: BaseModule | None = None
    """The first module of the bare base whose output differs, if the base moved."""
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
    judged_by = standard.of(golden, now)
    if judged_by.lacks_reload:  # the golden's layers are of a wrong reload, and prove nothing
        golden = judged_by.golden
    rows = [str(name) for name, _ in golden.fact("forward", "sketch") or []]
    base = where_base.compare(rows, now, creators, bool(golden.facts.get("kernel_spread")))
    layers = Layers(golden, now, creators, base).all()
    first = next((layer for layer in layers if layer.differs), None)
    evidence = Evidence(golden, now)
    elsewhere, undecided = _elsewhere(layers, golden, now), _undecided(first, layers, base)
    doing, said = _meaning(first, evidence, now, elsewhere, undecided)
    if first is not None and doing == "computation" and _moves_with_base(cell):
        # the judge ran the layers on the stored weights of the base
        doing, said = (
            "base",
            (
                *said[:-1],
                "its effect contains the base's weights, and their change explains the difference: the base changed",
            ),
        )
    if first is None and judged_by.lacks_reload:
        doing, said = _without_reload(cell, evidence)
    elif first is None and cell.creators_own and cell.verdict.is_deviation:
        # the layers are compared with the creator's reload, and the loader repeats it
        own = f"no layer differs from the creator's own reload, which is {cell.creators_own}"
        doing, said = "loading", (own, "the loss is in the saved file, or both libraries load it wrongly")
    if doing == "afterwards" and (by_path := _load_path(cell)):
        doing, said = by_path
    said = (*_raised(now), *said)
    moved = doing in ("base", "base layer") or _base_changed(evidence)
    update = {
        "first": first.name if first else "",
        "doing": doing,
        "said": _with_base(said, doing, base) if moved else said,
        "base": base.first if moved else None,
        "layers": layers,
    }
    return found.model_copy(update=update)


def _moves_with_base(cell: Cell) -> bool:
    return any(finding.probe == "layers" and finding.kind == "base-moved" for finding in cell.findings)


def _without_reload(cell: Cell, evidence: Evidence) -> tuple[Doing, tuple[str, ...]]:
    """The conclusion if no parameter differs, and the layers are those of a reload that this one does not repeat."""
    own = f"the layers are not compared: the creator's own reload is {cell.creators_own}"
    if any(map(beyond, evidence.figures("forward"))):
        unlike = "the output is neither that of this reload nor that of the saved adapter"
        return "loading", (own, unlike, "all parameters that arrived equal the checkpoint's: the saved file lacks some")
    agrees = "the loaded adapter computes what it computed when it was saved"
    after = ("the deviation is in what happens after loading",) if cell.verdict.is_deviation else ()
    return "afterwards", (own, agrees, *after)


def _raised(now: Observed) -> tuple[str, ...]:
    """That the model does not run, so that no output of a layer is known; empty if it does."""
    error = now.probes.get("forward", {}).get("float32", {}).get("error") or {}
    return (f"the model loads, but does not run: {error.get('type')}: {error.get('message')}",) if error else ()


def _with_base(said: tuple[str, ...], doing: Doing, base: Base) -> tuple[str, ...]:
    """The reasoning, with where the base moved; the conclusion stays last."""
    return (*said, *base.said) if doing in ("base", "base layer") else (*said[:-1], *base.said, *said[-1:])


def smallest(findings: Iterable[Finding]) -> tuple[str, str]:
    """The cheapest probe that shows the deviation, and its message; empty if there are no findings."""
    order = list(COSTS)
    deviating = [f for f in findings if f.verdict.is_deviation or f.kind == "new-warning"]
    cheapest = min(deviating, key=lambda f: order.index(f.probe) if f.probe in order else len(order), default=None)
    return (cheapest.probe, cheapest.message) if cheapest else ("", "")


def _load_path(cell: Cell) -> tuple[Doing, tuple[str, ...]] | None:
    """The conclusion if only other load paths than `PeftModel.from_pretrained` deviate; None if not."""
    deviating = [finding for finding in cell.findings if finding.verdict.is_deviation]
    if not deviating or not all(finding.probe.startswith(LOAD_PATH) for finding in deviating):
        return None
    names = enumerated(dict.fromkeys(finding.probe.removeprefix(LOAD_PATH) for finding in deviating), 4)
    lost = next((finding for finding in deviating if finding.kind.endswith("lost-tensors")), deviating[0])
    said = f"other load paths deviate ({names}): {lost.message}"
    return "loading", ("loaded by PeftModel.from_pretrained, no layer differs", said)


def _undecided(first: Layer | None, layers: Iterable[Layer], base: Base) -> set[str]:
    """Tensors whose values may be fused: their absence explains nothing if the base changed in the same block."""
    if first is None or base.first is None or not within(base.first.name, first.name):
        return set()
    return {key for layer in layers for key in layer.undecided}


def _elsewhere(layers: Iterable[Layer], golden: Observed, now: Observed) -> tuple[str, ...]:
    """Tensors of the checkpoint that are lost and belong to no observed layer: all layers may share them."""
    names = [layer.name for layer in layers if layer.kind == "adapter"]
    lost = sorted({*now.missing(), *twins.lost(golden, now)} - set(golden.missing()))
    return tuple(key for key in lost if not any(belongs(key, name) for name in names))


def _meaning(
    first: Layer | None, evidence: Evidence, now: Observed, elsewhere: tuple[str, ...], undecided: set[str]
) -> tuple[Doing, tuple[str, ...]]:
    """What caused the difference, and why we think so.

    Args:
        elsewhere: tensors that are lost and belong to no observed layer.
        undecided: tensors whose absence explains nothing.
    """
    if first is None:
        return _nothing_differs(evidence, now)
    said = [f"{first.name} is the first layer that differs, in execution order"]
    if first.kind == "block":
        own = [key for key in now.missing() if belongs(key, first.name) and key not in undecided]
        return _in_block(first, [*own, *(() if _base_changed(evidence) else elsewhere)], said)
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


def _in_block(first: Layer, lost: list[str], said: list[str]) -> tuple[Doing, tuple[str, ...]]:
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
            equal = "parameter equals" if len(from_checkpoint) == 1 else "parameters equal"
            said.append(f"its {len(from_checkpoint)} {equal} the checkpoint's")
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
