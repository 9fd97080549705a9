"""Branches on what a library's version has, where it is about quantised layers: the second half of `compat.py`."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any, Mapping

from . import libraries

_FOUR, _EIGHT = "Linear4bit", "Linear8bitLt"


def release(package: str) -> tuple[int, ...]:
    """The numbers of an installed package's version; (0,) where it is not there."""
    numbers = re.match(r"\d+(\.\d+)*", libraries.versions().get(package, "0"))
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else (0,)


def bitsandbytes() -> Any:
    """The library; ImportError with its own words where it is not there or does not import."""
    return importlib.import_module("bitsandbytes")


def loader_quantises() -> bool:
    """True where `from_pretrained` with a `BitsAndBytesConfig` works on the CPU.

    Up to Transformers 4.52 it refuses a processor without Intel's extension; since 4.53 it asks bitsandbytes alone.
    """
    return release("transformers") >= (4, 53)


def loading_arguments(torch: Any, spec: Mapping[str, Any], dtype: str, stored: bool) -> dict[str, Any]:
    """What `from_pretrained` gets so that it quantises, or reads what is stored quantised.

    Args:
        dtype: name of the dtype of all that is not quantised.
        stored: the checkpoint says itself how it is quantised.
    """
    # called `dtype` since Transformers 4.56; the default of a quantised model is float16 up to 4.57
    name = "dtype" if release("transformers") >= (4, 56) else "torch_dtype"
    how = {} if stored else {"quantization_config": _configuration(torch, spec)}
    return {name: getattr(torch, dtype), **how}


def _configuration(torch: Any, spec: Mapping[str, Any]) -> Any:
    """The `BitsAndBytesConfig` that a declaration means."""
    import transformers

    skip = {"llm_int8_skip_modules": list(spec["skip"])} if spec["skip"] else {}
    if spec["bits"] == 8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=spec["threshold"], **skip)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec["type"],
        bnb_4bit_use_double_quant=spec["double"],
        bnb_4bit_compute_dtype=torch.float32,
        **skip,
    )


def empty_layer(torch: Any, layer: Any, spec: Mapping[str, Any]) -> Any:
    """A quantised layer of another's shape; its weight is still to be put in."""
    layers = bitsandbytes().nn
    common = {"bias": layer.bias is not None}
    if spec["bits"] == 8:
        return layers.Linear8bitLt(
            layer.in_features, layer.out_features, has_fp16_weights=False, threshold=spec["threshold"], **common
        )
    return layers.Linear4bit(
        layer.in_features,
        layer.out_features,
        compute_dtype=torch.float32,
        compress_statistics=spec["double"],
        quant_type=spec["type"],
        **common,
    )


def quantise_into(made: Any, weight: Any, spec: Mapping[str, Any], device: str) -> None:
    """Put a weight into a quantised layer and have bitsandbytes quantise it, as it does when a layer is moved."""
    layers = bitsandbytes().nn
    if spec["bits"] == 8:
        parameter = layers.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        known = {"compress_statistics": spec["double"], "quant_type": spec["type"], **_owner(layers.Params4bit, made)}
        parameter = layers.Params4bit(weight, requires_grad=False, **known)
    # the parameter alone is moved, and once: 0.46 quantises an 8-bit weight again each time that it is moved to the CPU
    made.weight = parameter.to(device)


def restore_into(made: Any, weight: Any, state: Mapping[str, Any], device: str) -> None:
    """Put a weight that bitsandbytes quantised, with the state that it saved, into a layer."""
    layers = bitsandbytes().nn
    if type(made).__name__ == _EIGHT:
        if "SCB" not in state:
            raise KeyError("the checkpoint has an 8-bit weight and no SCB, its scales")
        weight = weight.to(device)
        parameter = layers.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        parameter.CB, parameter.SCB = parameter.data, state["SCB"].to(device)
        made.weight = parameter
        return
    stats = {key[len("weight.") :]: value for key, value in state.items() if key.startswith("weight.")}
    if not stats:
        raise KeyError("the checkpoint has a 4-bit weight and no quantisation state of it")
    owner = _owner(layers.Params4bit.from_prequantized, made)
    made.weight = layers.Params4bit.from_prequantized(weight, stats, requires_grad=False, device=device, **owner)


def _owner(function: Any, made: Any) -> dict[str, Any]:
    """The layer that a weight belongs to, by the name that this release has for it."""
    return {"module": made} if "module" in inspect.signature(function).parameters else {}


def is_quantised(module: Any) -> bool:
    """True for a layer of bitsandbytes, and for PEFT's up to 0.6, which are derived from them."""
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(module).__mro__}
    return bool(kinds & {f"bitsandbytes.{_FOUR}", f"bitsandbytes.{_EIGHT}"})


def bits_of(module: Any) -> int:
    """4 or 8."""
    return 4 if any(kind.__name__ == _FOUR for kind in type(module).__mro__) else 8


def dequantised(module: Any) -> Any:
    """What a quantised layer's weight stands for, in float32, whatever kernel the layer computes with."""
    functional = bitsandbytes().functional
    if bits_of(module) == 4:
        return functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    scales = module.state.SCB if module.state.SCB is not None else module.weight.SCB
    return module.weight.data.float() * (scales.float().view(-1, 1) / 127.0)


def round_scales(torch: Any, module: Any) -> None:
    """Round what the codes of a layer's weight are multiplied with to bfloat16."""
    if bits_of(module) == 4:
        state = module.weight.quant_state  # rounding twice changes nothing
        if state.nested:
            functional = bitsandbytes().functional
            state.absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
            state.nested, state.state2 = False, None
        state.absmax = state.absmax.to(torch.bfloat16).float()
        return
    holder = module.state if module.state.SCB is not None else module.weight
    holder.SCB = holder.SCB.to(torch.bfloat16).float()


def is_repacked(module: Any) -> bool:
    """True where running the layer laid its weight out anew for another kernel (0.49 and later, some processors)."""
    return bool(getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False))


def kernels() -> dict[str, Any]:
    """What of this machine decides which of bitsandbytes' kernels run."""
    asked = getattr(bitsandbytes().functional, "has_avx512bf16", None)  # since 0.49
    return {"avx512_bf16": bool(asked()) if asked is not None else False}


def mark(model: Any, spec: Mapping[str, Any], on: bool) -> None:
    """Say of a model what Transformers says of one that it loaded quantised, or that it is none any more."""
    model.is_loaded_in_4bit = on and spec["bits"] == 4
    model.is_loaded_in_8bit = on and spec["bits"] == 8
    model.is_quantized = on
    if not on:
        for name in ("hf_quantizer", "quantization_method"):
            if name in vars(model):
                delattr(model, name)


def takes_autocast(function: Any) -> bool:
    """True where PEFT lets one say whether adapters are cast to float32 (`autocast_adapter_dtype`, since 0.12)."""
    return "autocast_adapter_dtype" in inspect.signature(function).parameters
