"""The structure of a model after each step of preparing it for training, and after loading.

A scenario names its steps. Each starts from its own base in the declared dtype, so that it shows what a library casts,
freezes or wraps. An exception is the step's outcome. To add a step, write a function in `STEPS` here, and its name in
`STEPS` of `shared.py`.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ..compat import libraries, quantised
from ..model import adapters, bases
from ..shared import canonical
from .capture import Skip, attempt
from .context import Context

Step = Callable[[Context, Any], Any]


def observe(ctx: Context, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Step → its outcome and, if it succeeded, the structure after it."""
    found = {}
    for name in declared["names"]:
        with attempt(name) as tried:
            if name not in STEPS:
                raise Skip(f"this worker knows no step {name!r}; it knows {', '.join(STEPS)}")
            model = STEPS[name](ctx, base(ctx, declared["dtype"]))
            structure = of(model, ctx.adapter_name)
        found[name] = {**tried.as_dict(), **(structure if tried.outcome == "ok" else {})}
        found[name].pop("warnings", None)
    return found


def of(model: Any, adapter_name: str) -> dict[str, Any]:
    """Parameters as canonical name → [dtype, requires_grad]; classes of their modules, and of adapter layers."""
    names = (adapter_name,)
    layers = dict(adapters.adapter_layers(model, adapter_name))
    holders = {
        canonical(name, names): type(module).__name__
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None and not libraries.is_adapter_layer(module)
    }
    return {
        "parameters": {
            canonical(name, names): [str(p.dtype)[len("torch.") :], bool(p.requires_grad)]
            for name, p in model.named_parameters()
        },
        "modules": holders,
        "adapter_layers": {name: type(module).__name__ for name, module in layers.items()},
    }


def base(ctx: Context, dtype: str) -> Any:
    """A separate base whose floating-point parameters have that dtype, as a user loads it."""
    declared = ctx.scenario["base"]
    if ctx.quantize:
        return bases.load_quantised(ctx.torch, declared, device=ctx.device, dtype=dtype)
    return bases.load(ctx.torch, declared).to(getattr(ctx.torch, dtype)).to(ctx.device)


def _prepared(_ctx: Context, base: Any) -> Any:
    import peft

    return peft.prepare_model_for_kbit_training(base)


def _wrapped(ctx: Context, base: Any) -> Any:
    return adapters.wrap(_prepared(ctx, base), ctx.scenario["adapter"])


def _wrapped_as_is(ctx: Context, base: Any) -> Any:
    import peft

    adapter = ctx.scenario["adapter"]
    _needs_autocast(peft.get_peft_model)
    config = adapters.make_config(adapter)
    prepared = _prepared(ctx, base)
    return peft.get_peft_model(prepared, config, adapter_name=adapter["name"], autocast_adapter_dtype=False)


def _loaded(ctx: Context, base: Any) -> Any:
    return adapters.load(base, ctx.adapter_name)


def _loaded_as_is(ctx: Context, base: Any) -> Any:
    import peft

    _needs_autocast(peft.PeftModel.from_pretrained)
    return peft.PeftModel.from_pretrained(
        base, adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name, autocast_adapter_dtype=False
    )


def _loaded_for_training(ctx: Context, base: Any) -> Any:
    return adapters.load(_prepared(ctx, base), ctx.adapter_name, is_trainable=True)


def _needs_autocast(function: Any) -> None:
    if not quantised.takes_autocast(function):
        raise Skip("this release casts adapters without asking")


STEPS: Mapping[str, Step] = {
    "base": lambda _ctx, base: base,
    "prepared": _prepared,
    "wrapped": _wrapped,
    "wrapped-as-is": _wrapped_as_is,
    "loaded": _loaded,
    "loaded-as-is": _loaded_as_is,
    "loaded-for-training": _loaded_for_training,
}
"""`prepared`: by `prepare_model_for_kbit_training`. `as-is`: with `autocast_adapter_dtype=False`."""
