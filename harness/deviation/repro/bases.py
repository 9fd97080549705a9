"""How a base is loaded, and `model.py` for a base whose class is not a library's (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.deviation.repro.python_text import Part, arguments, literal, part
from harness.deviation.repro.subject import Side, Subject


def unquantised(side: Side, subject: Subject, folder: str) -> Part:
    """Lines that load a base into `base` without quantising it."""
    base = side.base
    more = f", {arguments(base['load_with'])}" if base["load_with"] else ""
    if base["kind"] == "hub" and folder == "base":
        source = f'"{base["repo"]}", revision="{base["revision"]}"'
        line = f"base = {base['model']}.from_pretrained({source}{more}).float()"
        return part(line, imports=[f"from transformers import {base['model']}"])
    if base["kind"] in ("transformers", "hub"):
        line = f'base = {base["model"]}.from_pretrained("{folder}"{more})'
        return part(line, imports=[f"from transformers import {base['model']}"])
    if subject.has_own_format:
        return part(f'base = type(build()).from_pretrained("{folder}")', imports=["from model import build"])
    lines = ("base = build().eval()", f'load_model(base, "{folder}/model.safetensors")')
    return part(*lines, imports=["from model import build", "from safetensors.torch import load_model"])


def model_file(base: Mapping[str, Any]) -> str:
    """The text of `model.py`; empty if the base's class is a library's."""
    if base["kind"] == "python":
        return str(base["source"])
    if base["kind"] != "modules":
        return ""
    names = [module["name"] for module in base["modules"]]
    conv1d = any(module["type"] == "Conv1D" for module in base["modules"])
    lines = ["import torch", *(["from transformers.pytorch_utils import Conv1D"] if conv1d else []), "", ""]
    lines += ["class Model(torch.nn.Module):", "    def __init__(self):", "        super().__init__()"]
    lines += [f"        self.{module['name']} = {_made(module)}" for module in base["modules"]]
    lines += ["", "    def forward(self, x):", f"        for layer in ({', '.join('self.' + n for n in names)},):"]
    lines += ["            x = layer(x)", "        return x", "", "", "def build():", "    return Model()"]
    return "\n".join(lines) + "\n"


def _made(module: Mapping[str, Any]) -> str:
    kind = module["type"] if module["type"] == "Conv1D" else f"torch.nn.{module['type']}"
    given = [literal(value) for value in module["args"]] + ([arguments(module["kwargs"])] if module["kwargs"] else [])
    return f"{kind}({', '.join(given)})"
