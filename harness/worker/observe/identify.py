"""Says what the loader makes of configurations, so that two that it reads alike are known to be alike.

Each release writes entries of its own into a config, most of them with the default that an older file means without
saying it. What decides is what the *loader's* classes make of the file: the object, and what is warned on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable, Mapping

from ..compat import libraries
from .capture import attempt

ADAPTERS, BASES = "adapters", "bases"
"""Folders of the request: in each a folder for each configuration, laid out as a cell's is."""
_STAMPS = ("peft_version", "transformers_version", "_name_or_path")
"""Who wrote a file, and where it lies: no part of what it means."""


def identify(request: Mapping[str, Any]) -> None:
    """Read each configuration as a replay does; leave `identities.json`: folder → digest of what came of it.

    Args:
        request: `adapters`: names of folders under `adapters/`; `bases`: name of a folder under `bases/` → class of the
            base's configuration, empty where the base has none of Transformers'.
    """
    found: dict[str, str] = {}
    for name in request["adapters"]:
        found[name] = _digest(f"{ADAPTERS}/{name}", _adapter)
    for name, kind in request["bases"].items():
        found[name] = _digest(f"{BASES}/{name}", lambda kind=kind: _base(kind))  # type: ignore[misc]
    with open("identities.json", "w", encoding="utf-8") as file:
        json.dump(found, file)


def _digest(folder: str, read: Callable[[], Any]) -> str:
    """SHA-256 over what was read and how: value, warnings, error."""
    here, value = os.getcwd(), None
    os.chdir(folder)  # so that what quotes a path quotes the same one
    try:
        libraries.forget_warned_once()
        with attempt("config") as tried:
            value = read()
    finally:
        os.chdir(here)
    told = [value, tried.outcome, tried.warnings, tried.error]
    return hashlib.sha256(json.dumps(_plain(told), sort_keys=True, default=repr).encode()).hexdigest()


def _adapter() -> Any:
    import peft

    config = peft.PeftConfig.from_pretrained("adapter")
    return [type(config).__qualname__, vars(config), config.to_dict()]


def _base(kind: str) -> Any:
    import transformers

    if not kind:
        return {name: json.loads(_text(name)) for name in sorted(os.listdir("base"))}
    config = getattr(transformers, kind).from_pretrained("base")
    generation = "generation_config.json"
    generates = os.path.exists(os.path.join("base", generation))
    return [
        config.to_dict(),
        transformers.GenerationConfig.from_pretrained("base").to_dict() if generates else None,
        # what a class does not know it may still hand to the model
        sorted(json.loads(_text("config.json")).get("architectures") or []),
    ]


def _text(name: str) -> str:
    with open(os.path.join("base", name), encoding="utf-8") as file:
        return file.read()


def _plain(value: Any) -> Any:
    """Without stamps; sets in order."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if key not in _STAMPS}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return value
