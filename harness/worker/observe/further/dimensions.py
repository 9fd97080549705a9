"""The probe `dimensions`: layers with an adapter, fed with inputs of 2, 3 and 4 dimensions.

A scenario's base gives each layer inputs of one number of dimensions: a Llama 3, an MLP 2.
"""

from __future__ import annotations

from typing import Any

from ...model import adapters
from ..capture import Skip
from ..context import Context
from ..probes import fed, first_tensor
from .step import step

PROBE = "dimensions"
_ROWS = 2


def observe(ctx: Context) -> None:
    """Feed one layer of each kind."""
    ctx.only_in_float32()
    chosen = _one_of_each_kind(ctx)
    if not chosen:
        raise Skip("no layer takes inputs of any number of dimensions")
    for dimensions, front in {2: (), 3: (1,), 4: (1, _ROWS)}.items():
        with step(ctx, PROBE, f"{dimensions}d") as facts, ctx.torch.no_grad():
            for name, (layer, rows) in chosen.items():
                shaped = rows.reshape(*front, -1, rows.shape[-1])
                output = first_tensor(layer(shaped))
                ctx.record(PROBE, {name: output.reshape(-1, output.shape[-1])}, f"{dimensions}d.")
                facts.setdefault("shapes", {})[name] = [len(output.shape), output.shape[:-1] == shaped.shape[:-1]]


def _one_of_each_kind(ctx: Context) -> dict[str, tuple[Any, Any]]:
    """Name → layer and rows of its input in the golden run: the first of each class, size and bias."""
    layers = dict(adapters.adapter_layers(ctx.model(), ctx.adapter_name))
    found: dict[Any, tuple[str, Any, Any]] = {}
    for name, value in ctx.layer_inputs.items():
        weight: Any = getattr(layers.get(name), "weight", None)
        if weight is None or weight.dim() != 2:
            continue
        layer = layers[name]
        rows = fed(ctx, value, layer)
        if rows.is_floating_point():
            kind = (type(layer).__name__, tuple(weight.shape), getattr(layer, "bias", None) is None)
            found.setdefault(kind, (name, layer, rows.reshape(-1, rows.shape[-1])[:_ROWS]))
    return {name: (layer, ctx.torch.cat([rows, rows / 2])) for name, layer, rows in found.values()}
