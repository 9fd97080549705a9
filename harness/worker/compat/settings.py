"""Branches on what a library's version has, for precision and attention."""

from __future__ import annotations

import importlib.util
from typing import Any, Mapping

from . import quantised

_DECLARED = {"sdpa": ("_supports_sdpa",), "flash_attention_2": ("_supports_flash_attn", "_supports_flash_attn_2")}
"""Attributes of a model's class that name its attentions; flash's was renamed in Transformers 4.54."""


def loading(torch: Any, base: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for the requested dtype and attention."""
    found: dict[str, Any] = {}
    if base.get("attention") and has_choice():
        found["attn_implementation"] = base["attention"]
    if base.get("dtype"):
        # called `dtype` since Transformers 4.56
        name = "dtype" if quantised.release("transformers") >= (4, 56) else "torch_dtype"
        found[name] = getattr(torch, base["dtype"])
    return found


def has_choice() -> bool:
    """True if `from_pretrained` takes `attn_implementation`: since Transformers 4.36; before, all is eager."""
    return quantised.release("transformers") >= (4, 36)


def no_attention(base: Mapping[str, Any], attention: str) -> str:
    """Why the release, or the model's class, does not have the attention; empty if it does."""
    import transformers

    version = f"Transformers {transformers.__version__}"
    if attention == "eager":
        return ""
    if not has_choice():
        return f"{version} has no attn_implementation (it came with 4.36)"
    kind = getattr(transformers, base["model"])
    said = [getattr(kind, name) for name in _DECLARED[attention] if hasattr(kind, name)]
    if said and not any(said):
        return f"{base['model']} of {version} declares that it has no {attention}"
    return ""


def no_flash(device: str) -> str:
    """Why flash attention cannot run here; empty if it can."""
    if device == "cpu":
        return "flash attention needs a GPU"
    return "" if importlib.util.find_spec("flash_attn") else "the loader's environment has no package flash_attn"


def attention_of(model: Any) -> str:
    """The attention that a loaded model reports; empty if it reports none."""
    config = getattr(model, "config", None)
    return str(getattr(config, "_attn_implementation", None) or "") if has_choice() else ""
