"""Names what a user handed over in place of an adapter of PEFT."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError, UsageError
from harness.core.text import one_line, visible
from harness.store import tensor_file
from harness.store.tensor_file import PICKLES, SAFETENSORS, BadTensorFile
from harness.worker.files import parse_json, read_regular

EXPECTED = "a folder in which PEFT saved an adapter: adapter_config.json and adapter_model.safetensors (or .bin)"

_BY_FILE = (
    ("*.gguf", "a model or adapter in GGUF, the format of llama.cpp",
     "pass the folder that it was converted from: the conversion loses what this tool looks at"),
    ("pytorch_adapter.bin", "an adapter of the library Adapters (AdapterHub)", "load it with that library"),
    ("pytorch_lora_weights.*", "a LoRA that Diffusers saved", "load it with load_lora_weights() of Diffusers"),
    ("model_index.json", "a pipeline of Diffusers", "pass the folder of an adapter"),
    ("adapters.safetensors", "an adapter of MLX", "load it with mlx_lm"),
    ("adapters.npz", "an adapter of MLX", "load it with mlx_lm"),
    ("lit_model.pth*", "a checkpoint of LitGPT", "convert it with LitGPT"),
    ("zero_to_fp32.py", "a checkpoint of DeepSpeed", "convert it with this script, or save the adapter"),
    ("*.distcp", "a distributed checkpoint of Torch", "merge it, and save the adapter with model.save_pretrained()"),
    ("model*.safetensors", "a whole model, not an adapter", "pass the folder of the adapter; --base takes a model"),
    ("pytorch_model*.bin", "a whole model, not an adapter", "pass the folder of the adapter; --base takes a model"),
    ("tf_model*.h5", "a whole model of TensorFlow", "pass the folder of an adapter"),
    ("flax_model*.msgpack", "a whole model of Flax", "pass the folder of an adapter"),
    ("*.onnx", "a model in ONNX", "pass the folder of an adapter"),
)  # fmt: skip
"""Glob of a file's name → what the folder is, and what to do."""

_BY_KEY = (
    (r"(lora|lycoris)_(unet|te\d?|transformer|prior)_.*\.(hada|lokr|oft)_", "an adapter of LyCORIS"),
    (r"(lora_unet|lora_te\d?|lora_transformer|lora_prior|lycoris)_", "a LoRA of Kohya's sd-scripts (A1111, ComfyUI)"),
    (r"bundle_emb\.", "an adapter of OneTrainer"),
    (r"(oft_unet|oft_te|hada_unet)_", "an adapter of LyCORIS"),
    (r"(unet|transformer|text_encoder(_\d)?|prior)\..*(lora|processor)", "a LoRA that Diffusers saved"),
    (r".*\.processor\.(to_|add_).*_lora\.", "a LoRA that an early Diffusers saved (attention processors)"),
    (r"(diffusion_model|model\.diffusion_model)\..*lora", "a LoRA for ComfyUI"),
    (r"(emb_params|string_to_param|<[^>]+>)$", "an embedding of textual inversion"),
    (r".*\.(adapters|attention_adapters|output_adapters)\.", "an adapter of the library Adapters (AdapterHub)"),
    (r".*\.lora_[ab]$", "an adapter of MLX"),
    (r"base_model\.model\.", "tensors of an adapter of PEFT without their adapter_config.json"),
)
"""Regex of the start of a key → what the file is."""

_BY_CONFIG = (
    ({"fine_tune_type"}, "an adapter of MLX"),
    ({"lora_layers"}, "an adapter of MLX"),
    ({"lora_parameters"}, "an adapter of MLX"),
    ({"config", "hidden_size"}, "an adapter of the library Adapters (AdapterHub)"),
    ({"config", "model_type"}, "an adapter of the library Adapters (AdapterHub)"),
    ({"adapter_attn_dim"}, "the configuration of a Wav2Vec2 adapter of Transformers"),
    ({"architectures"}, "the configuration of a whole model"),
)
"""Keys of an adapter_config.json without `peft_type` → what wrote it."""


def folder(path: Path, files: tuple[str, ...]) -> HarnessError:
    """The error for a folder without `adapter_config.json`: says what it holds."""
    if not files and not any(path.iterdir()):
        return UsageError(f"{path} is empty", EXPECTED, "check the path, or copy the adapter's files")
    for pattern, what, next_step in _BY_FILE:
        if name := next((one for one in files if fnmatch.fnmatchcase(one, pattern)), None):
            named = f"{visible(name)}, model type {model}" if (model := _model(path)) else visible(name)
            return _not_peft(path, f"{what} ({named})", next_step)
    for name in files:
        if name.endswith((SAFETENSORS, *PICKLES)) and name not in _BESIDE:
            return file(path / name)
    kinds = ", ".join(visible(one) for one in files[:6]) or "only folders"
    return UsageError(f"{path} holds no adapter: {kinds}", EXPECTED, "pass the folder with adapter_config.json")


_BESIDE = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "optimizer.bin")
"""What a Trainer leaves beside a checkpoint; not opened."""


def file(path: Path) -> HarnessError:
    """The error for a file that is no part of an adapter's folder: says what it holds."""
    for pattern, what, next_step in _BY_FILE:
        if fnmatch.fnmatchcase(path.name, pattern):
            return _not_peft(path, what, next_step)
    try:
        content = tensor_file.read(path)
    except BadTensorFile as error:
        return UsageError(f"{path.parent}: {error.found}", EXPECTED, error.next_step)
    except OSError as error:
        return UsageError(f"{path}: {error.strerror}", EXPECTED, "check the path")
    what = _by_keys(content.tensors)
    if what.startswith("tensors of an adapter of PEFT"):
        next_step = "put the adapter_config.json beside it that was saved with it"
    else:
        next_step = "load it with the library that it was made for"
    return _not_peft(path, what, next_step)


def _by_keys(keys: Iterable[str]) -> str:
    """What a file with these keys is."""
    keys = list(keys)
    for pattern, what in _BY_KEY:
        if any(re.match(pattern, key) for key in keys):
            return what
    return f"{len(keys)} tensors that no known format of adapters has ({one_line(', '.join(keys[:3]), 120)})"


def config_without_method(path: Path, config: Mapping[str, Any], files: tuple[str, ...]) -> HarnessError:
    """The error for an `adapter_config.json` without `peft_type`."""
    for known, what in _BY_CONFIG:
        if known <= set(config):
            return _not_peft(path, f"{what} (adapter_config.json)", "load it with the library that it was made for")
    if "pytorch_adapter.bin" in files:
        return _not_peft(path, "an adapter of the library Adapters (AdapterHub)", "load it with that library")
    keys = one_line(", ".join(sorted(config)), 200) or "none"
    there = f"is {one_line(repr(config['peft_type']), 40)}" if config.get("peft_type") is not None else "is not set"
    return HarnessError(
        f"{path / 'adapter_config.json'}: `peft_type` {there}, so it does not say the method; its keys: {keys}",
        "the name of a method in `peft_type`", "restore the file, or write the line, such as \"peft_type\": \"LORA\"",
    )  # fmt: skip


def _not_peft(path: Path, what: str, next_step: str) -> UsageError:
    return UsageError(f"{path} is no adapter of PEFT: it is {what}", EXPECTED, next_step)


def _model(path: Path) -> str:
    """The model's type according to `config.json`; empty if there is none."""
    try:
        found = parse_json(read_regular(path / "config.json", 1 << 24))
        return one_line(str(found.get("model_type") or ""), 60)
    except (OSError, ValueError, AttributeError):
        return ""
