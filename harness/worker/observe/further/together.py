"""The probe `together`: two methods in one layer, run and merged."""

from __future__ import annotations

from ...compat import libraries, load_paths
from ...model import adapters, fill
from ...shared import canonical
from ..capture import Skip
from ..context import Context
from .step import step

PROBE = "together"
OTHER = "other"


def observe(ctx: Context) -> None:
    """Another method beside the adapter by PeftMixedModel; LoRA with trained biases and tokens."""
    ctx.only_in_float32()
    if ctx.quantize:
        raise Skip("methods are combined on plain layers")
    with step(ctx, PROBE, "mixed"):
        _mixed(ctx)
    if ctx.scenario["adapter"]["config"] == "LoraConfig":
        with step(ctx, PROBE, "lora") as facts:
            facts["filled"] = _with_tokens_and_bias(ctx)


def _mixed(ctx: Context) -> None:
    import peft

    model = load_paths.mixed(ctx)
    mine = model.peft_config[ctx.adapter_name]
    kind = peft.LoHaConfig if isinstance(mine, peft.LoraConfig) else peft.LoraConfig
    model.add_adapter(OTHER, kind(r=2, target_modules=mine.target_modules))
    model.set_adapter([ctx.adapter_name, OTHER])
    names = [(canonical(n, (OTHER,)), p) for n, p in model.named_parameters() if OTHER in n.split(".")]
    fill.fill_parameters(ctx.torch, names, f"adapter:{ctx.scenario['name']}:{OTHER}")
    model.eval()
    ctx.record(PROBE, ctx.run(model), "mixed.")
    ctx.record(PROBE, ctx.run(model.merge_and_unload()), "mixed.merged.")


def _with_tokens_and_bias(ctx: Context) -> list[str]:
    """A new LoRA adapter with `bias="all"` and trained tokens; returns the names of its parameters."""
    import peft

    base = ctx.base()
    embedding = base.get_input_embeddings() if hasattr(base, "get_input_embeddings") else None
    if embedding is None:
        raise Skip("the base has no embedding of tokens")
    layers = [name for name, module in base.named_modules() if type(module) is ctx.torch.nn.Linear]
    if not layers:
        raise Skip("the base has no plain layer")
    arguments = libraries.known_arguments(
        peft.LoraConfig, {"trainable_token_indices": [0, 2], "bias": "all", "target_modules": layers[:2], "r": 2}
    )
    model = libraries.new_adapter(base, peft.LoraConfig(**arguments), "default")
    parameters = [(n, p) for n, p in adapters.trainable(model, "default") if not libraries.is_of_base(n)]
    filled = fill.fill_parameters(ctx.torch, parameters, f"adapter:{ctx.scenario['name']}:{OTHER}")
    model.eval()
    ctx.record(PROBE, ctx.run(model), "lora.")
    ctx.record(PROBE, ctx.run(model.merge_and_unload()), "lora.merged.")
    return filled
