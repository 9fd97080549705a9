"""What the HTML page's script needs of a run, compactly: columns of small numbers, and details that share their values.

A cell's details are a row of fields. A value that several cells have stands once in a table and is a number in the row;
a value of its own stands in the row, in brackets; 0 is none. Rows come in chunks, read when a cell is opened.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.run import Cell, ErrorReport, Figures, ProbeResult, Run
from harness.core.text import exactly, one_line, tail, visible, visible_lines
from harness.core.verdict import Verdict
from harness.core.versions import FIRST_PACKAGES
from harness.judge import causes
from harness.report import cell_facts, labels

CHUNK = 200
"""Cells whose details are read together."""
_TAIL_LINES = 40
_OWN_ID = "\x01"
"""Stands for the cell's id in its line to reproduce, so that the lines of many cells are one value. No text that was
made visible has this character."""
_PROBE = re.compile(r"([a-z_]+): (.+)", re.DOTALL)
_CACHED = 5
"""A value shorter than this in JSON is not worth a place in the table."""

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

FIELDS = (
    "found", "array", "shape", "size", "at", "bars", "probes", "probeSizes", "layers", "layerSizes", "first", "moved",
    "keys", "conversion", "config", "warnings", "error", "log", "standing", "notes", "expectation", "reason", "fixture",
    "origin", "took", "reproduce",
)  # fmt: skip
"""The fields of a cell's details, in the order of the row; see `detail`."""


@dataclass(frozen=True)
class Data:
    """What is embedded, as JSON that is safe in a script element."""

    index: str
    """What the map, the filters and the tips need of all cells."""
    shared: str
    """The table of values that several cells have."""
    chunks: tuple[str, ...]


def build(run: Run) -> Data:
    """All that the script needs of a run."""
    rows, shared = pack([detail(cell) for cell in run.cells])
    chunks = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    return Data(embedded(index(run)), _joined(shared), tuple(_joined(chunk) for chunk in chunks))


def embedded(value: Any) -> str:
    """JSON that nothing in it can end the script element of, and that is plain ASCII."""
    return _harmless(_ENCODER.encode(_portable(value)))


def _harmless(text: str) -> str:
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _joined(items: Iterable[str]) -> str:
    return _harmless(f"[{','.join(items)}]")


def _portable(value: Any) -> Any:
    """Text in which all is seen, and numbers that JSON has."""
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else visible_lines(value)
    if isinstance(value, Mapping):
        return {_portable(key): _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def pack(details: Sequence[Sequence[Any]]) -> tuple[list[str], list[str]]:
    """The rows and the table of shared values, each item as JSON; place 0 of the table is `null`."""
    texts = [[_text(value) for value in row] for row in details]
    counts = Counter(text for row in texts for text in row)
    places = {"": 0}
    for text, count in counts.items():
        if text and count > 1 and len(text) >= _CACHED:
            places[text] = len(places)
    rows = [f"[{','.join(str(places[text]) if text in places else f'[{text}]' for text in row)}]" for row in texts]
    return rows, ["null", *list(places)[1:]]


def _text(value: Any) -> str:
    """A value as JSON; nothing for one that says nothing."""
    if value in (None, "", [], ()):
        return ""
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        text = "\\"
    # Text that has to be made visible first shows as an escape, and most has none.
    return _ENCODER.encode(_portable(value)) if "\\" in text else text


# All cells -----------------------------------------------------------------------------------------------------------


class _Words:
    """Words by number, in the order in which they were first seen."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.places = {word: place for place, word in enumerate(words)}

    def __call__(self, word: str) -> int:
        return self.places.setdefault(word, len(self.places))

    @property
    def all(self) -> list[str]:
        return list(self.places)


def index(run: Run) -> dict[str, Any]:
    """The columns of all cells, the words that they point to, and the environments."""
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
        "fields": FIELDS,
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
        "issue": visible(f"{cell.expectation_issue} until {cell.expectation_expires}") if cell.expected else "",
    }


def _own_id(cell: Cell) -> str:
    return visible(f"{cell.scenario}@{cell.creator}:{cell.loader}[{cell.place}]")


def _short(value: float | None) -> float | str | None:
    """Three significant digits."""
    if value is None or value == 0:
        return value
    return float(f"{value:.3g}")


# One cell ------------------------------------------------------------------------------------------------------------


def detail(cell: Cell) -> list[Any]:
    """The values of `FIELDS`, words apart from figures so that many cells share the words."""
    figures = cell_facts.worst_figures(cell)
    values = {
        **(_figures(figures) if figures else {}),
        "found": _found(cell),
        "probes": [_probe(name, probe) for name, probe in cell.probes.items()],
        "probeSizes": _pairs((p.figures[0].max_abs, p.figures[0].allowance) for p in cell.probes.values() if p.figures),
        "layers": [[layer.name, layer.kind] for layer in cell.layers],
        "layerSizes": _pairs((layer.max_abs, layer.allowance) for layer in cell.layers),
        "first": cell.first_difference,
        "moved": [_short(cell.adapter_delta), _short(cell.base_delta)] if cell.adapter_delta is not None else None,
        "keys": _keys(cell),
        "conversion": _conversion(cell),
        "config": cell.config_differences,
        "warnings": warnings(cell.new_warnings),
        "error": _error(cell.error) if cell.error else None,
        "log": tail(cell.log_tail, _TAIL_LINES),
        "standing": cell.standing_defects,
        "notes": (*cell.notes, *([f"{cell_facts.alike(cell).capitalize()}."] if cell.same_as else [])),
        "expectation": _expectation(cell) if cell.expected else None,
        "reason": cell.reason,
        "fixture": cell.fixture,
        "origin": cell.fixture_origin,
        "took": [round(cell.duration_s, 2), round(cell.compute_s, 2)] if cell.duration_s else None,
        "reproduce": cell.reproduce.replace(cell.id, _OWN_ID) if _OWN_ID not in cell.reproduce else cell.reproduce,
    }
    return [_marked(values[name]) if name == "reproduce" else values.get(name) for name in FIELDS]


def _marked(text: Any) -> Any:
    """The line to reproduce with `{}` for the cell's id; as `[before, after]` so that no text is taken for a mark."""
    before, mark, after = str(text).partition(_OWN_ID)
    return [before, after] if mark else [before] if before else None


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "array": [figures.array, figures.dtype],
        "shape": figures.shape,
        "size": [
            _short(figures.max_abs), _short(figures.allowance), _short(figures.ratio), exactly(figures.golden),
            exactly(figures.now), _short(figures.scale), figures.elements, figures.differing,
        ],
        "at": figures.index,
        "bars": figures.histogram,
    }  # fmt: skip


