"""What a release wrote: the files, keys, shapes, types, values and config of one stored adapter.

Read without the library that wrote it, and without opening a pickle: keys and shapes are facts of the golden, types and
values stand in a safetensors file for everybody to read; of a `.bin` there are only the digests that the golden holds.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.store.fixtures import Store
from harness.store.manifest import BadFixture, Manifest

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""How the names of files end that hold tensors."""
CONFIG = "adapter/adapter_config.json"
_OBSERVATION = "golden/observation.json"
_TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}
_DIGITS = 16
"""Of a digest, as the worker keeps it: see `digest` in `harness/worker/observe/accounting.py`."""
_HEADER = 100_000_000
"""No header of a safetensors file is longer."""


@dataclass(frozen=True)
class Written:
    """One adapter as its creator's libraries wrote it.

    Attributes:
        files: every file of the adapter → SHA-256.
        shapes: key → shape.
        dtypes: key → type as Torch calls it (`float32`), by the golden or a safetensors file; empty where neither says.
        digests: key → digest of the values as float32, which is the same in either format; empty where nobody took it.
        contents: key → digest of the bytes in the safetensors file; empty where the file is none.
        config: of `adapter_config.json`, without version strings.
        versions: the version strings of the config.
        libraries: package → version, of the process that wrote it.
    """

    scenario: str
    creator: str
    release: str
    files: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, str]:
        """The files that hold tensors → SHA-256."""
        return {name: sha256 for name, sha256 in self.files.items() if name.endswith(WEIGHTS)}

    @property
    def method(self) -> str:
        """What the config calls the method: `LORA`."""
        return str(self.config.get("peft_type", ""))


def read(store: Store, manifest: Manifest) -> Written:
    """What one fixture's adapter is.

    Raises:
        BadFixture: a file of it can't be read.
    """
    device_class = "cpu" if "cpu" in manifest.goldens else sorted(manifest.goldens)[0]
    facts = _json(store, manifest, _OBSERVATION, device_class).get("facts", {}).get("accounting", {})
    config = _json(store, manifest, CONFIG, device_class) if CONFIG in manifest.files else {}
    adapter = {name: stored for name, stored in manifest.files.items() if name.startswith("adapter/")}
    tensors: dict[str, tuple[str, tuple[int, ...], str]] = {}
    for name in adapter:
        if name.endswith(".safetensors"):
            tensors |= _tensors(store.content(manifest, name, device_class), f"{name} of {manifest.scenario}")
    shapes = {key: tuple(shape) for key, shape in (facts.get("shapes") or {}).items()}
    return Written(
        scenario=manifest.scenario,
        creator=manifest.creator,
        release=manifest.versions.get("peft", ""),
        files={name.removeprefix("adapter/"): stored.sha256 for name, stored in adapter.items()},
        shapes=shapes or {key: shape for key, (_, shape, _) in tensors.items()},
        dtypes=facts.get("dtypes") or {key: _TORCH.get(dtype, dtype) for key, (dtype, _, _) in tensors.items()},
        digests=facts.get("digests") or _digests(tensors),
        contents={key: digest for key, (_, _, digest) in tensors.items()},
        config={key: value for key, value in config.items() if not _is_version(key)},
        versions={key: value for key, value in config.items() if _is_version(key)},
        libraries=manifest.versions,
    )


def _digests(tensors: Mapping[str, tuple[str, tuple[int, ...], str]]) -> dict[str, str]:
    """The digests that the worker would have taken, where the file holds float32 as it is; else none."""
    if any(dtype != "F32" for dtype, _, _ in tensors.values()):
        return {}
    return {key: digest[:_DIGITS] for key, (_, _, digest) in tensors.items()}


def _is_version(key: str) -> bool:
    return key == "version" or key.endswith("_version")


def _json(store: Store, manifest: Manifest, name: str, device_class: str) -> dict[str, Any]:
    try:
        data = json.loads(store.content(manifest, name, device_class))
    except ValueError as error:
        raise _bad(f"{name} of {manifest.creator}/{manifest.scenario}", str(error)) from error
    if not isinstance(data, dict):
        raise _bad(f"{name} of {manifest.creator}/{manifest.scenario}", "no JSON object")
    return data


def _tensors(data: bytes, what: str) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Key → type, shape and digest of the bytes, of a safetensors file."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > _HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        return {
            key: (str(said["dtype"]), tuple(said["shape"]), _digest(data, 8 + length, said["data_offsets"]))
            for key, said in header.items()
        }
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _bad(what, f"{type(error).__name__}: {error}") from error


def _digest(data: bytes, start: int, offsets: Sequence[int]) -> str:
    begin, end = offsets
    if not 0 <= begin <= end <= len(data) - start:
        raise ValueError(f"offsets {begin}–{end} of {len(data) - start} bytes")
    return hashlib.sha256(data[start + begin : start + end]).hexdigest()


def _bad(what: str, found: str) -> BadFixture:
    return BadFixture(f"{what}: {found}", "a file as a release of PEFT writes it", "look at it with `fixtures verify`")


def generic(key: str) -> str:
    """The end of a key, without its layer: `…lora_A.weight`; of every layer and every scenario the same."""
    parts = ["*" if part.isdigit() else part for part in key.split(".")]
    return ".".join(parts) if len(parts) <= 2 else f"…{'.'.join(parts[-2:])}"
