"""What a user must do with an adapter for a known break to show, in words; and which scenarios do it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Use = Literal[
    "merge", "merge-after-run", "unmerge", "unload", "disable", "save-merged", "save-again", "train", "make-anew",
    "second-adapter", "generate", "generate-after-load", "transformers", "inject", "hotswap", "load-adapter",
    "weighted-svd", "wrap", "peft-on-peft", "4-bit", "8-bit", "fp4", "double-quantisation", "narrow-base",
    "bfloat16-kernel",
]  # fmt: skip


@dataclass(frozen=True)
class Words:
    """How a reader is told of a use, and which cells have it.

    Attributes:
        words: after "only if": `you merge the adapter`.
        done: True if a scenario, as it is stored in a fixture (`resolved`), does it.
    """

    words: str
    done: Callable[[Mapping[str, Any]], bool] = lambda _: True


def _path(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda resolved: not set(names).isdisjoint(resolved.get("doors") or ())


def _quantised(**wanted: Any) -> Callable[[Mapping[str, Any]], bool]:
    def done(resolved: Mapping[str, Any]) -> bool:
        quantize = resolved["base"].get("quantize") or {}
        return bool(quantize) and all(quantize.get(key) == value for key, value in wanted.items())

    return done


def _wraps(resolved: Mapping[str, Any]) -> bool:
    """True if adapter and base are wrapped in another way on saving than on loading."""
    wrap = resolved.get("wrap") or {}
    return bool(wrap) and wrap.get("saved") != wrap.get("loaded")


def _peft_on_peft(resolved: Mapping[str, Any]) -> bool:
    wrap = resolved.get("wrap") or {}
    return any(str(kind).startswith("adapter:") for kind in wrap.get("loaded") or ())


USES: Mapping[Use, Words] = {
    "merge": Words("you merge the adapter"),
    "merge-after-run": Words("you merge the adapter after the model has run", _quantised()),
    "unmerge": Words("you merge the adapter and unmerge it again"),
    "unload": Words("you unload the adapter"),
    "disable": Words("you disable the adapter"),
    "save-merged": Words("you save the merged model and load it again"),
    "save-again": Words("you save the adapter again"),
    "train": Words("you train the adapter further"),
    "make-anew": Words("you make a new adapter with the same config"),
    "second-adapter": Words("you add a second adapter"),
    "generate": Words("you call `generate`"),
    "generate-after-load": Words("you call `generate`"),
    "transformers": Words("you load it with Transformers' own `load_adapter` or `from_pretrained`",
                          _path("transformers", "transformers-auto")),
    "inject": Words("you load it without a PeftModel (`inject_adapter_in_model`, Transformers' `load_adapter`)",
                    _path("inject", "transformers", "transformers-auto")),
    "hotswap": Words("you load it with `hotswap_adapter`", _path("hotswap", "hotswap-prepared")),
    "load-adapter": Words("you load it with `load_adapter` beside another adapter", _path("load-adapter")),
    "weighted-svd": Words("you combine adapters with `add_weighted_adapter` and `svd`", _path("weighted-svd")),
    "wrap": Words("the base is wrapped in another way than when the adapter was saved", _wraps),
    "peft-on-peft": Words("you load it on a model that is a PeftModel already", _peft_on_peft),
    "4-bit": Words("you load the base in 4 bits", _quantised(bits=4)),
    "8-bit": Words("you load the base in 8 bits", _quantised(bits=8)),
    "fp4": Words("the base is quantised as fp4", _quantised(type="fp4")),
    "double-quantisation": Words("the base is quantised with double quantisation", _quantised(double=True)),
    "narrow-base": Words("you load the base in float16 or bfloat16"),
    "bfloat16-kernel": Words("you run it on a CPU with AVX512-BF16"),
}  # fmt: skip
