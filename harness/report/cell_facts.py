"""One cell, fact by fact, in the order in which a maintainer asks.

What broke, how far beyond the measured allowance, where it starts, what may have caused it, how to reproduce it. Pure,
and not escaped: renderers do that.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from harness.core import key_conversion
from harness.core.run import Cell, CheckpointKeys, EnvironmentReport, Figures, Finding, LayerSketch, ProbeResult, Run
from harness.core.text import enumerated, exactly, listed, many, number, place, tail, times
from harness.core.versions import package_order
from harness.judge import causes, side_by_side, size
from harness.judge.expected import NOT_AS_KNOWN

Tone = Literal["", "bad", "good", "quiet", "block"]
"""How a value is shown: `block` is text of several lines, the others are weight and colour."""


_KEYS = 5
"""How many keys of a checkpoint are named, unless all are."""


@dataclass(frozen=True)
class Fact:
    """A label and its text."""

    label: str
    value: str
    tone: Tone = ""


def facts(cell: Cell, whole: bool = False) -> tuple[Fact, ...]:
    """The facts of a cell. Without `whole`, long lists are cut, and the rest is counted."""
    limit = sys.maxsize if whole else 4
    rows = [
        *_broke(cell, limit),
        *(Fact("not known", note, "bad") for note in cell.notes if note.startswith(NOT_AS_KNOWN)),
        *_figures(size.shown(cell), _sides(cell)),
        *_start(cell),
        Fact("moved by", moved(cell)),
        *_keys(cell.keys, limit if whole else _KEYS),
        *_conversion(cell, whole),
        *_many("config", cell.config_differences, limit),
        *_many("new warning", cell.new_warnings, limit),
        *_probes(cell),
        *_errors(cell, whole),
        Fact("creator", cell.creators_own and f"the creator's own reload is {cell.creators_own}"),
        *_fixed(cell, limit),
        *_many("standing", cell.standing_defects, limit if whole else 0),
        *_many("note", tuple(note for note in cell.notes if not note.startswith(NOT_AS_KNOWN)), limit),
        *([Fact("GPU memory", f"{cell.gpu_peak_mb:,.1f} MB at most")] if cell.gpu_peak_mb is not None else []),
        *([Fact("computed", said, "quiet")] if whole and (said := reused(cell)) else []),
        *([Fact("fixture", cell.fixture, "quiet")] if cell.fixture and whole else []),
        *([] if whole else [Fact("see more", more(cell.id), "good")]),
        Fact("reproduce", cell.reproduce, "good"),
    ]
    return tuple(row for row in rows if row.value)


def more(cell: str) -> str:
    """The command that prints everything about a cell."""
    return f"peft-regress show '{cell}'"


def known_break(cell: Cell, run: Run) -> tuple[Fact, ...]:
    """What is recorded of the known break that covers a cell; empty if none does."""
    found = run.breaks.get(cell.expectation) if cell.expected else None
    if found is None:
        return ()
    rows = [
        Fact("known break", f"{cell.expectation}: {found.title}"),
        *(Fact(label, getattr(found, label)) for label in ("since", "fixed", "verified", "workaround")),
        *_many("reference", found.references, sys.maxsize),
    ]
    return tuple(row for row in rows if row.value)


def reused(cell: Cell) -> str:
    """Whose result the cell reuses: of another creator, or of an earlier run; empty if it was replayed."""
    creator = cell.same_as.partition("@")[2].partition(":")[0]
    alike = f"result reused from {creator}, whose fixture the loader reads the same way (--each replays all)"
    when = cell.remembered[:16].replace("T", " ")
    earlier = f"remembered, computed on {when} UTC (--fresh computes it again)"
    return "; ".join([*([alike] if creator else []), *([earlier] if when else [])])


def _fixed(cell: Cell, limit: int) -> list[Fact]:
    return [Fact(each.label, each.value, "good") for each in _many("fixed", cell.fixed, limit)]


def _broke(cell: Cell, limit: int) -> list[Fact]:
    finding = causes.main_finding(cell)
    rows = [Fact("reason", cell.reason)]
    if finding is None and cell.error is not None:
        return [*rows, Fact("error", f"{cell.error.stage}: {cell.error.type}: {cell.error.message}", "bad")]
    if finding is None:
        return rows
    rows.append(Fact("found", f"{_where(finding)}: {_said(finding)}", "bad" if cell.verdict.is_deviation else ""))
    listed = {*(cell.keys.lost if cell.keys else ()), *cell.config_differences}  # each has its own label below
    rows += _many("", tuple(detail for detail in finding.details if detail not in listed), limit)
    return rows + _many("also", _also(cell, finding), limit)


def _also(cell: Cell, main: Finding) -> tuple[str, ...]:
    """The other findings; those with the same message in one line: `forward, merged: …`."""
    by_message: dict[str, list[str]] = {}
    for finding in cell.findings:
        if finding.message != main.message:
            by_message.setdefault(_said(finding), []).append(_where(finding))
    return tuple(f"{', '.join(dict.fromkeys(where))}: {said}" for said, where in by_message.items())


def _where(finding: Finding) -> str:
    return finding.stage or finding.probe


def _said(finding: Finding) -> str:
    return causes.raised(finding) if causes.is_error(finding) else finding.message


def _sides(cell: Cell) -> tuple[str, str]:
    """The words for the two sides of a cell's main difference."""
    main = causes.main_finding(cell)
    return ("baseline", "change") if main is not None and side_by_side.is_of(main) else ("golden", "now")


