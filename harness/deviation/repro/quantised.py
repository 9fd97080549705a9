"""How a base with quantised layers is loaded, as Python (pure).

With `BitsAndBytesConfig` if that works on the CPU. In older releases the layers are replaced by hand with bitsandbytes'
own classes, as users did at the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.deviation.repro import bases
from harness.deviation.repro.python_text import Part, arguments, part
from harness.deviation.repro.subject import Side, Subject


def read(side: Side, subject: Subject, folder: str, stored: bool, dtype: str) -> Part:
    """Lines that load the quantised base into `base`."""
    spec = side.quantize
    stored = stored or spec["from"] == "quantised"
    if side.base["kind"] == "transformers" and side.release.loader_quantises:
        return _by_loader(side, subject, folder, stored, dtype)
    if stored:
        build = _built(side)
        lines = (*build.lines, f'restore(base, "{folder}/model.safetensors")')
        return part(*lines).needing(build).needing(_restoring(spec, side))
    plain = bases.unquantised(side, subject, folder)
    cast = [f"base = base.to(torch.{dtype})"] if dtype != "float32" else []
    return part(*plain.lines, *cast, "quantise(base)").needing(plain).needing(_quantising(spec, side))


def _by_loader(side: Side, subject: Subject, folder: str, stored: bool, dtype: str) -> Part:
    spec, model = side.quantize, side.base["model"]
    given = [f'"{folder}"', f"{side.release.dtype_argument}=torch.{dtype}"]
    if subject.device != "cpu":
        given.append(f'device_map={{"": "{subject.device}"}}')
    given += [arguments(side.base["load_with"])] if side.base["load_with"] else []
    lines, imports = [], [f"from transformers import {model}", "import torch"]
    if not stored:
        lines += ["how = BitsAndBytesConfig(", f"    {_config(spec)}", ")"]
        imports.append("from transformers import BitsAndBytesConfig")
        given.append("quantization_config=how")
    lines.append(f"base = {model}.from_pretrained({', '.join(given)})")
    return part(*lines, imports=imports)


def _config(spec: Mapping[str, Any]) -> str:
    skip = f", llm_int8_skip_modules={list(spec['skip'])!r}" if spec["skip"] else ""
    if spec["bits"] == 8:
        return f"load_in_8bit=True, llm_int8_threshold={spec['threshold']!r}{skip}"
    double = ", bnb_4bit_use_double_quant=True" if spec["double"] else ""
    return (
        f'load_in_4bit=True, bnb_4bit_quant_type="{spec["type"]}"{double}, bnb_4bit_compute_dtype=torch.float32{skip}'
    )


def _built(side: Side) -> Part:
    """The base with arbitrary weights."""
    base = side.base
    if base["kind"] == "transformers":
        line = f'base = {base["model"]}({base["config"]}.from_pretrained("base")).eval()'
        return part(line, imports=[f"from transformers import {base['model']}, {base['config']}"])
    return part("base = build().eval()", imports=["from model import build"])


def _layers(spec: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        "def linear_layers(base):",
        "    for path, parent in list(base.named_modules()):",
        "        for name, layer in list(parent.named_children()):",
        '            where = f"{path}.{name}".lstrip(".")',
        f'            skipped = any(part in {list(spec["skip"])!r} for part in where.split("."))',
        "            if type(layer) is torch.nn.Linear and not skipped:",
        "                yield where, parent, name, layer",
    )


def _empty(spec: Mapping[str, Any]) -> list[str]:
    common = "layer.in_features, layer.out_features, bias=layer.bias is not None"
    if spec["bits"] == 8:
        return [f"new = Linear8bitLt({common}, has_fp16_weights=False, threshold={spec['threshold']!r})"]
    return [
        f"new = Linear4bit({common}, compute_dtype=torch.float32,",
        f'                 compress_statistics={bool(spec["double"])}, quant_type="{spec["type"]}")',
    ]


def _marks(spec: Mapping[str, Any]) -> list[str]:
    return [
        f"    base.is_loaded_in_4bit = {spec['bits'] == 4}",
        f"    base.is_loaded_in_8bit = {spec['bits'] == 8}",
        "    base.is_quantized = True",
    ]


def _quantising(spec: Mapping[str, Any], side: Side) -> Part:
    owner = ", module=new" if side.release.owns_weights else ""
    if spec["bits"] == 8:
        weight = "Int8Params(layer.weight.data.clone(), requires_grad=False, has_fp16_weights=False)"
    else:
        given = f'compress_statistics={bool(spec["double"])}, quant_type="{spec["type"]}"{owner}'
        weight = f"Params4bit(layer.weight.data.clone(), requires_grad=False, {given})"
    lines = (
        "def quantise(base):",
        "    for _, parent, name, layer in list(linear_layers(base)):",
        *(f"        {line}" for line in _empty(spec)),
        f'        new.weight = {weight}.to("cpu")',
        "        new.bias = layer.bias",
        "        setattr(parent, name, new)",
        *_marks(spec),
    )
    return Part(imports=_imports(spec), helpers={"linear_layers": _layers(spec), "quantise": lines})


def _restoring(spec: Mapping[str, Any], side: Side) -> Part:
    owner = ", module=new" if side.release.owns_weights else ""
    if spec["bits"] == 8:
        put = [
            "new.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)",
            'new.weight.CB, new.weight.SCB = new.weight.data, own["SCB"]',
        ]
    else:
        put = [
            'stats = {key[len("weight.") :]: value for key, value in own.items() if key.startswith("weight.")}',
            "new.weight = Params4bit.from_prequantized(",
            f'    weight, stats, requires_grad=False, device="cpu"{owner})',
        ]
    lines = (
        "def restore(base, file):",
        "    state = load_file(file)",
        "    for path, parent, name, layer in list(linear_layers(base)):",
        *(f"        {line}" for line in _empty(spec)),
        '        own = {key[len(path) + 1 :]: state.pop(key) for key in sorted(state) if key.startswith(path + ".")}',
        '        weight = own.pop("weight").clone()',
        *(f"        {line}" for line in put),
        "        if layer.bias is not None:",
        '            new.bias = torch.nn.Parameter(own["bias"], requires_grad=False)',
        "        setattr(parent, name, new)",
        "    base.load_state_dict(state, strict=False)",
        *_marks(spec),
    )
    imports = (*_imports(spec), "from safetensors.torch import load_file")
    return Part(imports=imports, helpers={"linear_layers": _layers(spec), "restore": lines})


def _imports(spec: Mapping[str, Any]) -> tuple[str, ...]:
    names = "Int8Params, Linear8bitLt" if spec["bits"] == 8 else "Linear4bit, Params4bit"
    return ("import torch", f"from bitsandbytes.nn import {names}")


def dequantising(spec: Mapping[str, Any]) -> Part:
    """Lines that replace the quantised weights by their values in float64."""
    kind = "Linear8bitLt" if spec["bits"] == 8 else "Linear4bit"
    if spec["bits"] == 8:
        weight = "layer.weight.data.double() * (layer.weight.SCB.double().view(-1, 1) / 127)"
    else:
        weight = "dequantize_4bit(layer.weight.data, layer.weight.quant_state).double()"
    lines = (
        "def dequantise(base):",
        "    for parent in list(base.modules()):",
        "        for name, layer in list(parent.named_children()):",
        f"            if isinstance(layer, {kind}):",
        f"                weight = {weight}",
        "                new = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)",
        "                new.weight.data = weight",
        "                if layer.bias is not None:",
        "                    new.bias.data = layer.bias.data.double()",
        "                setattr(parent, name, new)",
        "    base.is_loaded_in_4bit = base.is_loaded_in_8bit = base.is_quantized = False",
        "    torch.set_default_dtype(torch.float64)",
        "    return torch.nn.Module.to(base, torch.float64)",
    )
    imports: tuple[str, ...] = ("import torch", f"from bitsandbytes.nn import {kind}")
    imports += ("from bitsandbytes.functional import dequantize_4bit",) if spec["bits"] == 4 else ()
    return Part(("base = dequantise(base)",), imports, {"dequantise": lines})