def _found(cell: Cell) -> list[list[Any]]:
    """What was found: where, the message, its details and its verdict; the most important first."""
    main = causes.main_finding(cell)
    every = sorted(cell.findings, key=lambda finding: finding is not main)
    return [
        [each.stage or each.probe, each.message, each.details, each.verdict.letter, str(each.verdict)] for each in every
    ]


def _probe(name: str, probe: ProbeResult) -> list[str]:
    """Name, verdict and what it is about; whether it has figures is told by the fourth, the array."""
    if probe.outcome == "skipped":
        return [name, "skipped", probe.reason]
    if probe.figures:
        return [name, str(probe.verdict), probe.reason, probe.figures[0].array]
    said = "" if probe.outcome == "ok" else f"now {probe.outcome}, golden {probe.golden_outcome}"
    return [name, str(probe.verdict), probe.reason or said]


def _pairs(pairs: Iterable[tuple[float, float]]) -> list[float | str | None]:
    return [_short(value) for pair in pairs for value in pair]


def _keys(cell: Cell) -> list[Any] | None:
    keys = cell.keys
    return [keys.total, keys.arrived, keys.lost, keys.undecided, keys.unexpected] if keys else None


def _conversion(cell: Cell) -> list[Any] | None:
    """For each view what it is of, how many keys it changes of how many, what raised, its scopes and some keys."""
    if cell.conversion is None:
        return None
    return [
        [view.of, view.given, view.changed, view.keys, view.error, view.conversions, view.examples, view.kept]
        for view in cell.conversion.views
    ]


def _error(error: ErrorReport) -> list[str]:
    return [error.stage, error.type, error.message, tail(error.traceback, _TAIL_LINES)]


def _expectation(cell: Cell) -> list[str]:
    return [cell.expectation, cell.expectation_issue, cell.expectation_expires, cell.expectation_reason]


def warnings(every: Iterable[str]) -> list[list[str]]:
    """Each new warning once, with the probes that gave it: `[text, "base, forward"]`."""
    found: dict[str, list[str]] = {}
    for warning in every:
        match = _PROBE.fullmatch(warning)
        text, probe = (match[2], match[1]) if match else (warning, "")
        found.setdefault(text, []).append(probe)
    return [[text, ", ".join(dict.fromkeys(probe for probe in probes if probe))] for text, probes in found.items()]
