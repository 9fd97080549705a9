"""Bases with quantised layers, loaded from weights or from bitsandbytes' own files, and their dequantised twins.

A base's `quantize` says how. If the libraries can quantise on loading, they do; for older ones the layers are put in
here, as users of that time did. The float64 twin of such a base is *dequantised*: plain linear layers with the values
of the quantised ones. A difference between the two is the kernels' error, not a change of meaning.
"""

from __future__ import annotations

import json
import os
from typing import Any, Mapping

from ..compat import quantised

_WEIGHTS = "model.safetensors"
_MARK = "_computes_narrowly"
_ONE_FILE = "999GB"  # a tiny model is one file in every release


def load(torch: Any, base: Mapping[str, Any], folder: str, make: Any, device: str, dtype: str) -> Any:
    """The base with quantised layers, in eval mode on the device; 4-bit ones compute in float32.

    Args:
        make: builds the unquantised model, or reads it from the folder: `make(read: bool)`.
        dtype: of everything that is not quantised.
    """
    spec = base["quantize"]
    if base["kind"] == "transformers" and quantised.loader_quantises():
        model = _by_loader(torch, base, folder, device, dtype)
    elif spec["from"] == "quantised":
        model = _restored(torch, make(False), spec, folder, device)
    else:
        model = quantise(torch, make(True).to(getattr(torch, dtype)), spec, device)
    return model.eval()


def _by_loader(torch: Any, base: Mapping[str, Any], folder: str, device: str, dtype: str) -> Any:
    import transformers

    spec = base["quantize"]
    arguments = quantised.loading_arguments(torch, spec, dtype, spec["from"] == "quantised")
    where = {} if device == "cpu" else {"device_map": {"": device}}
    return getattr(transformers, base["model"]).from_pretrained(folder, **arguments, **where, **base["load_with"])


def quantise(torch: Any, model: Any, spec: Mapping[str, Any], device: str) -> Any:
    """Replace linear layers by quantised ones; embeddings, norms and skipped layers stay."""
    for parent, name, layer in _linear_layers(torch, model, spec):
        made = quantised.empty_layer(torch, layer, spec)
        quantised.quantise_into(made, layer.weight.data.clone(), spec, device)
        made.bias = layer.bias
        setattr(parent, name, made)
    quantised.mark(model, spec, True)
    return _moved(model, device)


def _restored(torch: Any, model: Any, spec: Mapping[str, Any], folder: str, device: str) -> Any:
    """Read the state that bitsandbytes wrote into layers that are put in here."""
    from safetensors.torch import load_file

    state = {key: value.clone() for key, value in load_file(os.path.join(folder, _WEIGHTS)).items()}
    for parent, name, layer in _linear_layers(torch, model, spec):
        path = _path_of(model, layer)
        made = quantised.empty_layer(torch, layer, spec)
        own = {key[len(path) + 1 :]: state.pop(key) for key in sorted(state) if key.startswith(path + ".")}
        for part in ("weight", *(["bias"] if layer.bias is not None else [])):
            if part not in own:
                raise KeyError(f"the quantised checkpoint has no {part} of {path}")
        quantised.restore_into(made, own.pop("weight"), own, device)
        if layer.bias is not None:
            made.bias = torch.nn.Parameter(own["bias"], requires_grad=False)
        setattr(parent, name, made)
    missing, unexpected = model.load_state_dict(state, strict=False)
    wanted = [name for name in missing if not _inside_quantised(model, name)]
    if unexpected or wanted:
        raise ValueError(f"quantised base checkpoint does not fit: missing {wanted}, unexpected {unexpected}")
    quantised.mark(model, spec, True)
    return _moved(model, device)


def _moved(model: Any, device: str) -> Any:
    if device != "cpu":  # nothing to move on the CPU, where moving may quantise again
        model.to(device)
    return model


def _linear_layers(torch: Any, model: Any, spec: Mapping[str, Any]) -> list[tuple[Any, str, Any]]:
    """(parent, name in the parent, layer) of each linear layer to quantise."""
    found = []
    for prefix, parent in model.named_modules():
        for name, layer in parent.named_children():
            path = f"{prefix}.{name}" if prefix else name
            if type(layer) is torch.nn.Linear and not any(part in spec["skip"] for part in path.split(".")):
                found.append((parent, name, layer))
    return found


def _path_of(model: Any, layer: Any) -> str:
    return next(str(name) for name, module in model.named_modules() if module is layer)


def _inside_quantised(model: Any, name: str) -> bool:
    owner = model.get_submodule(name.rpartition(".")[0])
    return bool(quantised.is_quantised(owner))


