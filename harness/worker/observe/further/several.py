"""The probe `several`: two adapters active at once, merged, disabled, saved, and one of them deleted."""

from __future__ import annotations

from typing import Any

from ...compat import at_once, libraries
from ...model import adapters
from ..capture import Skip
from ..context import Context
from . import files
from .step import step

PROBE = "several"
OTHER = "beside"


def observe(ctx: Context) -> None:
    """Add a second adapter of the same configuration, or as declared; use both, save both, and delete the first."""
    ctx.only_in_float32()
    model = ctx.load()
    first = ctx.adapter_name
    one_at_once = libraries.is_prompt_learning(model)
    if not one_at_once and (reason := at_once.why_not(model)):
        raise Skip(reason)
    declared = ctx.scenario.get("beside")
    config = adapters.make_config(declared) if declared else libraries.adapter_arguments(model, first)
    with step(ctx, PROBE, "added"):
        adapters.put_beside(ctx.torch, model, ctx.scenario, config)
    if OTHER not in model.peft_config:
        return
    model.eval()
    if not one_at_once:
        _used_at_once(ctx, model)
    with step(ctx, PROBE, "saved") as facts:
        folder = ctx.folder(PROBE)
        with libraries.without_hub():
            model.save_pretrained(folder)
        facts["files"] = files.tree(folder)
    with step(ctx, PROBE, "deleted") as facts:
        model.delete_adapter(first)
        facts.update(_state(model, first))
        facts["left"] = sorted(key for key in model.state_dict() if first in key.split("."))
        ctx.record(PROBE, ctx.run(model), "deleted.")


def _used_at_once(ctx: Context, model: Any) -> None:
    first = ctx.adapter_name
    _active(ctx, model, "both", [first, OTHER])
    _merged(ctx, model)
    _active(ctx, model, "swapped", [OTHER, first])
    _disabled(ctx, model)
    with step(ctx, PROBE, "status") as facts:
        facts.update(at_once.status(model))
    with step(ctx, PROBE, "inference") as facts:
        at_once.activate_for_inference(model, first)
        facts.update(_state(model, first))
    _active(ctx, model, "both_again", [first, OTHER])


def _active(ctx: Context, model: Any, name: str, order: list[str]) -> None:
    with step(ctx, PROBE, name) as facts:
        model.base_model.set_adapter(order)
        facts.update(_state(model, ctx.adapter_name))
        ctx.record(PROBE, ctx.run(model), f"{name}.")


def _merged(ctx: Context, model: Any) -> None:
    if ctx.quantize or libraries.why_not_mergeable_in_place(model):
        return  # merging quantises the base again, which makes a large difference of a small one
    with step(ctx, PROBE, "merged") as facts:
        model.merge_adapter()
        facts["merged"] = at_once.merged(model)
        ctx.record(PROBE, ctx.run(model), "merged.")
    with step(ctx, PROBE, "unmerged") as facts:
        model.unmerge_adapter()
        facts["merged"] = at_once.merged(model)
        ctx.record(PROBE, ctx.run(model), "unmerged.")


def _disabled(ctx: Context, model: Any) -> None:
    """Disabled twice, one within the other."""
    with step(ctx, PROBE, "disabled") as facts:
        with model.disable_adapter():
            with model.disable_adapter():
                pass
            ctx.record(PROBE, ctx.run(model, disabled=True), "disabled.")
        facts.update(_state(model, ctx.adapter_name))
        ctx.record(PROBE, ctx.run(model), "enabled.")


def _state(model: Any, first: str) -> dict[str, Any]:
    """What is active, in the model and in its layers, and which adapters train."""
    trained = [name.split(".") for name, p in model.named_parameters() if p.requires_grad]
    both = {"first": first, "beside": OTHER}
    return {
        **at_once.active(model),
        "trainable": {label: sum(name in parts for parts in trained) for label, name in both.items()},
    }
