"""Identifies configurations that the loader reads as equal.

Each release adds entries to a config, mostly with the default that an older file implies. What counts is what the
*loader's* classes read: the object, and the warnings meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable, Mapping

from ..compat import libraries
from ..shared import Request
from .capture import attempt

ADAPTERS, BASES = "adapters", "bases"
"""Folders of the request: in each a folder for each configuration, with the layout of a cell's."""
_STAMPS = ("peft_version", "transformers_version", "_name_or_path")
"""The writer and the place of a file: no part of its meaning."""


def identify(request: Request) -> None:
    """Read each configuration as a replay does; write `identities.json`: folder → digest of the result.

    Args:
        request: `adapters`: names of folders under `adapters/`; `bases`: name of a folder under `bases/` → class of the
            base's configuration, empty if it is not Transformers'.
    """
    found: dict[str, str] = {}
    for name in request["adapters"]:
        found[name] = _digest(f"{ADAPTERS}/{name}", _adapter)
    for name, kind in request["bases"].items():
        found[name] = _digest(f"{BASES}/{name}", lambda kind=kind: _base(kind))  # type: ignore[misc]
    with open("identities.json", "w", encoding="utf-8") as file:
        json.dump(found, file)


def _digest(folder: str, read: Callable[[], Any]) -> str:
    """SHA-256 of the result of reading: value, warnings, error."""
    here, value = os.getcwd(), None
    os.chdir(folder)  # so that messages quote the same path
    try:
        libraries.forget_warned_once()
        with attempt("config") as tried:
            value = read()
    finally:
        os.chdir(here)
    result = [value, tried.outcome, tried.warnings, tried.error]
    return hashlib.sha256(json.dumps(_plain(result), sort_keys=True, default=repr).encode()).hexdigest()


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
        # a class may pass entries that it does not know to the model
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