def layers(model: Any) -> list[tuple[str, Any]]:
    """Every quantised layer, by name."""
    return [(name, module) for name, module in model.named_modules() if quantised.is_quantised(module)]


def own(model: Any) -> None:
    """Make each quantised weight of a copied model point to its own layer, not to the original's."""
    for _, layer in layers(model):
        if getattr(layer.weight, "module", None) is not None:
            layer.weight.module = layer


def dequantise(torch: Any, model: Any, spec: Mapping[str, Any], dtype: str) -> Any:
    """Replace quantised layers by plain linear ones with the dequantised values."""
    for path, layer in layers(model):
        weight = quantised.dequantised(layer)
        plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None, device=weight.device)
        plain.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
        if layer.bias is not None:
            plain.bias = torch.nn.Parameter(layer.bias.data.clone().float(), requires_grad=False)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, plain)
    quantised.mark(model, spec, False)
    return _cast(torch, model, dtype).eval()


def _cast(torch: Any, model: Any, dtype: str) -> Any:
    # `Module.to`, since Transformers' own refuses a quantised model
    return torch.nn.Module.to(model, getattr(torch, dtype))


def narrow(torch: Any, model: Any, what: str) -> Any:
    """Make quantised layers compute like a bfloat16 kernel; those that do already are unchanged.

    Args:
        what: `arithmetic`: inputs, weights and outputs are rounded; `truncated`: inputs and outputs are truncated;
            `scales`: the scales of the weights' codes are rounded.
    """
    for _, layer in layers(model):
        if what == "scales":
            quantised.round_scales(torch, layer)
        elif not getattr(layer, _MARK, False):
            _round_arithmetic(torch, layer, _cut if what == "truncated" else _rounded)
            setattr(layer, _MARK, True)
    return model


def _round_arithmetic(torch: Any, layer: Any, narrowed: Any) -> None:
    """Wrap the layer's forward: some releases of PEFT call it directly, past any hook."""
    inner = layer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        result = inner(*(narrowed(torch, arg) if _is_floating(arg) else arg for arg in args), **kwargs)
        return narrowed(torch, result) if _is_floating(result) else result

    if hasattr(layer, "compute_dtype"):
        # else the layer takes its first input's
        layer.compute_dtype, layer.compute_type_is_set = torch.bfloat16, True
    layer.forward = forward


def _rounded(torch: Any, value: Any) -> Any:
    return value.to(torch.bfloat16).to(value.dtype)


def _cut(torch: Any, value: Any) -> Any:
    """The value truncated to bfloat16's bits; gradients pass."""
    wide = value.detach().float().contiguous()
    cut = (wide.view(torch.int32) & -65536).view(torch.float32)
    return value + (cut.to(value.dtype) - value.detach())


def _is_floating(value: Any) -> bool:
    return hasattr(value, "is_floating_point") and bool(value.is_floating_point())


def save(model: Any, folder: str, spec: Mapping[str, Any]) -> None:
    """Write the quantised model: by its library if it can, else bitsandbytes' state as safetensors."""
    os.makedirs(folder, exist_ok=True)
    if hasattr(model, "save_pretrained") and quantised.loader_quantises():
        model.save_pretrained(folder, max_shard_size=_ONE_FILE)
        return
    from safetensors.torch import save_file

    state = {key: value.detach().clone().contiguous() for key, value in model.state_dict().items()}
    save_file(state, os.path.join(folder, _WEIGHTS), metadata={"format": "pt"})
    if hasattr(model, "config"):
        model.config.save_pretrained(folder)
        _say_how(os.path.join(folder, "config.json"), spec)


def _say_how(path: str, spec: Mapping[str, Any]) -> None:
    """Add to a model's configuration how the checkpoint is quantised."""
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": spec["bits"] == 4,
        "load_in_8bit": spec["bits"] == 8,
        "bnb_4bit_quant_type": spec["type"],
        "bnb_4bit_use_double_quant": spec["double"],
        "bnb_4bit_compute_dtype": "float32",
        "llm_int8_threshold": spec["threshold"],
        "llm_int8_skip_modules": list(spec["skip"]),
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2, sort_keys=True)
        file.write("\n")


def kernel_facts(model: Any) -> dict[str, Any]:
    """The kernels of a model that has run: classes of its quantised layers, and how many are repacked."""
    found = [layer for _, layer in layers(model)]
    classes = sorted({f"Linear{quantised.bits_of(layer)}bit" for layer in found})
    repacked = sum(quantised.is_repacked(layer) for layer in found)
    return {"layers": len(found), "classes": classes, "repacked": repacked, **quantised.kernels()}
