"""Folders with saved adapters, made without the libraries that save them."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Q = "base_model.model.model.layers.{}.self_attn.q_proj"
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "org/model", "r": 4, "lora_alpha": 8,
    "target_modules": ["q_proj"], "bias": "none", "modules_to_save": None, "inference_mode": True,
}  # fmt: skip
SHAPES = {
    f"{Q.format(layer)}.lora_{half}.weight": shape
    for layer in range(2)
    for half, shape in (("A", (4, 8)), ("B", (8, 4)))
}


def values(shape: tuple[int, ...], first: float = 0.5) -> bytes:
    """Values of float32 that are not 0."""
    return struct.pack(f"<{math.prod(shape)}f", *(first + index for index in range(math.prod(shape))))


def safetensors(
    shapes: Mapping[str, tuple[int, ...]], dtype: str = "F32", content: Mapping[str, bytes] | None = None
) -> bytes:
    """A safetensors file."""
    header, data = {}, b""
    for key, shape in shapes.items():
        own = (content or {}).get(key, values(shape))
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(own)]}
        data += own
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def folder(
    path: Path,
    config: Mapping[str, Any] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    **more: Any,
) -> Path:
    """A folder with an adapter; `more` is for `safetensors`. A value of None in the config leaves the key out."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(CONFIG | dict(config or {})))
    (path / "adapter_model.safetensors").write_bytes(safetensors(SHAPES if shapes is None else shapes, **more))
    return path


class _Named:
    """A function of a pickle that is not imported when the pickle is made."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Call:
    def __init__(self, function: _Named, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class _Storage:
    def __init__(self, key: str, count: int) -> None:
        self.key, self.count = key, count


_PYTHON: Any = vars(pickle)["_Pickler"]
"""The pickler in Python: the one in C cannot write a name that it does not import."""


class _Pickler(_PYTHON):  # type: ignore[misc]
    """Writes what `torch.save` writes, without Torch."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, _Storage):
            return ("storage", _Named("torch", "FloatStorage"), value.key, "cpu", value.count)
        return None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Named):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, _Call):
            self.save(value.function)
            self.save(tuple(value.arguments))
            self.write(b"R")
        else:
            super().save(value, save_persistent_id)


def _dumped(value: Any) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, 2).dump(value)
    return stream.getvalue()


def _state(shapes: Mapping[str, tuple[int, ...]]) -> Any:
    def tensor(place: int, shape: tuple[int, ...]) -> _Call:
        stride = tuple(math.prod(shape[index + 1 :]) for index in range(len(shape)))
        storage = _Storage(str(place), math.prod(shape))
        rebuild = _Named("torch._utils", "_rebuild_tensor_v2")
        return _Call(rebuild, storage, 0, shape, stride, False, OrderedDict())

    return {key: tensor(place, shape) for place, (key, shape) in enumerate(shapes.items())}


def torch_file(path: Path, shapes: Mapping[str, tuple[int, ...]], state: Any = None) -> Path:
    """A file as `torch.save` writes it; `state` replaces the dictionary of tensors."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", _dumped(_state(shapes) if state is None else state))
        archive.writestr("archive/version", "3\n")
        for place, shape in enumerate(shapes.values()):
            archive.writestr(f"archive/data/{place}", values(shape))
    return path


def legacy_file(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """A file as Torch before 1.6 wrote it."""
    keys = [str(place) for place in range(len(shapes))]
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, _state(shapes), keys]
    data = b"".join(struct.pack("<q", math.prod(shape)) + values(shape) for shape in shapes.values())
    path.write_bytes(b"".join(map(_dumped, parts)) + data)
    return path


def calling(module: str, name: str, *arguments: Any) -> Any:
    """A state dict that calls a function when it is loaded."""
    return {"x": _Call(_Named(module, name), *arguments)}
