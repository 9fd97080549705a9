"""Probes that not every scenario has: each with what a scenario must say for it to be run, and told of."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ..compat import libraries
from . import sft, steps
from .capture import Skip
from .context import Context
from .probes import Probe


def merged_after_run(ctx: Context) -> None:
    """Run and then merged in place, as who evaluates before merging: running a quantised layer may alter its weight."""
    if reason := libraries.why_not_mergeable_in_place(ctx.model()):
        raise Skip(reason)
    model = ctx.load()
    ctx.run(model)
    model.merge_adapter()
    ctx.record("merged_after_run", ctx.run(model))


def steps_of(ctx: Context) -> None:
    """The structure after each step that the scenario declares."""
    if ctx.precision != "float32":
        raise Skip("one precision says it")
    ctx.fact("steps", "steps", steps.observe(ctx, ctx.scenario["steps"]))


PROBES: Mapping[str, tuple[Callable[[Mapping[str, Any]], bool], Probe]] = {
    "merged_after_run": (lambda scenario: "quantize" in scenario["base"], merged_after_run),
    "steps": (lambda scenario: "steps" in scenario, steps_of),
    "sft": (lambda scenario: "sft" in scenario, sft.observe),
}
"""Probe → whether a scenario has it, and the probe; in the order in which they run, after all others."""


def of(scenario: Mapping[str, Any]) -> list[tuple[str, Probe]]:
    """Those that a scenario has."""
    return [(name, probe) for name, (has, probe) in PROBES.items() if has(scenario)]
