"""The probe `config`: the scenario's config class by itself, with its defaults, written and read again."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping

from ...compat import libraries
from ...model import adapters
from .. import structure
from ..context import Context
from .step import step

PROBE = "config"


def observe(ctx: Context) -> None:
    """Make a config with nothing but what it requires, write and read it; read one with an entry of the future."""
    ctx.only_in_float32()
    import peft

    kind = getattr(peft, ctx.scenario["adapter"]["config"])
    with step(ctx, PROBE, "defaults") as facts:
        made = kind()
        ctx.fact(PROBE, "config", plain(made.to_dict()))
        _round_trip(ctx, made, facts)
    with step(ctx, PROBE, "scenario") as facts:
        _round_trip(ctx, kind(**ctx.scenario["adapter"]["args"]), facts)
    with step(ctx, PROBE, "unknown_entry") as facts:
        folder = ctx.folder(PROBE)
        _write(folder, {**structure.read_config(adapters.ADAPTER_FOLDER), "an_entry_of_the_future": 1})
        facts["read"] = type(peft.PeftConfig.from_pretrained(folder)).__name__


def _round_trip(ctx: Context, made: Any, facts: dict[str, Any]) -> None:
    """Write a config and read it again; entries that differ then."""
    import peft

    folder = ctx.folder(PROBE)
    with libraries.without_hub():
        made.save_pretrained(folder)
    before, after = plain(made.to_dict()), plain(type(made).from_pretrained(folder).to_dict())
    facts["read"] = type(peft.PeftConfig.from_pretrained(folder)).__name__
    facts["changed"] = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _write(folder: str, config: Mapping[str, Any]) -> None:
    with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)


def plain(value: Any) -> Any:
    """A config's values as JSON has them, without the release that made it."""
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items() if key != "peft_version"}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple)):
        return [plain(held) for held in value]
    return getattr(value, "value", value)
