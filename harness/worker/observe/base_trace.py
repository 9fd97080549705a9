"""Records what each module of the bare base computes, and where the base's stored weights are in it.

No golden holds this. A trace runs it with the loader's and with the creator's libraries, so that a base that moved is
located in the base.
"""

from __future__ import annotations

from typing import Any, Callable

from ..compat import libraries
from ..model import bases
from ..shared import canonical
from . import accounting
from .context import Context
from .probes import first_tensor, sketch


def observe(ctx: Context) -> None:
    """Record each module's input and output in this precision; in float32 the modules and the weights too."""
    base = ctx.base()
    if ctx.precision == "float32" and not ctx.quantize:
        stored = libraries.load_base_tensors(bases.BASE_FOLDER)
        ctx.fact("base_trace", "weights", accounting.account(ctx.torch, stored, base, ""))
    modules = {canonical(name): module for name, module in base.named_modules() if name}
    ctx.fact("base_trace", "modules", _run(ctx, base, modules))


def _run(ctx: Context, base: Any, modules: dict[str, Any]) -> list[list[str]]:
    """[name, class] of each module that returns a tensor, in the order in which their first calls end."""
    order: list[str] = []

    def watch(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(_: Any, args: Any, result: Any) -> None:
            tensor = first_tensor(result)
            if tensor is None or name in order or not tensor.numel():
                return
            order.append(name)
            ctx.record("base_trace", {f"output/{name}": sketch(tensor)})
            given = first_tensor(args)
            if given is not None and given.numel() and given.is_floating_point():
                ctx.record("base_trace", {f"input/{name}": sketch(given)})

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        ctx.run(base)
    finally:
        for hook in hooks:
            hook.remove()
    return [[name, type(modules[name]).__name__] for name in order]