def _figures(figures: Figures | None, sides: tuple[str, str]) -> list[Fact]:
    if figures is None or not figures.max_abs:
        return []
    count = f"{figures.differing:,} of {figures.elements:,} of {figures.array}"
    at = f" at {place(figures.index)}" if figures.index else ""
    before, now = sides
    values = f"{before} {exactly(figures.golden)}, {now} {exactly(figures.now)}"
    if not figures.is_size:
        return [Fact("elements", f"{count} differ"), Fact("first", f"{values}{at}")]
    rows = [Fact("elements", f"{count} beyond the allowance")]
    how_far = f"|Δ| {number(figures.max_abs)}{at}, allowance {number(figures.allowance)}, so {times(figures.ratio)}"
    rows.append(Fact("greatest", how_far))
    if figures.golden is not None or figures.now is not None:
        scale = f" ({before}'s RMS {number(figures.scale)})" if figures.scale else ""
        rows.append(Fact("values", f"{values}{scale}"))
    return rows


def _start(cell: Cell) -> list[Fact]:
    if not cell.first_difference:
        return []
    layer = next((layer for layer in cell.layers if layer.name == cell.first_difference), None)
    if layer is None:
        return [Fact("starts at", cell.first_difference)]
    size = f"|Δ| {number(layer.max_abs)}, allowance {number(layer.allowance)}"
    return [Fact("starts at", f"{cell.first_difference} ({layer.kind}), {size}")]


def moved(cell: Cell) -> str:
    """How far the adapter's own effect and the base moved, each alone; empty if neither was measured."""
    if cell.adapter_delta is None and cell.base_delta is None:
        return ""
    base = f"base model {number(cell.base_delta)}"
    if cell.adapter_delta is not None:
        return f"adapter's effect {number(cell.adapter_delta)}, {base}"
    layers = cell.probes.get("layers")
    return f"adapter's effect not measured{' in full' if layers and layers.figures else ''}, {base}"


def arrived(keys: CheckpointKeys) -> str:
    """How many tensors of the checkpoint arrived, by each load path that lost some."""
    total = keys.total - keys.constant
    said = f"{keys.arrived:,} of {many(total, 'tensor')} arrived"
    if keys.lost_by:
        said += " by PeftModel.from_pretrained"
        said += "".join(f", {keys.arrived - len(lost):,} by {path}" for path, lost in keys.lost_by.items())
    rest = total - keys.arrived - len(keys.lost) - len(keys.undecided)
    also = [f"{keys.constant:,} of one value each can't be recognised" if keys.constant else ""]
    also += [f"{rest:,} did not for the creator either" if rest > 0 else ""]
    return said + (f" ({listed(also)})" if any(also) else "")


def _keys(keys: CheckpointKeys | None, limit: int) -> list[Fact]:
    if keys is None:
        return []
    rows = [Fact("checkpoint", arrived(keys), "bad" if keys.lost or keys.lost_by else "")]
    parts = (("never arrived", keys.lost), ("undecided", keys.undecided), ("unexpected", keys.unexpected))
    for label, names in parts:
        if names:
            rows.append(Fact(label, f"{len(names):,}: {enumerated(names, limit)}"))
    return rows


