"""What the scripts show: for each finding of a cell, a few lines that compute what differs (pure).

The most important finding comes first. The others are tried if the scripts for the first do not show the deviation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from harness.core.run import Cell, Figures, Finding
from harness.core.verdict import Verdict
from harness.deviation.repro import measures
from harness.deviation.repro.load_paths import CALLS
from harness.deviation.repro.loading import Loading
from harness.deviation.repro.measures import Shown
from harness.deviation.repro.operations import OPERATIONS
from harness.deviation.repro.python_text import Part, joined, part
from harness.deviation.repro.subject import Subject
from harness.judge import causes
from harness.worker.shared import LOAD_PATH, LOAD_PATHS, PROBES

SURE = 10.0
"""A float32 difference below this multiple of its allowance is shown in float64: it could be rounding, because the
numerics of a user's process are not pinned."""

UNMEASURED = 1e-4
"""The bound for outputs if no finding has figures."""

_STRUCTURE = {
    "tie-broken": measures.ties,
    "base-weights": measures.weights,
    "trainability": measures.trainable,
    "dtype": measures.dtypes,
    "shape": measures.shapes,
    "gradients-missing": measures.gradient_names,
    "roundtrip-keys": measures.keys_kept,
    "roundtrip-tensors": measures.tensors_kept,
    "config": measures.config_kept,
    "structure-steps": measures.steps,
    "new-warning": measures.warned,
    "train-mode": measures.dropout,
    "no-switch": measures.switching,
    "lost-tensors": measures.arrived,
}
"""Kinds of findings that are not about numbers → the function that shows them."""


@dataclass(frozen=True)
class Aspect:
    """One thing that the scripts show.

    Attributes:
        title: what is compared, for a reader.
        before: the lines of `before.py` that compute `results`.
        after: likewise for `after.py`.
        bound: greatest difference of tensors in `results` that is not a deviation.
        raises: the type of the exception that ends `after.py`; empty if it compares.
        double: compute in float64.
        grads: gradients are needed.
        dies: the process of `after.py` dies or hangs.
        finding: the finding that it shows.
        compares: the content of `results`: tensors, plain values, or both.
    """

    title: str
    before: Part
    after: Part
    bound: float = UNMEASURED
    raises: str = ""
    double: bool = False
    grads: bool = False
    dies: bool = False
    finding: Finding | None = None
    compares: Literal["numbers", "facts", "both"] = "numbers"


def candidates(cell: Cell, subject: Subject) -> Iterator[Aspect]:
    """The aspects of a cell, the most important first. None if scripts cannot show its findings."""
    if cell.verdict in (Verdict.CRASH, Verdict.TIMEOUT):
        yield _everything(subject)
        return
    seen: set[tuple[str, str]] = set()
    for finding in sorted(cell.findings, key=causes.importance):
        for aspect in _of(finding, cell, subject):
            key = (aspect.title, str(aspect.double))
            if key not in seen:
                seen.add(key)
                yield replace(aspect, finding=finding)
    if not cell.findings and cell.error is not None:
        yield _raising("load", cell.error.type, subject)


def _of(finding: Finding, cell: Cell, subject: Subject) -> Iterator[Aspect]:
    probe, kind = finding.probe, finding.kind
    if probe.startswith(LOAD_PATH) and probe.removeprefix(LOAD_PATH) not in CALLS:
        return
    if causes.is_error(finding) or kind == "probe-lost":
        yield _raising(probe, finding.error_type, subject)
    elif probe.startswith(LOAD_PATH):
        yield from _other_load_path(finding, cell, subject)
    elif kind in _STRUCTURE and (shown := _STRUCTURE[kind](finding, cell, subject)):
        yield _shown(shown, cell)
    if kind in ("lost-tensors", "layers-missing", "new-warning", "structure-steps"):
        return
    if probe in ("forward", "layers") and kind == "values":
        yield from _outputs("the outputs", probe, finding, cell, subject, measures.outputs)
        if probe == "layers":
            yield from _outputs(f"the outputs of {finding.subject}", probe, finding, cell, subject,
                                measures.layer_output(finding.subject))  # fmt: skip
    elif probe == "base":
        about, measure = ("the base's own outputs", measures.base_outputs)
        if kind == "disabled-differs":
            about, measure = "the outputs with the adapter disabled, minus those of the base", measures.disabled
        yield from _outputs(about, probe, finding, cell, subject, measure)
    elif probe == "gradients" and kind == "values":
        yield from _outputs("the gradients", probe, finding, cell, subject, measures.gradients)
    elif probe == "generate":
        yield replace(_aspect("the generated tokens", subject, measures.generated), compares="facts")
    elif probe in OPERATIONS and not causes.is_error(finding):
        about = f"the outputs {PROBES[probe].state}, minus those {'of the base' if probe == 'unloaded' else 'before'}"
        about = f"the outputs of {PROBES[probe].state}" if probe == "fresh" else about
        yield from _outputs(about, probe, finding, cell, subject, measures.after(probe))


