"""Files of tensors are read without executing anything, and damage is named."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest

from harness.store import tensor_file, tensor_pickle
from harness.store.tensor_file import BadTensorFile
from tests.support import adapters

SHAPES = {"a": (2, 3), "b": (4,)}


def _written(form: str, path: Path) -> Path:
    if form == "safetensors":
        path.write_bytes(adapters.safetensors(SHAPES))
        return path
    return {"zip": adapters.torch_file, "legacy": adapters.legacy_file}[form](path, SHAPES)


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_all_formats_say_the_same(form: str, tmp_path: Path) -> None:
    path = _written(form, tmp_path / "adapter_model.bin")
    found = tensor_file.read(path).tensors
    assert {key: (one.shape, one.dtype, one.size) for key, one in found.items()} == {
        "a": ((2, 3), "float32", 24),
        "b": ((4,), "float32", 16),
    }
    assert {key: bytes(one.of(path.read_bytes())) for key, one in found.items()} == {
        key: adapters.values(shape) for key, shape in SHAPES.items()
    }


CALLS = [
    ("posix", "system", "os.system"),
    ("builtins", "eval", "builtins.eval"),
    ("torch.hub", "load", "torch.hub.load"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__", "torch._utils._rebuild_tensor_v2.__globals__"),
]


@pytest.mark.parametrize(("module", "name", "said"), CALLS)
def test_a_pickle_that_would_call_something_is_refused_by_name(
    module: str, name: str, said: str, tmp_path: Path
) -> None:
    mark = tmp_path / "executed"
    path = adapters.torch_file(tmp_path / "adapter_model.bin", {}, adapters.calling(module, name, f"touch '{mark}'"))
    with pytest.raises(BadTensorFile, match=f"adapter_model.bin would call {said} on loading: do not load it"):
        tensor_file.read(path)
    assert not mark.exists()


class _Executes:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_a_plain_pickle_is_refused(protocol: int, tmp_path: Path) -> None:
    path, mark = tmp_path / "x.bin", tmp_path / "executed"
    path.write_bytes(pickle.dumps(_Executes(mark), protocol))
    with pytest.raises(BadTensorFile):
        tensor_file.read(path)
    assert not mark.exists()


def test_instances_of_classes_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x80\x02(ios\nsystem\n.")
    with pytest.raises(BadTensorFile, match=r"os\.system"):
        tensor_file.read(path)


def test_keys_that_take_forever_to_hash_are_not_hashed(tmp_path: Path) -> None:
    doubled = b")" + b"q\x000h\x00h\x00\x86" * 200  # a tuple of two of the tuple before
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x80\x02}" + doubled + b"K\x01s.")
    with pytest.raises(BadTensorFile, match="a pickle of a dict"):
        tensor_file.read(path)


BAD = [
    (b"", "is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "pointer of Git LFS"),
    (b"<!DOCTYPE html><html>", "web page"),
    (b"PK\3\4 and nothing else", "zip"),
    (b"\x80\x02.", "cannot be read"),
    (b"\x80\x02]", "without an end|cannot be read"),
    (b"hello world", "starts with"),
    (struct.pack("<Q", 1 << 60) + b"{}", "a header of"),
    (b"\xff" * 8, "starts with"),
    (adapters.safetensors(SHAPES)[:-1], "cut off"),
    (adapters.safetensors(SHAPES)[:40], "a header of"),
    (adapters.safetensors(SHAPES, content={"a": b"123"}), "'a' of type float32 and shape"),
]


@pytest.mark.parametrize(("data", "said"), BAD)
def test_a_damaged_file_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadTensorFile, match=said):
        tensor_file.read(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_truncated_pickle_is_named(form: str, tmp_path: Path) -> None:
    path = _written(form, tmp_path / "adapter_model.bin")
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(BadTensorFile):
            tensor_file.read(path)


def test_a_pickle_of_too_many_steps_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_pickle, "_MOST", 1000)
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x80\x02" + b"N0" * 600 + b"N.")
    with pytest.raises(BadTensorFile, match="more than 1,000 steps"):
        tensor_file.read(path)


def test_a_tensor_with_fewer_strides_than_dimensions_is_damage(tmp_path: Path) -> None:
    path = adapters.torch_file(tmp_path / "x.bin", {"a": (2, 3)})
    data = path.read_bytes()
    strides = b"K\x03K\x01\x86"
    assert strides in data
    path.write_bytes(data.replace(strides, b"K\x03N0\x85"))
    with pytest.raises(BadTensorFile):
        tensor_file.read(path)
