"""Writes some tensors of a file under other keys, byte for byte, in the format that the file has.

The format matters: releases read `.bin` and safetensors by different code. `torch.save` is not needed for a `.bin`: its
zip archive holds the values as they are, and a pickle that names them. That pickle is written here, operation by
operation, and it can only hold tensors.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import HarnessError
from harness.store.tensor_file import SAFETENSORS, WIDTHS, Tensor, TensorFile
from harness.worker.files import open_regular

_SAFE = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64",
}  # fmt: skip
_STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip
_DAY = (1980, 1, 1, 0, 0, 0)
"""The same files give the same bytes."""


@dataclass(frozen=True)
class Kept:
    """A tensor that is written.

    Attributes:
        key: its new key.
        tensor: what it is in the source.
        columns: leading columns that are kept; None for all.
    """

    key: str
    tensor: Tensor
    columns: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its new shape."""
        shape = self.tensor.shape
        return shape if self.columns is None else (*shape[:-1], self.columns)

    def values(self, data: bytes) -> bytes:
        """Its bytes, from those of the source as it was."""
        if self.columns is None:
            return data
        width = WIDTHS[self.tensor.dtype]
        row, part = self.tensor.shape[-1] * width, self.columns * width
        return b"".join(data[start : start + part] for start in range(0, len(data), row))


def write(source: Path, target: Path, file: TensorFile, keys: Mapping[str, str], columns: Mapping[str, int]) -> None:
    """Write the tensors that are kept.

    Args:
        file: what the source holds.
        keys: key in the source → key in the target.
        columns: key in the source → leading columns that are kept of it.

    Raises:
        HarnessError: a tensor is stored in a way that cannot be copied.
    """
    kept = [Kept(keys[key], tensor, columns.get(key)) for key, tensor in file.tensors.items() if key in keys]
    for one in kept:
        _must_be_plain(one, source.name)
    with open_regular(source, links=True) as stream:

        def values() -> Iterator[bytes]:
            for one in kept:
                stream.seek(one.tensor.start or 0)
                yield one.values(stream.read(one.tensor.size))

        if source.name.endswith(SAFETENSORS):
            _safetensors(target, kept, values(), file)
        else:
            _zip(target, kept, values())


def _must_be_plain(one: Kept, name: str) -> None:
    known = _SAFE if name.endswith(SAFETENSORS) else _STORAGES
    whole = math.prod(one.tensor.shape) * WIDTHS.get(one.tensor.dtype, 0)
    if one.tensor.start is None or one.tensor.dtype not in known or one.tensor.size != whole:
        raise HarnessError(
            f"{name}: {one.key!r} ({one.tensor.dtype}, {list(one.tensor.shape)}) cannot be copied by itself: "
            "its values are not in one piece, or of an unusual type",
            "tensors as save_pretrained() writes them", "try the whole model: --whole",
        )  # fmt: skip


def _safetensors(target: Path, kept: Iterable[Kept], values: Iterable[bytes], file: TensorFile) -> None:
    header: dict[str, object] = {"__metadata__": dict(file.metadata)} if file.metadata else {}
    place = 0
    for one in kept:
        size = math.prod(one.shape) * WIDTHS[one.tensor.dtype]
        offsets = [place, place + size]
        header[one.key] = {"dtype": _SAFE[one.tensor.dtype], "shape": list(one.shape), "data_offsets": offsets}
        place += size
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for data in values:
            out.write(data)


def _zip(target: Path, kept: list[Kept], values: Iterable[bytes]) -> None:
    name = target.stem
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:

        def add(file: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"{name}/{file}", _DAY), data)

        add("data.pkl", _pickle(kept))
        for index, data in enumerate(values):
            add(f"data/{index}", data)
        add("version", b"3\n")


# The pickle of a state dict, protocol 2


def _pickle(kept: Iterable[Kept]) -> bytes:
    pairs = b"".join(_text(one.key) + _rebuilt(one, index) for index, one in enumerate(kept))
    return b"\x80\x02" + _ORDERED_DICT + b"(" + pairs + b"u."


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
"""An empty one: GLOBAL, EMPTY_TUPLE, REDUCE."""


def _rebuilt(one: Kept, index: int) -> bytes:
    """`torch._utils._rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks)`."""
    count = math.prod(one.shape)
    storage = _tuple(
        _text("storage"), f"ctorch\n{_STORAGES[one.tensor.dtype]}\n".encode(), _text(str(index)), _text("cpu"),
        _int(count),
    )  # fmt: skip
    strides = [math.prod(one.shape[place + 1 :]) for place in range(len(one.shape))]
    shape, stride = (_tuple(*map(_int, numbers)) for numbers in (one.shape, strides))
    arguments = _tuple(storage + b"Q", _int(0), shape, stride, b"\x89", _ORDERED_DICT)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    data = number.to_bytes(8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data
