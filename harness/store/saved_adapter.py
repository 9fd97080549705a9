"""What a release saved: files, keys, shapes, types, values and config of one stored adapter.

It is read without the library that wrote it, and without opening a pickle. Keys and shapes come from the golden, types
and values from the safetensors file. For a `.bin` there are only the digests in the golden.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.store import tensor_file
from harness.store.fixtures import Store
from harness.store.manifest import BadFixture, Manifest
from harness.store.tensor_file import WEIGHTS
from harness.worker.files import parse_json

CONFIG = "adapter/adapter_config.json"
_OBSERVATION = "golden/observation.json"
_DIGITS = 16
"""Length of a digest of the worker: see `digest` in `harness/worker/observe/accounting.py`."""


@dataclass(frozen=True)
class Written:
    """One adapter as its creator's libraries saved it.

    Attributes:
        files: every file of the adapter → SHA-256.
        shapes: key → shape.
        dtypes: key → Torch's name of the type (`float32`), from the golden or a safetensors file; empty if unknown.
        digests: key → digest of the values as float32, equal in both file formats; empty if it was not recorded.
        contents: key → digest of the bytes in the safetensors file; empty for other files.
        config: `adapter_config.json`, without version strings.
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
        """Files with tensors → SHA-256."""
        return {name: sha256 for name, sha256 in self.files.items() if name.endswith(WEIGHTS)}

    @property
    def method(self) -> str:
        """The method according to the config: `LORA`."""
        return str(self.config.get("peft_type", ""))


def read(store: Store, manifest: Manifest) -> Written:
    """The adapter of one fixture.

    Raises:
        BadFixture: a file cannot be read.
    """
    device_class = any_device_class(manifest)
    facts = json_of(store, manifest, _OBSERVATION, device_class).get("facts", {}).get("accounting", {})
    config = json_of(store, manifest, CONFIG, device_class) if CONFIG in manifest.files else {}
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
        dtypes=facts.get("dtypes") or {key: dtype for key, (dtype, _, _) in tensors.items()},
        digests=facts.get("digests") or _digests(tensors),
        contents={key: digest for key, (_, _, digest) in tensors.items()},
        config={key: value for key, value in config.items() if not is_version(key)},
        versions={key: value for key, value in config.items() if is_version(key)},
        libraries=manifest.versions,
    )


def _digests(tensors: Mapping[str, tuple[str, tuple[int, ...], str]]) -> dict[str, str]:
    """The digests that the worker would have recorded, if the file has float32 only; else none."""
    if any(dtype != "float32" for dtype, _, _ in tensors.values()):
        return {}
    return {key: digest[:_DIGITS] for key, (_, _, digest) in tensors.items()}


def is_version(key: str) -> bool:
    """True for an entry of the config that only names a release."""
    return key == "version" or key.endswith("_version")


def any_device_class(manifest: Manifest) -> str:
    """A device class that the fixture has a golden of, to read files that are the same for all of them."""
    return "cpu" if "cpu" in manifest.goldens else sorted(manifest.goldens)[0]


def json_of(store: Store, manifest: Manifest, name: str, device_class: str) -> dict[str, Any]:
    """The JSON object in one file of a fixture.

    Raises:
        BadFixture: it is none.
    """
    try:
        data = parse_json(store.content(manifest, name, device_class))
    except ValueError as error:
        raise _bad(f"{name} of {manifest.creator}/{manifest.scenario}: {error}") from error
    if not isinstance(data, dict):
        raise _bad(f"{name} of {manifest.creator}/{manifest.scenario}: not a JSON object")
    return data


def _tensors(data: bytes, what: str) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Key → type, shape and digest of the bytes, from a safetensors file."""
    try:
        found = tensor_file.safetensors(io.BytesIO(data), what).tensors
    except tensor_file.BadTensorFile as error:
        raise _bad(error.found) from error
    return {key: (one.dtype, one.shape, hashlib.sha256(one.of(data)).hexdigest()) for key, one in found.items()}


def _bad(found: str) -> BadFixture:
    return BadFixture(found, "a file as a release of PEFT saves it", "run `peft-regress fixtures verify`")


def generic(key: str) -> str:
    """The end of a key, without its layer: `…lora_A.weight`. It is the same for all layers and scenarios."""
    parts = ["*" if part.isdigit() else part for part in key.split(".")]
    return ".".join(parts) if len(parts) <= 2 else f"…{'.'.join(parts[-2:])}"
