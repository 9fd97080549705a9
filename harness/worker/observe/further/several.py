"""The probe `several`: two adapters active at once, merged, disabled, switched, saved and deleted; and a third."""

from __future__ import annotations

import itertools
from typing import Any

from ...compat import at_once, libraries
from ...model import adapters, bases
from ..capture import Skip
from ..context import Context
from . import files
from .step import step

PROBE = "several"
OTHER, THIRD, UNKNOWN = "beside", "third", "no_such_adapter"
OF_BASE = "__base__"
"""PEFT's name for rows of a batch that use no adapter."""


def observe(ctx: Context) -> None:
    """Add a second adapter of the same configuration, or as declared; use, save and delete adapters; add a third."""
    ctx.only_in_float32()
    first, one_at_once = ctx.adapter_name, libraries.is_prompt_learning(ctx.model())
    if not one_at_once and (reason := at_once.why_not(ctx.model())):
        raise Skip(reason)
    model = None
    with step(ctx, PROBE, "added"):
        model = ctx.take("put beside another", lambda: _with_another(ctx))
        model.set_adapter(OTHER)
    if model is None:
        return
    model.eval()
    if not one_at_once:
        _used_at_once(ctx, model)
    with step(ctx, PROBE, "saved") as facts:
        folder = ctx.folder(PROBE)
        with libraries.without_hub(), files.without_card(model):
            model.save_pretrained(folder)
        facts["files"] = files.tree(folder)
    with step(ctx, PROBE, "deleted") as facts:
        _delete(model, first, facts)
        ctx.record(PROBE, ctx.run(model), "deleted.")
    if not one_at_once:
        _third(ctx, model)
    _unknown(ctx, model)


def _with_another(ctx: Context) -> Any:
    model, declared = ctx.load(), ctx.scenario.get("beside")
    config = adapters.make_config(declared) if declared else libraries.adapter_arguments(model, ctx.adapter_name)
    adapters.put_beside(ctx.torch, model, ctx.scenario, config)
    return model


def _delete(model: Any, name: str, facts: dict[str, Any]) -> None:
    """Delete an adapter; what is active then, and what the model still has of it."""
    model.delete_adapter(name)
    facts.update(at_once.active(model))
    facts["left"] = sorted(key for key in model.state_dict() if name in key.split("."))
    facts["held"] = at_once.held(model, name)


def _used_at_once(ctx: Context, model: Any) -> None:
    first = ctx.adapter_name
    _active(ctx, model, "both", [first, OTHER])
    _merged(ctx, model)
    _switched(ctx, model)
    _batch(ctx, model)
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
    if not _merges(ctx, model):
        return
    with step(ctx, PROBE, "merged") as facts:
        model.merge_adapter()
        facts["merged"] = at_once.merged(model)
        ctx.record(PROBE, ctx.run(model), "merged.")
    with step(ctx, PROBE, "unmerged") as facts:
        model.unmerge_adapter()
        facts["merged"] = at_once.merged(model)
        ctx.record(PROBE, ctx.run(model), "unmerged.")


def _merges(ctx: Context, model: Any) -> bool:
    # merging quantises a base again, which makes a large difference of a small one
    return not ctx.quantize and not libraries.why_not_mergeable_in_place(model)


def _switched(ctx: Context, model: Any) -> None:
    """The first adapter merged, the other one activated."""
    if not _merges(ctx, model):
        return
    with step(ctx, PROBE, "switched_while_merged") as facts:
        model.set_adapter(ctx.adapter_name)
        model.merge_adapter()
        model.set_adapter(OTHER)
        facts.update(at_once.active(model))
        facts["merged"] = at_once.merged(model)
        ctx.record(PROBE, ctx.run(model), "switched.")
        if any(facts["merged"]):
            model.unmerge_adapter()


def _third(ctx: Context, model: Any) -> None:
    """A third adapter that differs in the modules it saves: it lacks those of the others, or saves one more."""
    with step(ctx, PROBE, "third") as facts:
        adapters.put_beside(ctx.torch, model, ctx.scenario, _config_of_third(ctx, model), THIRD)
        model.eval()
        facts.update(at_once.active(model))
        ctx.record(PROBE, ctx.run(model), "third.")
    if THIRD not in model.peft_config:
        return
    with step(ctx, PROBE, "back_from_third") as facts:
        model.set_adapter(OTHER)
        facts.update(at_once.active(model))
        ctx.record(PROBE, ctx.run(model), "back_from_third.")
    with step(ctx, PROBE, "active_deleted") as facts:
        model.set_adapter(THIRD)
        _delete(model, THIRD, facts)


def _config_of_third(ctx: Context, model: Any) -> Any:
    config = libraries.adapter_arguments(model, OTHER)
    has = [name for name in ("modules_to_save", "trainable_token_indices") if getattr(config, name, None)]
    for name in has:
        setattr(config, name, None)
    if not has and hasattr(config, "modules_to_save"):
        taken = dict(adapters.adapter_layers(ctx.model(), ctx.adapter_name))
        plain = [n for n, m in ctx.base().named_modules() if type(m) is ctx.torch.nn.Linear and n not in taken]
        config.modules_to_save = plain[-1:] or None
    return config


def _batch(ctx: Context, model: Any) -> None:
    """Batches whose rows use different adapters; the adapters that compute something else than alone."""
    rows = int(next(iter(ctx.inputs.values())).shape[0])
    alone = {ctx.adapter_name: "forward/float32/", OTHER: f"{PROBE}/float32/switched.", OF_BASE: "base/float32/"}
    with step(ctx, PROBE, "batch") as facts, ctx.torch.no_grad():
        unlike = set[str]()
        for start in range(0, len(alone), rows):
            names = list(itertools.islice(itertools.cycle(alone), start, start + rows))
            with at_once.hooks_removed(model) as facts["hooks_left"]:
                outputs = bases.outputs(at_once.run_batch(model, ctx.inputs, names), ctx.scenario["outputs"])
            ctx.record(PROBE, outputs, f"batch.{start}.")
            unlike |= {n for row, n in enumerate(names) if not _is_alike(ctx, outputs, row, rows, alone[n])}
        facts["unlike_alone"] = sorted(unlike)


def _is_alike(ctx: Context, outputs: dict[str, Any], row: int, rows: int, recorded: str) -> bool:
    """False if a row differs from the recorded one by far more than rounding."""
    for name, output in outputs.items():
        array = ctx.observation.get(recorded + name)
        if array is None or len(array) != rows or not output.is_floating_point():
            continue
        if not ctx.torch.allclose(output[row].cpu(), ctx.torch.from_numpy(array[row]), rtol=1e-3, atol=1e-4):
            return False
    return True


def _unknown(ctx: Context, model: Any) -> None:
    """A name that no adapter has: what is raised, and what is active afterwards."""
    for name, call in {"unknown_activated": model.set_adapter, "unknown_deleted": model.delete_adapter}.items():
        with step(ctx, PROBE, name) as facts:
            try:
                call(UNKNOWN)
            finally:
                facts.update(at_once.active(model))


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
