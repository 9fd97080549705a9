"""Shows where a deviation starts: each adapter layer's input, and whether its parameters are the checkpoint's.

This runs on demand for one cell (a request of kind `trace`), so that no check pays for it, together with the probes
that record what each layer computes.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ..compat import libraries
from ..model import adapters
from ..shared import canonical
from . import accounting, base_trace
from .capture import attempt
from .context import Context

PROBES = ("forward", "layers", "base", "accounting")
"""The probes that run too, in both precisions."""

PROMPT = "prompt_encoder"
"""The name of the layer for prompt learning."""

_KEPT_APART = ("base_layer", "original_module")
"""Where an adapter layer keeps the base's module."""


def observe(ctx: Context) -> None:
    """Record each adapter layer's input (its last row), parameters and scalar attributes in float32, and the base."""
    if ctx.precision == "float32":
        with ctx.in_precision(), attempt("trace") as tried:
            ctx.fact("trace", "layers", _parameters(ctx))
            ctx.fact("trace", "order", _inputs(ctx))
        ctx.fact("trace", "outcome", tried.as_dict())
    with ctx.in_precision(), attempt("base trace") as tried:
        base_trace.observe(ctx)
    ctx.fact("base_trace", "outcome", tried.as_dict())


def _inputs(ctx: Context) -> list[str]:
    """Names of the layers in the order of their first call; records the input of that call."""
    model = ctx.model()
    order: list[str] = []

    def watch(name: str) -> Callable[[Any, Any], None]:
        def hook(module: Any, args: Any) -> None:
            if name in order:
                return
            order.append(name)
            if len(args) == 1 and hasattr(args[0], "detach") and not libraries.is_attention_adapter(module):
                ctx.observation.array(f"trace/input/{name}", args[0][-1:].detach().clone())

        return hook

    layers = adapters.adapter_layers(model, ctx.adapter_name)
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in layers]
    try:
        ctx.run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _parameters(ctx: Context) -> dict[str, Any]:
    """Layer → its class, scalars and parameters, each with the checkpoint's key that it came from."""
    model = ctx.untouched()
    stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
    account = accounting.account(ctx.torch, stored, model, ctx.adapter_name)
    by_value = {name: key for key, found in account.items() for name in found["at"]}
    names = (ctx.adapter_name,)
    by_name = {canonical(key, names): key for key in stored}
    own = {canonical(name) for name, _ in ctx.base().named_parameters()}
    found = {}
    layers = dict(adapters.adapter_layers(model, ctx.adapter_name))
    if libraries.is_prompt_learning(model):
        layers = {PROMPT: model.prompt_encoder[ctx.adapter_name], **layers}
    for layer, module in layers.items():
        rows = [
            _row(ctx, f"{layer}.{name}", value, stored, by_value, by_name)
            for name, value in _named(module)
            if _belongs(f"{layer}.{name}", names, own, by_value, by_name)
        ]
        found[layer] = {
            "class": type(module).__name__,
            "scalars": _scalars(module, ctx.adapter_name),
            "parameters": rows,
        }
    return found


def _named(module: Any) -> list[tuple[str, Any]]:
    named = list(module.named_parameters()) + list(module.named_buffers())
    return [(name, value) for name, value in named if value.numel() and not set(_KEPT_APART) & set(name.split("."))]


def _belongs(
    name: str, adapter_names: tuple[str, ...], own: set[str], by_value: Mapping[str, str], by_name: Mapping[str, str]
) -> bool:
    """True for a parameter of the adapter, and for one of the base if the checkpoint contains it."""
    plain = canonical(name, adapter_names)
    return plain not in own or plain in by_value or plain in by_name


def _row(
    ctx: Context,
    name: str,
    value: Any,
    stored: Mapping[str, Any],
    by_value: Mapping[str, str],
    by_name: Mapping[str, str],
) -> dict[str, Any]:
    plain = canonical(name, (ctx.adapter_name,))
    row = {"name": plain, "dtype": str(value.dtype)[len("torch.") :], "shape": list(value.shape)}
    without = ".".join(part for part in plain.split(".") if part not in ("modules_to_save", "token_adapter"))
    key, same = by_name.get(plain) or by_name.get(without, ""), by_value.get(plain, "")
    if same and key in ("", same):  # renamed, transposed or fused: the values identify it
        return {**row, "key": same, "max_abs": 0.0, "found": "by value"}
    if not key:
        return {**row, "key": "", "found": "nowhere"}
    there = stored[key]
    row = {**row, "key": key, "found": "by name", **({"holds": same} if same else {})}
    if tuple(there.shape) != tuple(value.shape):
        return {**row, "stored_shape": list(there.shape)}
    return {**row, "max_abs": float((value.detach().cpu().double() - there.double()).abs().max())}


def _scalars(module: Any, adapter_name: str) -> dict[str, Any]:
    """The layer's attributes for the adapter besides tensors: rank, alpha, scaling, switches."""
    found = {}
    for name, value in sorted(vars(module).items()):
        held = value.get(adapter_name) if isinstance(value, dict) else None
        if not name.startswith("_") and isinstance(held, (bool, int, float, str)):
            found[name] = held
    return found
