"""Configurations of base models, from the entries of a `config.json`."""

from __future__ import annotations

from typing import Any, Mapping


def model_config(entries: Mapping[str, Any]) -> Any:
    """The configuration of a model from the entries of its `config.json`.

    Raises:
        ValueError: this release of Transformers has no such model.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, entries = entries["model_type"], {name: value for name, value in entries.items() if name != "auto_map"}
    try:
        found = CONFIG_MAPPING[kind]
    except KeyError:
        raise ValueError(f"Transformers {transformers.__version__} has no model of type {kind!r}") from None
    return found.from_dict(entries)


def adapter_class(method: str) -> Any:
    """The class of the configuration of an adapter's method.

    Raises:
        ValueError: this release of PEFT has no such method.
    """
    import peft

    found = peft.PEFT_TYPE_TO_CONFIG_MAPPING
    if method not in found:
        raise ValueError(f"PEFT {peft.__version__} has no method {method!r}")
    return found[method]
