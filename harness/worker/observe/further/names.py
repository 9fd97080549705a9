"""The probe `named`: loaded under a name that occurs in the path of its own parameters.

A library that cuts the adapter's name out of a key may cut out more.
"""

from __future__ import annotations

from typing import Any

from ...compat import libraries
from ...model import adapters
from .. import accounting
from ..capture import Skip
from ..context import Context
from .step import step

PROBE = "named"


def observe(ctx: Context) -> None:
    """Load under each such name, look for every tensor of the checkpoint, run, and save again."""
    ctx.only_in_float32()
    words = words_of(ctx.model(), ctx.adapter_name)
    if not words:
        raise Skip("no parameter has the adapter's name")
    stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
    for place, word in words.items():
        with step(ctx, PROBE, place) as facts:
            facts["name"] = word
            model = ctx.load(adapter_name=word)
            found = accounting.account(ctx.torch, stored, model, word)
            facts["lost"] = sorted(key for key, where in found.items() if where["found"] == "nowhere")
            ctx.record(PROBE, ctx.run(model), f"{place}.")
            again = libraries.state_of(model, word)
            facts["saved_without"] = sorted(set(stored) - set(again))
            facts["saved_besides"] = sorted(set(again) - set(stored))


def words_of(model: Any, adapter_name: str) -> dict[str, str]:
    """Place → name: the ending of a parameter's name, the attribute that holds it, its layer."""
    paths = [name.split(".") for name, _ in model.named_parameters()]
    path: list[str] = next((parts for parts in paths if adapter_name in parts), [])
    if not path:
        return {}
    before = [part for part in path[: path.index(adapter_name)] if not part.isdigit()]
    places = {"ending": path[-1:], "attribute": before[-1:], "layer": before[-2:-1]}
    found: dict[str, str] = {}
    for place, parts in places.items():
        if parts and parts[0] not in (adapter_name, *found.values()):
            found[place] = parts[0]
    return found
