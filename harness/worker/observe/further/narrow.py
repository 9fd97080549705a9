"""The probe `narrow`: the types of an adapter on a base in bfloat16 and float16, and after what users do with it."""

from __future__ import annotations

import copy
from typing import Any

from ...compat import libraries, quantised
from ...model import adapters
from .. import types
from ..capture import Skip
from ..context import Context
from .step import step

PROBE = "narrow"


def observe(ctx: Context) -> None:
    """Load the adapter on a narrow base; train one step, merge and save it."""
    ctx.only_in_float32()
    if ctx.quantize:
        raise Skip("a quantised base has types of its own")
    prompt_learning = libraries.is_prompt_learning(ctx.model())
    with step(ctx, PROBE, "float16") as facts:
        facts["types"] = _types(_load(ctx, "float16", is_trainable=not prompt_learning), ctx)
    with step(ctx, PROBE, "as_is") as facts:
        facts["types"] = _types(_load_as_is(ctx), ctx)
    with step(ctx, PROBE, "new") as facts:
        new = adapters.wrap(_base(ctx, "bfloat16"), ctx.scenario["adapter"])
        facts["types"] = _types(new, ctx)
        if not prompt_learning:
            with step(ctx, PROBE, "trained") as trained:
                trained["types"], trained["gradients"] = _trained(ctx, new)
    with step(ctx, PROBE, "bfloat16") as facts:
        model = _load(ctx, "bfloat16")
        facts["types"] = _types(model, ctx)
        facts["outputs"] = _kinds(_narrowed(ctx).run(model).items())
        facts["saved"] = _kinds(libraries.state_of(model, ctx.adapter_name).items())
        if not libraries.why_not_mergeable(model):
            facts["merged"] = _kinds(model.merge_and_unload().named_parameters())


def _base(ctx: Context, dtype: str) -> Any:
    return ctx.base().to(getattr(ctx.torch, dtype))


def _load(ctx: Context, dtype: str, **options: Any) -> Any:
    return adapters.load(_base(ctx, dtype), ctx.adapter_name, **options)


def _load_as_is(ctx: Context) -> Any:
    import peft

    if not quantised.takes_autocast(peft.PeftModel.from_pretrained):
        raise Skip("this release has no autocast_adapter_dtype")
    return peft.PeftModel.from_pretrained(
        _base(ctx, "bfloat16"), adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name, autocast_adapter_dtype=False
    )


def _narrowed(ctx: Context) -> Context:
    """The same context with inputs in bfloat16."""
    narrow = copy.copy(ctx)
    narrow.inputs = {
        name: value.to(ctx.torch.bfloat16) if value.is_floating_point() else value for name, value in ctx.inputs.items()
    }
    return narrow


def _trained(ctx: Context, model: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The types after one step of gradient descent, and those of the gradients."""
    parameters = dict(adapters.trainable(model, ctx.adapter_name))
    optimiser = ctx.torch.optim.SGD(parameters.values(), lr=0.1)
    outputs = _narrowed(ctx).run_with_gradients(model)
    sum(value.float().square().mean() for value in outputs.values() if value.is_floating_point()).backward()
    gradients = _kinds((name, p.grad) for name, p in parameters.items() if p.grad is not None)
    optimiser.step()
    return _types(model, ctx), gradients


def _types(model: Any, ctx: Context) -> dict[str, str]:
    return _together(types.of(model, ctx.adapter_name))


def _kinds(named: Any) -> dict[str, str]:
    return _together({name: str(tensor.dtype)[len("torch.") :] for name, tensor in named})


def _together(kinds: dict[str, str]) -> dict[str, str]:
    """Name → type; `*` for all names if they have one type."""
    one = set(kinds.values())
    return {"*": one.pop()} if len(one) == 1 else kinds
