"""What the HTML page's script needs of a run: an index of all cells, and the details of each cell.

The index is plain JSON, so that the map and its filters work at once. The details are gzipped JSON in chunks of cells,
which the browser unpacks (`DecompressionStream`) when a cell is opened.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.core.run import Cell, ErrorReport, Figures, ProbeResult, Run
from harness.core.run_file import strict
from harness.core.text import exactly, one_line, tail, visible, visible_lines
from harness.core.verdict import Verdict
from harness.core.versions import FIRST_PACKAGES
from harness.judge import causes, size
from harness.report import cell_facts, labels, summary

CHUNK = 200
"""Cells whose details are unpacked together."""
_TAIL_LINES = 40
_PROBE = re.compile(r"([a-z_]+): (.+)", re.DOTALL)
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Data:
    """What is embedded in script elements."""

    index: str
    """JSON: what map, filters and tips need of all cells."""
    chunks: tuple[str, ...]
    """Gzipped JSON as base64: the details of `CHUNK` cells each."""


def build(run: Run) -> Data:
    """All that the script needs of a run."""
    details = [_json(detail(cell, run)) for cell in run.cells]
    chunks = (f"[{','.join(details[start : start + CHUNK])}]" for start in range(0, len(details), CHUNK))
    return Data(embedded(index(run)), tuple(map(_packed, chunks)))


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def embedded(value: Any) -> str:
    """ASCII JSON that cannot end its script element."""
    return _strict(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _strict(value: Any) -> str:
    return _ENCODER.encode(strict(value, _shown))


def _shown(text: str) -> str:
    """The text without invisible characters."""
    return text if text.isascii() and text.isprintable() else visible_lines(text)


def _json(value: Any) -> str:
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        return _strict(value)
    return _strict(value) if "\\" in text else text  # invisible text shows as an escape


# All cells -----------------------------------------------------------------------------------------------------------


class _Words:
    """Numbers for words, in the order in which they are first seen."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.places = {word: place for place, word in enumerate(words)}

    def __call__(self, word: str) -> int:
        return self.places.setdefault(word, len(self.places))

    @property
    def all(self) -> list[str]:
        return list(self.places)


def index(run: Run) -> dict[str, Any]:
    """The columns of all cells as numbers, the words behind the numbers, and the environments."""
    cause_of = {cell.id: place + 1 for place, cause in enumerate(causes.group(run)) for cell in cause.cells}
    change_of = {comparison.cell: comparison.change for comparison in run.comparisons}
    names = ("scenario", "creator", "loader", "device", "family", "method", "verdict", "title", "issue", "change")
    words = {name: _Words() for name in names}
    words["verdict"] = _Words(str(verdict) for verdict in Verdict)
    columns: dict[str, list[int]] = {name: [] for name in names}
    for cell in run.cells:
        values = {**_words_of(cell), "change": change_of.get(cell.id, "")}
        for name in names:
            columns[name].append(words[name](values[name]))
    return {
        "columns": columns,
        "words": {name: words[name].all for name in names},
        "ratio": [_short(cell.worst_ratio) for cell in run.cells],
        "cause": [cause_of.get(cell.id, 0) for cell in run.cells],
        "expected": [int(cell.expected) for cell in run.cells],
        "ids": {place: visible(cell.id) for place, cell in enumerate(run.cells) if visible(cell.id) != _own_id(cell)},
        "letters": [verdict.letter for verdict in Verdict],
        "deviations": [str(verdict) for verdict in Verdict if verdict.is_deviation],
        "undetermined": [str(verdict) for verdict in Verdict if verdict.cannot_tell],
        "chunk": CHUNK,
        "environments": {e.name: {"python": e.python, **e.versions} for e in run.environments},
        "labels": {**labels.creator_labels(run), **labels.loader_labels(run)},
        "packages": FIRST_PACKAGES,
        "run": {"id": run.id, "created": run.created, "tool": run.tool_version},
    }


def _words_of(cell: Cell) -> dict[str, str]:
    said = "" if cell.verdict.is_clean and not cell.expected and not cell.findings else causes.title(cell)
    return {
        "scenario": visible(cell.scenario),
        "creator": visible(cell.creator),
        "loader": visible(cell.loader),
        "device": visible(cell.place),
        "family": visible(cell.family),
        "method": visible(cell.method),
        "verdict": str(cell.verdict),
        "title": one_line(said.split("\n", 1)[0], 240),
        "issue": visible(summary.reference(cell)) if cell.expected else "",
    }


def _own_id(cell: Cell) -> str:
    return visible(f"{cell.scenario}@{cell.creator}:{cell.loader}[{cell.place}]")


def _short(value: float | None) -> float | str | None:
    """Three significant digits."""
    if value is None or value == 0:
        return value
    return float(f"{value:.3g}")


