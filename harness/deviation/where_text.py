"""Where a deviation starts, as lines of text (pure)."""

from __future__ import annotations

from collections.abc import Iterator

from harness.core.run import Figures
from harness.core.text import many, number, times
from harness.deviation.where import COSTS, Where
from harness.deviation.where_layers import Layer

_ROWS = 12


def lines(where: Where) -> Iterator[str]:
    """The reasoning, the cheapest probe, the first layer that differs, and a table of layers."""
    yield where.cell
    yield ""
    yield from (f"  {said}" for said in where.said if said)
    if where.probe:
        cost = f" ({COSTS[where.probe]})" if where.probe in COSTS else ""
        yield f"  cheapest probe that shows it: {where.probe}{cost}: {where.probe_says}"
    first = where.first_layer
    if first is not None:
        yield ""
        yield from _whole(first)
    if where.layers:
        yield ""
        yield from _table(where)


def _whole(layer: Layer) -> Iterator[str]:
    called = f", named {layer.called} by the loader" if layer.called else ""
    yield f"  {layer.name}{f' ({layer.class_name})' if layer.class_name else ''}{called}"
    if layer.elsewhere:
        yield f"    {layer.elsewhere}"
    yield from (f"    {parameter}" for parameter in layer.parameters[:_ROWS])
    if len(layer.parameters) > _ROWS:
        yield f"    and {many(len(layer.parameters) - _ROWS, 'more parameter')}"
    yield from (f"    {key}: in the checkpoint, but missing from the model" for key in layer.lost)
    yield from (f"    {name} of the base changed" for name in layer.base_changed)
    if layer.scalars:
        yield "    " + ", ".join(f"{name} {value}" for name, value in layer.scalars.items())
    yield from (f"    changed since the creator's libraries: {change}" for change in layer.scalar_changes)


def _table(where: Where) -> Iterator[str]:
    """The layers around the first that differs."""
    at = next((place for place, layer in enumerate(where.layers) if layer.name == where.first), 0)
    start = max(0, at - 3)
    shown = where.layers[start : start + _ROWS]
    width = max([len("layer"), *(len(layer.name) for layer in shown)])
    yield f"  {'layer':<{width}}  {'':<7}  {'input':<16}  {'own effect':<16}  {'output':<16}  parameters"
    if start:
        yield f"  … {many(start, 'layer')} before these agree"
    for layer in shown:
        cells = (_cell(layer.input), _cell(layer.effect), _cell(layer.output))
        mark = "←" if layer.name == where.first else " "
        row = f"{layer.name:<{width}}  {layer.kind:<7}  " + "  ".join(f"{text:<16}" for text in cells)
        yield f"  {row}  {_parameters(layer)} {mark}".rstrip()
    if len(where.layers) > start + len(shown):
        yield f"  … {len(where.layers) - start - len(shown)} more (--json shows all)"


def _cell(figures: Figures | None) -> str:
    if figures is None:
        return "–"
    if figures.max_abs == 0:
        return "equal"
    return f"{number(figures.max_abs)} ({times(figures.ratio)})"


def _parameters(layer: Layer) -> str:
    known = [p for p in layer.parameters if p.key]
    if layer.undecided:
        return f"{_short(layer)}; its {many(len(layer.undecided), 'tensor')} may be fused too"
    if layer.lost:
        return f"{many(len(layer.lost), 'tensor')} missing"
    if layer.foreign:
        return f"{len(layer.foreign)} of {len(known)} differ from the checkpoint"
    return f"{len(known)} equal the checkpoint" if known else _short(layer) or "–"


def _short(layer: Layer) -> str:
    return layer.elsewhere.removeprefix("its weights are ")
