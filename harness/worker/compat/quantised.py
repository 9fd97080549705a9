"""Branches on what a library's version has, for quantised layers."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any, Mapping

from . import libraries

_FOUR, _EIGHT = "Linear4bit", "Linear8bitLt"


def release(package: str) -> tuple[int, ...]:
    """The numbers of an installed package's version; (0,) if it is not installed."""
    numbers = re.match(r"\d+(\.\d+)*", libraries.versions().get(package, "0"))
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else (0,)


def bitsandbytes() -> Any:
    """The library; its own ImportError if it is not installed or does not import."""
    return importlib.import_module("bitsandbytes")


def loader_quantises() -> bool:
    """True if `from_pretrained` with a `BitsAndBytesConfig` works on the CPU.

    Up to Transformers 4.52 it refuses a processor without Intel's extension; since 4.53 bitsandbytes decides.
    """
    return release("transformers") >= (4, 53)


def loading_arguments(torch: Any, spec: Mapping[str, Any], dtype: str, stored: bool) -> dict[str, Any]:
    """Arguments of `from_pretrained` to quantise, or to read a quantised checkpoint.

    Args:
        dtype: name of the dtype of everything that is not quantised.
        stored: the checkpoint is quantised, and says how.
    """
    # called `dtype` since Transformers 4.56; the default of a quantised model is float16 up to 4.57
    name = "dtype" if release("transformers") >= (4, 56) else "torch_dtype"
    how = {} if stored else {"quantization_config": _configuration(torch, spec)}
    return {name: getattr(torch, dtype), **how}


def _configuration(torch: Any, spec: Mapping[str, Any]) -> Any:
    """The `BitsAndBytesConfig` of a declaration."""
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
    """A quantised layer of another's shape, without its weight."""
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
    """Put a weight into a quantised layer and make bitsandbytes quantise it, as it does when a layer is moved."""
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
    """The argument that names a weight's layer, by its name in this release."""
    return {"module": made} if "module" in inspect.signature(function).parameters else {}


def is_quantised(module: Any) -> bool:
    """True for a layer of bitsandbytes, and for PEFT's up to 0.6, which are derived from them."""
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(module).__mro__}
    return bool(kinds & {f"bitsandbytes.{_FOUR}", f"bitsandbytes.{_EIGHT}"})


def bits_of(module: Any) -> int:
    """4 or 8."""
    return 4 if any(kind.__name__ == _FOUR for kind in type(module).__mro__) else 8


def dequantised(module: Any) -> Any:
    """A quantised layer's weight, dequantised to float32, for any kernel."""
    functional = bitsandbytes().functional
    if bits_of(module) == 4:
        return functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    scales = module.state.SCB if module.state.SCB is not None else module.weight.SCB
    return module.weight.data.float() * (scales.float().view(-1, 1) / 127.0)


def round_scales(torch: Any, module: Any) -> None:
    """Round the scales of a layer's weight to bfloat16."""
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
    """True if running the layer rearranged its weight for another kernel (0.49 and later, some processors)."""
    return bool(getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False))


def kernels() -> dict[str, Any]:
    """Facts of this machine that decide which of bitsandbytes' kernels run."""
    asked = getattr(bitsandbytes().functional, "has_avx512bf16", None)  # since 0.49
    return {"avx512_bf16": bool(asked()) if asked is not None else False}


def mark(model: Any, spec: Mapping[str, Any], on: bool) -> None:
    """Set the attributes that Transformers gives a quantised model, or remove them."""
    model.is_loaded_in_4bit = on and spec["bits"] == 4
    model.is_loaded_in_8bit = on and spec["bits"] == 8
    model.is_quantized = on
    if not on:
        for name in ("hf_quantizer", "quantization_method"):
            if name in vars(model):
                delattr(model, name)


def takes_autocast(function: Any) -> bool:
    """True if PEFT has `autocast_adapter_dtype` (since 0.12): whether adapters are cast to float32."""
    return "autocast_adapter_dtype" in inspect.signature(function).parameters