def _outputs(about: str, probe: str, finding: Finding, cell: Cell, subject: Subject, measure: measures.Measure
             ) -> Iterator[Aspect]:  # fmt: skip
    """Aspects in both precisions; the one that shows the deviation best comes first."""
    every = [*([finding.figures] if finding.figures else []), *_figures(cell, probe)]
    if probe == "layers":  # the scripts compare outputs
        every = _figures(cell, "forward") or every
    narrow, wide = (_best(every, precision) for precision in ("float32", "float64"))
    order = [(False, narrow), (True, wide)]
    if wide is not None and (narrow is None or narrow.ratio < SURE < wide.ratio):
        order.reverse()
    for double, figures in order:
        if figures is not None:
            aspect = _aspect(about, subject, measure, double=double, grads=probe == "gradients")
            yield replace(aspect, bound=_bound(figures))
    if narrow is None and wide is None:
        yield _aspect(about, subject, measure, grads=probe == "gradients")


def _figures(cell: Cell, probe: str) -> list[Figures]:
    return list(cell.probes[probe].figures) if probe in cell.probes else []


def _best(every: list[Figures], precision: str) -> Figures | None:
    found = [f for f in every if f"/{precision}/" in f.array and f.max_abs > f.allowance]
    return max(found, key=lambda figures: figures.ratio, default=None)


def _bound(figures: Figures) -> float:
    """The geometric mean of the allowance and the observed difference."""
    least = max(figures.allowance, 1e-30)
    seen = figures.max_abs if math.isfinite(figures.max_abs) else max(figures.scale, 1.0)
    if figures.allowance == 0 and seen >= 1:
        return 0.5  # whole numbers
    return float(f"{math.sqrt(least * seen):.0e}") if seen > least else UNMEASURED


def _aspect(
    about: str, subject: Subject, measure: measures.Measure, double: bool = False, grads: bool = False
) -> Aspect:
    before, after = (measure(Loading(side, subject, double)) for side in (subject.before, subject.after))
    return Aspect(about, before, after, double=double, grads=grads)


def _shown(shown: Shown, cell: Cell) -> Aspect:
    figures = _best(_figures(cell, "forward"), "float32")
    bound = _bound(figures) if figures else UNMEASURED
    return Aspect(shown.title, shown.before, shown.after, bound, compares="both" if shown.with_outputs else "facts")


def _raising(probe: str, error: str, subject: Subject) -> Aspect:
    """The calls that raise."""
    state = PROBES[probe].state if probe in PROBES else ""
    aspect = _aspect(f"{state or 'loading'}: it raises", subject, _calls(probe), grads=probe == "gradients")
    if probe.startswith(LOAD_PATH):
        plain = measures.outputs(Loading(subject.before, subject))
        aspect = replace(aspect, before=plain, title=f"{_through(probe)}: it raises")
    return replace(aspect, raises=error or "AttributeError")


def _calls(probe: str) -> measures.Measure:
    match probe:
        case "load" | "forward" | "layers" | "accounting":
            return measures.outputs
        case "base":
            return measures.disabled
        case "structure":
            return lambda loading: loading.load(is_trainable=True).then(part("results = outputs(model)"))
        case "train":
            return measures.dropout_of
        case "gradients":
            return measures.gradients
        case "generate":
            return measures.generated
        case _ if probe in OPERATIONS:
            return measures.after(probe)
        case _ if probe.startswith(LOAD_PATH):
            return _loaded_by(probe)
    return measures.outputs


def _loaded_by(probe: str) -> measures.Measure:
    lines = CALLS[probe.removeprefix(LOAD_PATH)]

    def measure(loading: Loading) -> Part:
        task = str(loading.side.scenario["adapter"]["args"].get("task_type", ""))
        return joined([lines(loading, task), part("results = outputs(model)")])

    return measure


def _other_load_path(finding: Finding, cell: Cell, subject: Subject) -> Iterator[Aspect]:
    """Another load path, compared with `PeftModel.from_pretrained` in the libraries that saved the adapter."""
    figures = [f for f in [finding.figures, *_figures(cell, finding.probe)] if f is not None]
    best = _best(figures, "float32")
    through = _aspect("", subject, _loaded_by(finding.probe))
    if finding.kind.endswith("lost-tensors"):
        shown = measures.arrived(finding, cell, subject, _loaded_by(finding.probe))
        if shown:
            yield _shown(shown, cell)
    before = measures.outputs(Loading(subject.before, subject))
    title = f"the outputs, loaded with {_through(finding.probe)}"
    yield replace(through, title=title, before=before, bound=_bound(best) if best else UNMEASURED)


def _through(probe: str) -> str:
    name = probe.removeprefix(LOAD_PATH)
    return LOAD_PATHS.get(name, name)


def _everything(subject: Subject) -> Aspect:
    """Loading, running and merging: the process died, and it is unknown in which call."""

    def measure(loading: Loading) -> Part:
        return joined([
            loading.load(), part("results = outputs(model)"),
            part("if hasattr(model, 'merge_and_unload'):", "    outputs(model.merge_and_unload())"),
        ])  # fmt: skip

    return replace(_aspect("loading, running and merging", subject, measure), dies=True)


def words(title: str) -> str:
    """A title without backticks, for a docstring."""
    return re.sub("`", "", title)
