"""Probes that not every scenario has: those with a condition, and the load paths that a scenario declares."""

from __future__ import annotations

import functools
from typing import Any, Callable, Mapping

from ..compat import libraries
from ..compat.load_paths import LOAD_PATHS
from ..model import adapters, bases
from ..shared import FROM_PRETRAINED, LOAD_PATH
from . import accounting, sft, steps, types
from .capture import Skip
from .context import Context
from .probes import Probe


def merged_after_run(ctx: Context) -> None:
    """Run, then merged in place, as when evaluating before merging: running a quantised layer may alter its weight."""
    if reason := libraries.why_not_mergeable_in_place(ctx.model()):
        raise Skip(reason)
    model = ctx.load()
    ctx.run(model)
    model.merge_adapter()
    ctx.record("merged_after_run", ctx.run(model))


def steps_of(ctx: Context) -> None:
    """The structure after each step that the scenario declares."""
    ctx.only_in_float32()
    ctx.fact("steps", "steps", steps.observe(ctx, ctx.scenario["steps"]))


def load_by(ctx: Context, name: str) -> None:
    """Load the adapter by a load path; record its outputs, and where the checkpoint's tensors are."""
    probe = LOAD_PATH + name
    with bases.precision(ctx.torch, "float32"):
        model = LOAD_PATHS[name](ctx)
    model.eval()
    bases.realign(model)
    if ctx.precision == "float32" and not ctx.creating:
        types.record(ctx, FROM_PRETRAINED, ctx.model())
        types.record(ctx, name, model)
    model = ctx.cast(model)
    ctx.record(probe, ctx.run(model))
    if ctx.precision == "float32":
        stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
        ctx.fact(probe, "tensors", accounting.account(ctx.torch, stored, model, ctx.adapter_name))


PROBES: Mapping[str, tuple[Callable[[Mapping[str, Any]], bool], Probe]] = {
    "merged_after_run": (lambda scenario: "quantize" in scenario["base"], merged_after_run),
    "steps": (lambda scenario: "steps" in scenario, steps_of),
    "sft": (lambda scenario: "sft" in scenario, sft.observe),
}
"""Probe → whether a scenario has it, and the probe. They run in this order, after all others."""


def of(scenario: Mapping[str, Any]) -> list[tuple[str, Probe]]:
    """The probes of a scenario, then its load paths."""
    return [
        *((name, probe) for name, (has, probe) in PROBES.items() if has(scenario)),
        *((LOAD_PATH + name, functools.partial(load_by, name=name)) for name in scenario.get("doors", ())),
    ]
