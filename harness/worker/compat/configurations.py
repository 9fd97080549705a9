"""Base models from the entries of a `config.json`, also with code of their own."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping

_CODE_FOLDER = os.path.join("work", "code")


def model_config(entries: Mapping[str, Any], model: str = "") -> Any:
    """The configuration of a model from the entries of its `config.json`.

    Args:
        model: the class of the model. It knows its configuration, also if that has no type of its own, as the parts of
            CLIP up to Transformers 4.37.

    Raises:
        ValueError: this release of Transformers has no such model.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = entries["model_type"]
    found = None if model.startswith("Auto") else getattr(getattr(transformers, model, None), "config_class", None)
    try:
        found = found or CONFIG_MAPPING[kind]
    except KeyError:
        said = f"Transformers {transformers.__version__} has no model of type {kind!r}"
        code = "; it brings its own code (`auto_map`), which is executed only with --trust-remote-code"
        raise ValueError(said + code if "auto_map" in entries else said) from None
    return found.from_dict({name: value for name, value in entries.items() if name != "auto_map"})


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


def model_with_code(base: Mapping[str, Any]) -> Any:
    """A model whose classes are in the scenario's own Python files."""
    import transformers

    keep_modules_here(base)
    write_code(base, _CODE_FOLDER)
    with open(os.path.join(_CODE_FOLDER, "config.json"), "w", encoding="utf-8") as file:
        json.dump(base["args"], file)
    config = transformers.AutoConfig.from_pretrained(_CODE_FOLDER, trust_remote_code=True)
    return getattr(transformers, base["model"]).from_config(config, trust_remote_code=True)


def keep_modules_here(base: Mapping[str, Any]) -> None:
    """Have Transformers copy the Python files of a base into the cell's folder, not into the user's cache."""
    if base.get("code"):
        from transformers import dynamic_module_utils

        dynamic_module_utils.HF_MODULES_CACHE = os.path.abspath(os.path.join("work", "modules"))


def write_code(base: Mapping[str, Any], folder: str) -> None:
    """Write the Python files of a base, if it has any."""
    for name, text in base.get("code", {}).items():
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
