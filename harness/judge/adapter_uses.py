"""What a user must do with an adapter for a known break to show, in words; and which scenarios do it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Use = Literal[
    "merge", "merge-after-run", "unmerge", "unload", "disable", "save-merged", "save-again", "train-or-save-again",
    "train", "make-anew", "second-adapter", "generate", "compare-structure", "train-frozen", "named-adapter",
    "transformers", "inject", "hotswap", "load-adapter", "weighted-svd", "wrap", "peft-on-peft", "4-bit", "8-bit",
    "double-quantisation", "fp4", "no-dtype", "other-dtype", "narrow-base", "cpu", "bfloat16-kernel",
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


_Does = Callable[[Mapping[str, Any]], bool]
_AROUND_THE_BASE = ("attribute", "delegating", "compile", "data-parallel")


def _path(*names: str) -> _Does:
    return lambda resolved: not set(names).isdisjoint(resolved.get("doors") or ())


def _transformers(resolved: Mapping[str, Any]) -> bool:
    """True if a load path of Transformers is tried; a plain module of Torch has none."""
    return resolved["base"].get("kind") == "transformers" and _path("transformers", "transformers-auto")(resolved)


def _quantised(**wanted: Any) -> _Does:
    def done(resolved: Mapping[str, Any]) -> bool:
        quantize = resolved["base"].get("quantize") or {}
        return bool(quantize) and all(quantize.get(key) == value for key, value in wanted.items())

    return done


def _merged_after_run(resolved: Mapping[str, Any]) -> bool:
    return _quantised()(resolved) and "sft" not in resolved


def _steps(resolved: Mapping[str, Any]) -> bool:
    """True if the structure of the model is recorded after each step."""
    return "steps" in resolved


def _named(resolved: Mapping[str, Any]) -> bool:
    return bool(_quantised()(resolved)) and resolved["adapter"].get("name") != "default"


def _narrow(kind: str) -> _Does:
    """True if the base is saved in 16 bits: one of Transformers is loaded without a type, another one as it is."""
    return lambda resolved: bool(resolved["base"].get("saved_dtype")) and resolved["base"].get("kind") == kind


def _wraps(resolved: Mapping[str, Any]) -> bool:
    """True if the base is wrapped in another way when the adapter is saved than when it is loaded."""
    wrap = resolved.get("wrap") or {}
    return _around(wrap.get("saved") or ()) != _around(wrap.get("loaded") or ())


def _around(kinds: Sequence[str]) -> list[str]:
    """The wrappers around the base, inside the adapter, that change the names of its modules."""
    inner = kinds[: kinds.index("peft")] if "peft" in kinds else kinds
    return [kind for kind in inner if kind.partition(":")[0] in _AROUND_THE_BASE]


def _peft_on_peft(resolved: Mapping[str, Any]) -> bool:
    return any(kind.startswith("adapter:") for kind in (resolved.get("wrap") or {}).get("loaded") or ())


USES: Mapping[Use, Words] = {
    "merge": Words("you merge the adapter"),
    "merge-after-run": Words("you merge the adapter after the model has run", _merged_after_run),
    "unmerge": Words("you merge the adapter and unmerge it again"),
    "unload": Words("you unload the adapter"),
    "disable": Words("you disable the adapter"),
    "save-merged": Words("you save the merged model and load it again"),
    "save-again": Words("you save the adapter again"),
    "train-or-save-again": Words("you train the adapter further, or save it again"),
    "train": Words("you train the adapter further"),
    "make-anew": Words("you make a new adapter with the same config"),
    "second-adapter": Words("you add a second adapter"),
    "generate": Words("you call `generate`", lambda resolved: resolved.get("generate") is not None),
    "compare-structure": Words("your code relies on which modules the model consists of, as FSDP does", _steps),
    "train-frozen": Words("you train it after loading it without `is_trainable=True`", _steps),
    "named-adapter": Words("you load it on a quantised base under another name than `default`", _named),
    "transformers": Words("you load it with Transformers' `load_adapter` or `from_pretrained`", _transformers),
    "inject": Words("you load it without a PeftModel, as Transformers' `load_adapter` does",
                    _path("inject", "transformers", "transformers-auto")),
    "hotswap": Words("you load it with `hotswap_adapter`", _path("hotswap", "hotswap-prepared")),
    "load-adapter": Words("you load it with `load_adapter` beside another adapter", _path("load-adapter")),
    "weighted-svd": Words("you combine it with `add_weighted_adapter` and `svd`", _path("weighted-svd")),
    "wrap": Words("the base is wrapped in another way than when the adapter was saved", _wraps),
    "peft-on-peft": Words("you load it on a PeftModel that has another adapter already", _peft_on_peft),
    "4-bit": Words("you load the base in 4 bits", _quantised(bits=4)),
    "8-bit": Words("you load the base in 8 bits", _quantised(bits=8)),
    "double-quantisation": Words("the base is quantised on loading, with double quantisation",
                                 _quantised(bits=4, double=True, **{"from": "weights"})),
    "fp4": Words("the base is quantised as fp4", _quantised(type="fp4")),
    "no-dtype": Words("you load the base without a `dtype`", _narrow("transformers")),
    "other-dtype": Words("you load the base with another `dtype` than it was stored in", _steps),
    "narrow-base": Words("the base is in float16 or bfloat16", _narrow("modules")),
    "cpu": Words("you run it on a CPU"),
    "bfloat16-kernel": Words("you run it on a CPU with AVX512-BF16"),
}  # fmt: skip