# One cell ------------------------------------------------------------------------------------------------------------


def detail(cell: Cell, run: Run) -> dict[str, Any]:
    """The details of a cell; a field without content is left out."""
    figures = size.shown(cell)
    fields = {
        **(_figures(figures) if figures and figures.max_abs else {}),
        "found": _found(cell),
        "probes": [_probe(name, probe) for name, probe in cell.probes.items()],
        "layers": [[each.name, each.kind, _short(each.max_abs), _short(each.allowance)] for each in cell.layers],
        "first": cell.first_difference,
        "moved": cell_facts.moved(cell),
        "keys": _keys(cell),
        "conversion": _conversion(cell),
        "config": cell.config_differences,
        "warnings": warnings(cell.new_warnings),
        "error": _error(cell.error) if cell.error else None,
        "log": tail(cell.log_tail, _TAIL_LINES),
        "fixed": cell.fixed,
        "creator": cell.creators_own,
        "standing": cell.standing_defects,
        "notes": (*cell.notes, *([f"{said[0].upper()}{said[1:]}."] if (said := cell_facts.reused(cell)) else [])),
        "expectation": _expectation(cell) if cell.expected else None,
        "recorded": [
            [fact.label, fact.value]
            for fact in cell_facts.known_break(cell, run)[1:]
            if fact.value != cell.expectation_issue  # the page has it as the break's link
        ],
        "reason": cell.reason,
        "fixture": cell.fixture,
        "origin": cell.fixture_origin,
        "took": [round(cell.duration_s, 2), round(cell.compute_s, 2)] if cell.duration_s else None,
        "reproduce": cell.reproduce,
    }
    return {name: value for name, value in fields.items() if value}


def _figures(figures: Figures) -> dict[str, Any]:
    """The array and its sizes: difference, allowance and their quotient are None for token ids, which have none."""
    sizes = (figures.max_abs, figures.allowance, figures.ratio) if figures.is_size else (None, None, None)
    return {
        "array": [figures.array, figures.dtype],
        "shape": figures.shape,
        "size": [
            *(_short(each) for each in sizes), exactly(figures.golden), exactly(figures.now), _short(figures.scale),
            figures.elements, figures.differing,
        ],
        "at": figures.index,
        "bars": figures.histogram if figures.is_size else (),
    }  # fmt: skip


def _found(cell: Cell) -> list[list[Any]]:
    """The findings, the most important first: where, message, details, letter, verdict."""
    main = causes.main_finding(cell)
    every = sorted(cell.findings, key=lambda finding: finding is not main)
    return [
        [each.stage or each.probe, each.message, each.details, each.verdict.letter, str(each.verdict)] for each in every
    ]


def _probe(name: str, probe: ProbeResult) -> list[Any]:
    """Name, verdict, remark; then, if it has figures: array, error and allowance."""
    if probe.outcome == "skipped":
        return [name, "skipped", probe.reason]
    if probe.figures:
        worst = probe.figures[0]
        if not worst.is_size:
            return [name, str(probe.verdict), f"{worst.differing:,} of {worst.elements:,} of {worst.array} differ"]
        return [name, str(probe.verdict), probe.reason, worst.array, _short(worst.max_abs), _short(worst.allowance)]
    said = "" if probe.outcome == "ok" else f"now {probe.outcome}, golden {probe.golden_outcome}"
    return [name, str(probe.verdict), probe.reason or said]


def _keys(cell: Cell) -> list[Any] | None:
    keys = cell.keys
    return [cell_facts.arrived(keys), keys.lost, keys.undecided, keys.unexpected] if keys else None


def _conversion(cell: Cell) -> list[Any] | None:
    """For each model: its class, how many keys are renamed, of how many, the error, the scopes and some keys."""
    if cell.conversion is None:
        return None
    return [
        [view.of, view.given, view.changed, view.keys, view.error, view.conversions, view.examples, view.kept]
        for view in cell.conversion.views
    ]


def _error(error: ErrorReport) -> list[str]:
    return [error.stage, error.type, error.message, tail(error.traceback, _TAIL_LINES)]


def _expectation(cell: Cell) -> list[str]:
    return [cell.expectation, cell.expectation_issue, summary.lasts(cell), cell.expectation_reason]


def warnings(every: Iterable[str]) -> list[list[str]]:
    """Each new warning once, with the probes that gave it: `[text, "base, forward"]`."""
    found: dict[str, list[str]] = {}
    for warning in every:
        match = _PROBE.fullmatch(warning)
        text, probe = (match[2], match[1]) if match else (warning, "")
        found.setdefault(text, []).append(probe)
    return [[text, ", ".join(dict.fromkeys(probe for probe in probes if probe))] for text, probes in found.items()]
