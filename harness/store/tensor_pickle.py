"""Reads what `torch.save` wrote, without executing it.

A pickle is a program for a stack machine, and `torch.load` may run any function that it names. The machine here builds
dictionaries, lists and tuples only. It knows the functions that rebuild a tensor, and refuses every other name.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from harness.store.tensor_file import WIDTHS, BadTensorFile, Tensor, TensorFile, damaged

_LONGEST = 32 << 20
"""The most bytes of a pickle that are read: 10,000 tensors need 3 MB."""
_MOST = 4_000_000
"""The most steps of a pickle that are followed: 10,000 tensors need 600,000."""
_LEGACY = 0x1950A86A20F9469CFC6C
"""The first number of a file that `torch.save` wrote before Torch 1.6."""
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128", "Untyped": "",
}  # fmt: skip
"""The class `torch.FloatStorage` → the type of its values."""


@dataclass(frozen=True)
class _Name:
    """A function or class that a pickle names."""

    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor: a part of a storage."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def placed(self, starts: Mapping[str, int]) -> Tensor:
        """The tensor, where its storage starts in the file."""
        width, count = WIDTHS.get(self.dtype, 0), math.prod(self.shape)
        spans = sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True)) + 1
        whole = width and count == spans and self.storage.key in starts
        start = starts[self.storage.key] + self.offset * width if whole else None
        return Tensor(self.dtype, self.shape, start, count * width)


def _view(storage: _Storage, offset: int, shape: Sequence[int], stride: Sequence[int], dtype: str = "") -> _View:
    numbers = (offset, *shape, *stride)
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(stride)
        or not all(type(each) is int and each >= 0 for each in numbers)
    ):
        raise ValueError("a tensor without a storage or a shape")
    return _View(storage, dtype or storage.dtype, offset, tuple(shape), tuple(stride))


_KNOWN: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda pairs=(): _filled({}, [part for pair in pairs for part in pair]),
    "torch.Size": tuple,
    "torch.device": lambda *_: None,
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": lambda storage, offset, shape, stride, *_: _view(storage, offset, shape, stride),
    "torch._utils._rebuild_tensor_v3": lambda storage, offset, shape, stride, _grad, _hooks, dtype, *_: _view(
        storage, offset, shape, stride, dtype.text.removeprefix("torch.")
    ),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
}
"""What may be called, and what we do instead."""
_TYPES = {f"torch.{name}" for name in WIDTHS}
_CLASSES = {f"torch.{name}Storage" for name in _STORAGES} | {
    "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage",
}


def read_zip(file: BinaryIO, name: str) -> TensorFile:
    """The content of a file of Torch 1.6 or later.

    Raises:
        BadTensorFile: it is damaged, or loading it would execute something.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            found = {one.filename: one for one in archive.infolist()}
            pickled = [one for one in found if one.endswith("/data.pkl")]
            if len(pickled) != 1:
                raise BadTensorFile(f"{name} is a zip archive without tensors", "a file that torch.save wrote", "")
            root = pickled[0].removesuffix("data.pkl")
            if f"{root}constants.pkl" in found:
                raise BadTensorFile(f"{name} is a TorchScript program", "a file of tensors", "save its state_dict()")
            with archive.open(pickled[0]) as stream:
                value = _Machine(io.BytesIO(stream.read(_LONGEST)), name).value()
            stored = {one: info for one, info in found.items() if info.compress_type == zipfile.ZIP_STORED}
        starts = {one.removeprefix(f"{root}data/"): _start(file, info) for one, info in stored.items()}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        RuntimeError,
        struct.error,
        zlib.error,
        OSError,
    ) as error:
        raise damaged(name, str(error)) from error
    return _content(value, starts, name)