def _conversion(cell: Cell, whole: bool) -> list[Fact]:
    """How names are converted, for each model that can be asked. Shown for deviations and differences only."""
    if cell.conversion is None or not (whole or cell.verdict.is_deviation or cell.conversion.differs):
        return []
    rows = [Fact("conversion", "keys that Transformers renames, by model", "quiet")]
    return rows + [Fact("", f"{of}: {said}") for of, said in key_conversion.rows(cell.conversion)]


def _probes(cell: Cell) -> list[Fact]:
    """All probes in one line: by verdict, worst first, skipped ones last."""
    groups: dict[str, list[str]] = {}
    for name, probe in sorted(
        cell.probes.items(), key=lambda item: (item[1].outcome == "skipped", item[1].verdict.severity)
    ):
        groups.setdefault("skipped" if probe.outcome == "skipped" else str(probe.verdict), []).append(name)
    return [Fact("probes", "; ".join(f"{word}: {', '.join(names)}" for word, names in groups.items()))]


def _errors(cell: Cell, whole: bool) -> list[Fact]:
    traceback = cell.error.traceback if cell.error else ""
    lines = sys.maxsize if whole else 4
    rows = (
        [Fact("traceback", tail(traceback, lines), "block")]
        if traceback and (whole or cell.verdict.is_deviation)
        else []
    )
    if cell.log_tail and (whole or not traceback):
        rows.append(Fact("log", tail(cell.log_tail, lines), "block"))
    return rows


def _many(label: str, values: tuple[str, ...], limit: int) -> list[Fact]:
    rows = [Fact(label if place == 0 else "", value) for place, value in enumerate(values[:limit])]
    if len(values) > limit:
        rows.append(Fact("" if rows else label, f"{len(values) - limit:,}{' more' if rows else ''} (see `show`)"))
    return rows


def probe_rows(cell: Cell) -> list[tuple[str, str, str, str, str, str]]:
    """One row per probe: name, verdict, array, error, allowance, error ÷ allowance; or why it was skipped."""
    return [_probe_row(name, probe) for name, probe in cell.probes.items()]


def _probe_row(name: str, probe: ProbeResult) -> tuple[str, str, str, str, str, str]:
    verdict = str(probe.verdict) if probe.outcome != "skipped" else "skipped"
    if not probe.figures:
        if probe.outcome == "ok":
            return (name, verdict, probe.reason, "", "", "")
        said = f"now {probe.outcome}, golden {probe.golden_outcome}"
        return (name, verdict, probe.reason or said, "", "", "")
    worst = probe.figures[0]
    if not worst.is_size:
        return (name, verdict, worst.array, f"{worst.differing:,} differ" if worst.differing else "0", "", "")
    return (name, verdict, worst.array, number(worst.max_abs), number(worst.allowance), times(worst.ratio))


def layer_rows(cell: Cell) -> list[tuple[str, str, str, str, str]]:
    """One row per layer in execution order: name, kind, error, allowance, error ÷ allowance."""
    return [
        (layer.name, layer.kind, number(layer.max_abs), number(layer.allowance), times(_layer_ratio(layer)))
        for layer in cell.layers
    ]


def _layer_ratio(layer: LayerSketch) -> float:
    if layer.max_abs == 0:
        return 0.0
    return layer.max_abs / layer.allowance if layer.allowance > 0 else float("inf")


def package_rows(run: Run, cell: Cell) -> list[tuple[str, str, str]]:
    """The packages that differ between a cell's environments: name, version of the creator, version of the loader."""
    known = {environment.name: environment for environment in run.environments}
    before, now = _packages(known.get(cell.creator)), _packages(known.get(cell.loader))
    differing = [name for name in {*before, *now} if before.get(name) != now.get(name)]
    return [(name, before.get(name, "–"), now.get(name, "–")) for name in sorted(differing, key=package_order)]


def _packages(environment: EnvironmentReport | None) -> dict[str, str]:
    if environment is None:
        return {}
    return environment.versions | ({"python": environment.python} if environment.python else {})
