"""What a file of tensors holds: keys, shapes, types and where the values are. Nothing in it is executed.

It reads safetensors files, and what `torch.save` writes (`harness.store.tensor_pickle`).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from harness.core.errors import HarnessError
from harness.worker.files import open_regular, parse_json

SAFETENSORS = ".safetensors"
PICKLES = (".bin", ".pt", ".pth")
WEIGHTS = (SAFETENSORS, *PICKLES)
"""Suffixes of files with tensors."""
HEADER = 100_000_000
"""The greatest length of a header or of a pickle of keys."""
_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip
"""The type in a safetensors file → Torch's name of it."""
WIDTHS = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Torch's name of a type → bytes of one value."""
_POINTER = b"version https://git-lfs"


class BadTensorFile(HarnessError):
    """A file of tensors that cannot be read: damaged, of another format, or not safe to load."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        dtype: Torch's name of the type; as the file spells it if we do not know it.
        start: the place of its first byte in the file; None if its values are not in one piece.
        size: number of bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int | None
    size: int

    def of(self, data: bytes) -> memoryview:
        """Its bytes, from those of its file."""
        return memoryview(data)[self.start or 0 : (self.start or 0) + self.size]


@dataclass(frozen=True)
class TensorFile:
    """Content of a file of tensors, without the values.

    Attributes:
        others: keys whose values are no tensors; only a pickle has them.
    """

    tensors: Mapping[str, Tensor]
    others: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> TensorFile:
    """The content of a file, by what is in it: its suffix does not matter.

    Raises:
        BadTensorFile: it is no file of tensors, it is damaged, or loading it would execute something.
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path, links=True) as file:
        return _reader(file, path.name)(file, path.name)


def _reader(file: BinaryIO, name: str) -> Callable[[BinaryIO, str], TensorFile]:
    from harness.store import tensor_pickle  # it imports this module

    start = file.read(64)
    if not start:
        raise BadTensorFile(f"{name} is empty", "a file of tensors", "copy or download it again")
    if start.startswith(_POINTER):
        raise BadTensorFile(
            f"{name} is a pointer of Git LFS, not the file itself", "a file of tensors",
            "run `git lfs pull` in the folder, or download the file",
        )  # fmt: skip
    if start.startswith(b"PK\3\4"):
        return tensor_pickle.read_zip
    if start[8:9] == b"{":
        return safetensors
    if start[:1] == b"\x80":
        return tensor_pickle.read_legacy
    page = re.match(rb"\s*<(!doctype|html)", start, re.IGNORECASE)
    raise BadTensorFile(
        f"{name} is a web page" if page else f"{name} starts with {start[:16]!r}: no file of tensors does",
        "a safetensors file, or one that torch.save wrote", "copy or download it again",
    )  # fmt: skip


def safetensors(file: BinaryIO, name: str) -> TensorFile:
    """The content of a safetensors file.

    Raises:
        BadTensorFile: it is damaged.
    """
    end = file.seek(0, 2)
    file.seek(0)
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(HEADER, end - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {end:,}")
        header = parse_json(file.read(length))
        metadata = header.pop("__metadata__", {})
        tensors = {key: _tensor(key, said, 8 + length) for key, said in header.items()}
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(name, f"{error}") from error
    last = max((each.start + each.size for each in tensors.values() if each.start is not None), default=0)
    if last > end:
        raise damaged(name, f"it is cut off: its tensors need {last:,} bytes, and it has {end:,}")
    return TensorFile(tensors, metadata=metadata if isinstance(metadata, dict) else {})


def _tensor(key: str, said: Mapping[str, Any], data: int) -> Tensor:
    begin, end = said["data_offsets"]
    shape = tuple(said["shape"])
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)) or begin > end:
        raise ValueError(f"{key!r} has the shape {shape} and the place {begin}–{end}")
    dtype = _TORCH.get(said["dtype"], str(said["dtype"]))
    if dtype in WIDTHS and end - begin != math.prod(shape) * WIDTHS[dtype]:
        raise ValueError(f"{key!r} of type {dtype} and shape {list(shape)} has {end - begin:,} bytes")
    return Tensor(dtype, shape, data + begin, end - begin)


def damaged(name: str, found: str) -> BadTensorFile:
    """The error for a file that is not whole."""
    return BadTensorFile(f"{name}: {found}", "a whole file of tensors", "copy or download it again")