def _start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """The place of an entry's first byte: after its own header, whose length the archive's list does not have."""
    file.seek(info.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return int(info.header_offset + 30 + name + extra)


def read_legacy(file: BinaryIO, name: str) -> TensorFile:
    """The content of a file of Torch before 1.6, or of `_use_new_zipfile_serialization=False`.

    Raises:
        BadTensorFile: it is something else, it is damaged, or loading it would execute something.
    """
    end = file.seek(0, 2)
    file.seek(0)
    stream = io.BytesIO(file.read(_LONGEST))
    if (first := _Machine(stream, name).value()) != _LEGACY:
        what = "an object" if not isinstance(first, dict | list) else f"a {type(first).__name__}"
        raise BadTensorFile(f"{name} is a pickle of {what}", "a file that torch.save wrote", "save it with torch.save")
    _protocol, _system, value, keys = (_Machine(stream, name).value() for _ in range(4))
    starts, place, counts = {}, stream.tell(), _counts(value)
    for key in keys if isinstance(keys, list) else ():
        starts[str(key)] = place + 8
        place += 8 + counts.get(str(key), 0)
    if place > end:
        raise damaged(name, f"it is cut off: its tensors need {place:,} bytes, and it has {end:,}")
    return _content(value, starts, name)


def _counts(value: Any) -> dict[str, int]:
    """Storage → its bytes."""
    views = [each for each in value.values() if isinstance(each, _View)] if isinstance(value, dict) else []
    return {each.storage.key: each.storage.count * WIDTHS.get(each.storage.dtype, 1) for each in views}


def _content(value: Any, starts: Mapping[str, int], name: str) -> TensorFile:
    if not isinstance(value, dict):
        raise BadTensorFile(f"{name} holds no dictionary of tensors", "names and tensors", "save its state_dict()")
    views = {key: each for key, each in value.items() if isinstance(each, _View)}
    tensors = {key: each.placed(starts) for key, each in views.items()}
    return TensorFile(tensors, tuple(key for key in value if key not in views))


class _Machine:
    """Reads one pickle from a stream, up to its end."""

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self._stream = stream
        self._file = file
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def value(self) -> Any:
        """What it holds.

        Raises:
            BadTensorFile: it is damaged, or loading it would execute something.
        """
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
                if count > _MOST:
                    raise ValueError(f"it has more than {_MOST:,} steps")
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except BadTensorFile:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise damaged(self._file, f"a pickle that cannot be read: {error}") from error
        raise damaged(self._file, "a pickle without an end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        else:
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:  # INST names a class and makes an instance of it
                raise self._refused(argument.replace(" ", ".") if name == "INST" else f"the operation {name}")
            step(argument) if name == "GLOBAL" else step()

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Any]:
        place = self._marks.pop()
        found = self._stack[place:]
        del self._stack[place:]
        return found

    def _pop(self) -> None:
        self._stack.pop()

    def _tuple(self) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _list(self) -> None:
        self._stack.append(self._since_mark())

    def _dict(self) -> None:
        self._stack.append(_filled({}, self._since_mark()))

    def _tuple1(self) -> None:
        self._stack[-1:] = [tuple(self._stack[-1:])]

    def _tuple2(self) -> None:
        self._stack[-2:] = [tuple(self._stack[-2:])]

    def _tuple3(self) -> None:
        self._stack[-3:] = [tuple(self._stack[-3:])]

    def _append(self) -> None:
        value = self._stack.pop()
        self._stack[-1].append(value)

    def _appends(self) -> None:
        values = self._since_mark()
        self._stack[-1].extend(values)

    def _setitem(self) -> None:
        pair = self._stack[-2:]
        del self._stack[-2:]
        _filled(self._stack[-1], pair)

    def _setitems(self) -> None:
        pairs = self._since_mark()
        _filled(self._stack[-1], pairs)

    def _build(self) -> None:
        """Drop the attributes of a state dict (`_metadata`)."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict | _View):
            raise ValueError("attributes of something other than a dictionary or a tensor")

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self) -> None:
        module, name = self._stack[-2:]
        del self._stack[-2:]
        self._name(str(module), str(name))

    def _name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        if text not in _KNOWN and text not in _TYPES and text not in _CLASSES:
            raise self._refused({"posix.system": "os.system", "nt.system": "os.system"}.get(text, text))
        self._stack.append(_Name(text))

    def _reduce(self) -> None:
        function, arguments = self._stack[-2:]
        if not isinstance(function, _Name) or function.text not in _KNOWN:
            raise self._refused(function.text if isinstance(function, _Name) else "something that is not a function")
        self._stack[-2:] = [_KNOWN[function.text](*arguments)]

    def _newobj(self) -> None:
        self._reduce()

    def _binpersid(self) -> None:
        kind, storage, key, _device, count, *_ = self._stack.pop()
        if kind != "storage" or type(count) is not int or count < 0:
            raise ValueError("an object outside of the pickle that is no storage")
        dtype = _STORAGES.get(storage.text.rpartition(".")[2].removesuffix("Storage"), "")
        self._stack.append(_Storage(dtype, str(key), count))

    def _refused(self, called: str) -> BadTensorFile:
        return BadTensorFile(
            f"{self._file} would call {called} on loading: do not load it",
            "a file of tensors, which needs no other function than those that rebuild a tensor",
            "ask its author for a safetensors file; do not pass it to torch.load(weights_only=False)",
        )


def _filled(target: Any, flat: Sequence[Any]) -> Any:
    """The dictionary with the pairs whose key is a text: nothing else names a tensor."""
    if not isinstance(target, dict) or len(flat) % 2:
        raise ValueError("pairs outside of a dictionary")
    target.update({key: value for key, value in zip(flat[::2], flat[1::2], strict=True) if isinstance(key, str)})
    return target


_LITERALS = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
        "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
        "BINBYTES8",
    }
)  # fmt: skip
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict,
}  # fmt: skip
