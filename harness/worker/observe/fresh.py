"""The probe `fresh`: the scenario created anew by this environment, so that what it *writes* is observed too.

What a golden has of it never changes. A replay records more: the types of the saved tensors, which tensors of the
checkpoint are in the new file by value, and what the new file computes when this environment reads it again.
"""

from __future__ import annotations

import os
from typing import Any, Mapping

from ..compat import libraries
from ..model import adapters, wrappers
from ..shared import RELOADED
from . import accounting, structure
from .capture import attempt
from .context import Context

PROBE = "fresh"


def fresh(ctx: Context) -> None:
    """The scenario created by this environment: files, keys, config and outputs of what is *written*."""
    ctx.only_in_float32()
    ctx.torch.manual_seed(0)
    model, filled = adapters.create(ctx.torch, ctx.base("saved"), ctx.scenario)
    if not ctx.creating or ctx.scenario["adapter"].get("given"):  # else a golden has them as `created.filled`
        ctx.fact(PROBE, "filled", filled)
    ctx.record(PROBE, ctx.run(model))
    folder = ctx.folder(PROBE)
    adapters.save(model, folder, ctx.adapter_name, ctx.scenario["adapter"].get("convert", False))
    tensors = libraries.load_adapter_tensors(folder)
    ctx.fact(PROBE, "files", sorted(os.listdir(folder)))
    ctx.fact(PROBE, "keys", {key: list(value.shape) for key, value in sorted(tensors.items())})
    ctx.fact(PROBE, "config", structure.read_config(folder))
    if not ctx.creating:
        ctx.fact(PROBE, "asked", dict(ctx.scenario["adapter"]["args"]))
        ctx.fact(PROBE, "dtypes", {key: _dtype(value) for key, value in sorted(tensors.items())})
        ctx.fact(PROBE, "digests", {key: accounting.digest(value) for key, value in sorted(tensors.items())})
        ctx.fact(PROBE, "moved", _moved(libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER), tensors))
        _read_again(ctx, folder)


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype)[len("torch.") :]


def _moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Key of the checkpoint that the new file lacks → its key there, by value."""
    new = {accounting.fingerprint(after[key]): key for key in sorted(set(after) - set(before))}
    gone = {key: accounting.fingerprint(before[key]) for key in sorted(set(before) - set(after))}
    return {key: new[mark] for key, mark in gone.items() if mark in new}


def _read_again(ctx: Context, folder: str) -> None:
    """What the new adapter computes after it was saved and loaded, in the wrappers that it was made in."""
    if wrappers.differ(ctx.scenario):
        return
    with attempt("adapter") as tried:
        ctx.record(PROBE, ctx.run(ctx.load(folder=folder)), RELOADED)
    ctx.fact(PROBE, "reloaded", tried.as_dict())
