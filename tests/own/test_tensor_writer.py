"""Tensors are written byte for byte, in the format that the file has."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from harness.core.errors import HarnessError
from harness.own import tensor_writer
from harness.store import tensor_file
from harness.store.tensor_file import Tensor, TensorFile

VALUES = {"a.0": ("F32", [2, 4], bytes(range(32))), "a.1": ("BF16", [3], b"abcdef"), "p": ("I64", [], b"12345678")}


def safetensors(path: Path) -> TensorFile:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for key, (dtype, shape, values) in VALUES.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return tensor_file.read(path)


def contents(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    data = path.read_bytes()
    found = tensor_file.read(path).tensors
    return {key: (one.dtype, one.shape, bytes(one.of(data))) for key, one in found.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_tensors_are_renamed_and_left_out(tmp_path: Path, suffix: str) -> None:
    file = safetensors(tmp_path / "source.safetensors")
    (tmp_path / f"source{suffix}").write_bytes((tmp_path / "source.safetensors").read_bytes())
    target = tmp_path / f"adapter_model{suffix}"
    tensor_writer.write(tmp_path / f"source{suffix}", target, file, {"a.0": "a.1", "p": "p"}, {})
    assert contents(target) == {"a.1": ("float32", (2, 4), bytes(range(32))), "p": ("int64", (), b"12345678")}
    assert (target.read_bytes()[:4] == b"PK\3\4") is (suffix == ".bin")


def test_metadata_stays(tmp_path: Path) -> None:
    file = safetensors(tmp_path / "source.safetensors")
    tensor_writer.write(tmp_path / "source.safetensors", tmp_path / "t.safetensors", file, {"p": "p"}, {})
    assert tensor_file.read(tmp_path / "t.safetensors").metadata == {"format": "pt"}


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_leading_columns_are_kept(tmp_path: Path, suffix: str) -> None:
    file = safetensors(tmp_path / "source.safetensors")
    (tmp_path / f"source{suffix}").write_bytes((tmp_path / "source.safetensors").read_bytes())
    tensor_writer.write(tmp_path / f"source{suffix}", tmp_path / f"t{suffix}", file, {"a.0": "a.0"}, {"a.0": 2})
    assert contents(tmp_path / f"t{suffix}") == {"a.0": ("float32", (2, 2), bytes([*range(8), *range(16, 24)]))}


@pytest.mark.parametrize(
    "tensor",
    [Tensor("float32", (2,), None, 8), Tensor("float32", (2,), 0, 4), Tensor("F4_NEW", (2,), 0, 8)],
)
def test_what_cannot_be_copied_is_refused(tmp_path: Path, tensor: Tensor) -> None:
    safetensors(tmp_path / "source.safetensors")
    with pytest.raises(HarnessError, match="cannot be copied"):
        tensor_writer.write(tmp_path / "source.safetensors", tmp_path / "t", TensorFile({"x": tensor}), {"x": "y"}, {})
