"""Says what a base and an adapter's method are in this environment: all entries of the configuration, defaults, sizes.

A `config.json` says only what differs from the defaults of the release that wrote it. Only the libraries know the rest.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Mapping

from ..compat import configurations


def main() -> int:
    """Answer one request, JSON on stdin, with one line of JSON on stdout. What libraries print goes to stderr."""
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        reply = described(json.load(sys.stdin))
    except Exception as error:  # noqa: BLE001  # whatever the library raises is the answer
        reply = {"error": {"type": type(error).__name__, "message": str(error)[:2000]}}
    with os.fdopen(out, "w", encoding="utf-8") as file:
        file.write("\n" + json.dumps(reply, default=str) + "\n")
    return 0


def described(request: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for.

    Args:
        request: `config`, the entries of a `config.json`; `model`, the class to build of it, or nothing to build
            none; `method`, PEFT's name of an adapter's method.
    """
    import transformers

    reply: dict[str, Any] = {"transformers": transformers.__version__}
    config = configurations.model_config(request["config"])
    reply["config"] = json.loads(json.dumps(config.to_dict(), default=str))
    reply["known"] = sorted(_keys(type(config)().to_dict()))
    if request.get("method"):
        reply.update(_method(request["method"]))
    if request.get("model"):
        reply.update(_model(config, request["model"]))
    return reply


def _keys(config: Mapping[str, Any]) -> set[str]:
    """All keys of a configuration, those of nested ones too."""
    nested = [_keys(value) for value in config.values() if isinstance(value, dict)]
    return {str(key) for key in config}.union(*nested)


def _model(config: Any, name: str) -> dict[str, Any]:
    import transformers

    kind = getattr(transformers, name)
    model = kind.from_config(config) if name.startswith("Auto") else kind(config)
    parameters = list(model.parameters())
    return {
        "model": type(model).__name__,
        "parameters": sum(one.numel() for one in parameters),
        "bytes": sum(one.numel() * one.element_size() for one in parameters),
    }


def _method(name: str) -> dict[str, Any]:
    import dataclasses

    kind = configurations.adapter_class(name)
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return {"method": kind.__name__, "defaults": json.loads(json.dumps(defaults, default=_plain))}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else getattr(value, "value", str(value))
