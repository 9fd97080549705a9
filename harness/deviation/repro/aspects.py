"""What a script shows: for each finding of a cell, a few lines that compute what differs (pure).

A cell's findings are asked in the order of their weight, so that the first aspect is the one that a maintainer wants;
the further ones are tried where the first does not show outside of this project.
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
from harness.deviation.repro.doorways import DOORWAYS
from harness.deviation.repro.loading import Loading
from harness.deviation.repro.measures import Shown
from harness.deviation.repro.operations import OPERATIONS
from harness.deviation.repro.python_text import Part, joined, part
from harness.deviation.repro.subject import Subject
from harness.judge import causes
from harness.worker.shared import LOAD_PATH, LOAD_PATHS, PROBES

SURE = 10.0
"""How many times its allowance a float32 difference is at least to be shown in float32: less could be the machine's own
rounding, which a user's process does not pin."""

UNMEASURED = 1e-4
"""How far outputs may be apart where no finding says what they may."""

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
"""Kinds of findings that are about something else than numbers → what measures them."""


@dataclass(frozen=True)
class Aspect:
    """One thing that the scripts show.

    Attributes:
        title: what is compared, for a reader: `the output, merged less unmerged`.
        before: what `before.py` does once things are loaded, up to `results`.
        after: likewise.
        bound: how far tensors in `results` may be apart.
        raises: the type of the exception with which `after.py` is to end; empty where it compares.
        double: everything in float64.
        grads: gradients are needed.
        finding: what it shows of the cell.
        dies: the process of `after.py` is to die, or not to end.
        compares: what is in `results`: tensors, plain values, or some of each.
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
    """The aspects of a cell, the most telling first; at least one."""
    if cell.verdict in (Verdict.CRASH, Verdict.TIMEOUT):
        yield _everything(subject)
        return
    told: set[tuple[str, str]] = set()
    for finding in sorted(cell.findings, key=causes.importance):
        for aspect in _of(finding, cell, subject):
            key = (aspect.title, str(aspect.double))
            if key not in told:
                told.add(key)
                yield replace(aspect, finding=finding)
    if not cell.findings and cell.error is not None:
        yield _raising("load", cell.error.type, subject)


def _of(finding: Finding, cell: Cell, subject: Subject) -> Iterator[Aspect]:
    probe, kind = finding.probe, finding.kind
    if causes.is_error(finding) or kind == "probe-lost":
        yield _raising(probe, finding.error_type, subject)
    elif probe.startswith(LOAD_PATH) and probe.removeprefix(LOAD_PATH) in DOORWAYS:
        yield from _through_door(finding, cell, subject)
    elif kind in _STRUCTURE and (shown := _STRUCTURE[kind](finding, cell, subject)):
        yield _shown(shown, cell)
    if kind in ("lost-tensors", "layers-missing", "new-warning", "structure-steps"):
        return
    if probe in ("forward", "layers") and kind == "values":
        yield from _outputs("the outputs", probe, finding, cell, subject, measures.outputs)
        if probe == "layers":
            yield from _outputs(f"what {finding.subject} puts out", probe, finding, cell, subject,
                                measures.layer_output(finding.subject))  # fmt: skip
    elif probe == "base":
        about, measure = ("the base's own outputs", measures.base_outputs)
        if kind == "disabled-differs":
            about, measure = "the outputs with the adapter disabled, less the base's", measures.disabled
        yield from _outputs(about, probe, finding, cell, subject, measure)
    elif probe == "gradients" and kind == "values":
        yield from _outputs("the gradients", probe, finding, cell, subject, measures.gradients)
    elif probe == "generate":
        yield replace(_aspect("the generated tokens", subject, measures.generated), compares="facts")
    elif probe in OPERATIONS and not causes.is_error(finding):
        about = f"the outputs {PROBES[probe].state}, less those of {'the base' if probe == 'unloaded' else 'before'}"
        about = f"the outputs of {PROBES[probe].state}" if probe == "fresh" else about
        yield from _outputs(about, probe, finding, cell, subject, measures.after(probe))


def _outputs(about: str, probe: str, finding: Finding, cell: Cell, subject: Subject, measure: measures.Measure
             ) -> Iterator[Aspect]:  # fmt: skip
    """In the precision that shows it best, then in the other one."""
    every = [*([finding.figures] if finding.figures else []), *_figures(cell, probe)]
    if probe == "layers":  # of the outputs, where they have figures
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
    """Half way, by powers of ten, from what rounding explains to what was seen."""
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
    """The same calls, which raise."""
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
        case _ if probe.removeprefix(LOAD_PATH) in DOORWAYS:
            return _door(probe)
    return measures.outputs


def _door(probe: str) -> measures.Measure:
    doorway = DOORWAYS[probe.removeprefix(LOAD_PATH)]

    def measure(loading: Loading) -> Part:
        task = str(loading.side.scenario["adapter"]["args"].get("task_type", ""))
        return joined([doorway(loading, task), part("results = outputs(model)")])

    return measure


def _through_door(finding: Finding, cell: Cell, subject: Subject) -> Iterator[Aspect]:
    """What comes out of it, against what `PeftModel.from_pretrained` gave with the libraries that saved it."""
    figures = [f for f in [finding.figures, *_figures(cell, finding.probe)] if f is not None]
    best = _best(figures, "float32")
    through = _aspect("", subject, _door(finding.probe))
    if finding.kind.endswith("lost-tensors"):
        shown = measures.arrived(finding, cell, subject, _door(finding.probe))
        if shown:
            yield _shown(shown, cell)
    before = measures.outputs(Loading(subject.before, subject))
    title = f"the outputs, loaded with {_through(finding.probe)}"
    yield replace(through, title=title, before=before, bound=_bound(best) if best else UNMEASURED)


def _through(probe: str) -> str:
    name = probe.removeprefix(LOAD_PATH)
    return LOAD_PATHS.get(name, name)


def _everything(subject: Subject) -> Aspect:
    """Running and merging, where the process died and nobody knows on what."""

    def measure(loading: Loading) -> Part:
        return joined([
            loading.load(), part("results = outputs(model)"),
            part("if hasattr(model, 'merge_and_unload'):", "    outputs(model.merge_and_unload())"),
        ])  # fmt: skip

    return replace(_aspect("loading, running and merging", subject, measure), dies=True)


def words(title: str) -> str:
    """A title without code marks, for a comment."""
    return re.sub("`", "", title)
