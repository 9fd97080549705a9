"""The types of an adapter's parameters after every load path; recorded by replays only.

In float32 a load path can hide what it casts. So a replay in a narrow type records them there, for the declared load
paths and for those that every adapter can take.
"""

from __future__ import annotations

from typing import Any

from ..compat import libraries, load_paths
from ..model import adapters, bases
from ..shared import AS_SAVED, AUTOCASTS, FOR_TRAINING, FROM_PRETRAINED, NEW, TYPES, canonical
from .capture import attempt
from .context import Context

ALWAYS = ("low-cpu-mem", "load-adapter")
"""Load paths that a replay in a narrow type takes without a declaration."""


def record(ctx: Context, path: str, model: Any) -> None:
    """Record canonical name → type of the adapter's parameters in a model that was loaded by a path."""
    found = ctx.observation.facts.setdefault(TYPES, {}).setdefault(ctx.precision, {})
    found[path] = of(model, load_paths.adapter_name(ctx, path))


def of(model: Any, adapter_name: str) -> dict[str, str]:
    """Canonical name → type of the parameters that have the adapter's name: `float32`.

    `float32 on meta` for one that is on another device than its base.
    """
    named = list(model.named_parameters())
    home = next((p.device.type for name, p in named if adapter_name not in name.split(".")), "")
    found = {}
    for name, p in named:
        if adapter_name in name.split("."):
            away = f" on {p.device.type}" if home and p.device.type != home else ""
            found[canonical(name, (adapter_name,))] = str(p.dtype)[len("torch.") :] + away
    return found


def observe_as_saved(ctx: Context) -> None:
    """Load a base that is saved in a narrow type, without a type, and the adapter on it; record the types of both."""
    facts: dict[str, Any] = {}
    with attempt("base") as tried:
        kinds = [p.dtype for p in ctx.base().parameters() if p.dtype.is_floating_point]
        facts["base"] = sorted({str(kind)[len("torch.") :] for kind in kinds})
    if tried.outcome == "ok":
        with attempt("adapter") as tried, bases.precision(ctx.torch, "float32"):
            facts["adapter"] = of(ctx.load(), ctx.adapter_name)
    ctx.observation.facts[AS_SAVED] = {**tried.as_dict(), **facts}


def observe(ctx: Context) -> None:
    """Load the adapter by every load path and record its types; nothing is run."""
    declared = ctx.scenario.get("doors", ())
    record(ctx, FROM_PRETRAINED, ctx.model())
    ctx.observation.facts[AUTOCASTS] = libraries.autocasts()
    with attempt("adapter"):
        record(ctx, FOR_TRAINING, ctx.load(is_trainable=True))
    with attempt("adapter"), bases.precision(ctx.torch, "float32"):
        record(ctx, NEW, adapters.wrap(ctx.base(), ctx.scenario["adapter"]))
    for path in load_paths.LOAD_PATHS:
        if path in declared or path in ALWAYS:
            with attempt("adapter"), bases.precision(ctx.torch, "float32"):
                record(ctx, path, load_paths.LOAD_PATHS[path](ctx))
