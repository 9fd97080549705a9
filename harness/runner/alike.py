"""Which fixtures a loader cannot tell apart, and which observations are equal: the rules of `shared_replay`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from packaging.version import Version
from safetensors.numpy import load

from harness.core.observation import Observed
from harness.core.text import enumerated
from harness.core.versions import version_of
from harness.judge.numbers import same_bits
from harness.store.fixtures import Store
from harness.store.manifest import Manifest
from harness.worker.files import parse_json

ADAPTER_CONFIG = "adapter/adapter_config.json"
GENERATION_CONFIG = "base/generation_config.json"
BASE_CONFIGS = ("base/config.json", GENERATION_CONFIG)
_READ_BY_CLASSES = frozenset({ADAPTER_CONFIG, *BASE_CONFIGS})
_STAMPS = ("peft_version", "transformers_version")
"""Which version wrote a file; no part of its meaning."""


def traits(store: Store, manifest: Manifest) -> str:
    """SHA-256 over what a replay of a fixture reads, without model cards and without the configs that classes read."""
    whole = hashlib.sha256(manifest.scenario.encode())
    for name, stored in sorted(manifest.files.items()):
        if name not in _READ_BY_CLASSES and not name.endswith("README.md"):
            whole.update(f"{name}\0{stored.sha256}\n".encode())
    same = parse_json(store.content(manifest, "golden/observation.json"))["same"]
    arrays = load(store.content(manifest, "golden/arrays.safetensors"))
    for name in sorted(set(arrays) | set(same)):
        if name.startswith(("inputs/", "layers/input/")):
            array = arrays[same.get(name, name)]
            whole.update(f"{name}\0{array.dtype}\0{array.shape}\n".encode() + array.tobytes())
    return whole.hexdigest()


def between(
    oldest: Mapping[str, Mapping[str, Any]], middle: Mapping[str, Mapping[str, Any]],
    newest: Mapping[str, Mapping[str, Any]],
) -> bool:  # fmt: skip
    """True where the middle's configs have all that both ends' have, and nothing that neither's have, but for stamps.

    Whatever a loader finds in a file itself, passing its classes by, it has then met at one of the ends.
    """
    old, own, new = (
        {(file, key, json.dumps(value, sort_keys=True)) for file, config in configs.items()
         for key, value in {"": None, **config}.items() if key not in _STAMPS}
        for configs in (oldest, middle, newest)
    )  # fmt: skip
    return old & new <= own <= old | new


def equal(one: Observed, other: Observed) -> bool:
    """True where two observations are equal to the bit, apart from the version stamps in configs."""
    said = [(_unstamped(each.facts), each.load, each.probes) for each in (one, other)]
    if said[0] != said[1] or set(one.arrays) != set(other.arrays):
        return False
    return all(same_bits(array, other.arrays[name]) for name, array in one.arrays.items())


def differing(one: Observed, other: Observed) -> str:
    """The first things in which two observations differ, apart from the version stamps in configs."""
    arrays = sorted({*one.arrays} ^ {*other.arrays})
    arrays += [
        name for name in one.arrays if name in other.arrays and not same_bits(one.arrays[name], other.arrays[name])
    ]
    facts, others = _unstamped(one.facts), _unstamped(other.facts)
    said = [f"facts of {name}" for name in sorted({*facts, *others}) if facts.get(name) != others.get(name)]
    said += [
        f"outcome of {name}"
        for name in sorted({*one.probes, *other.probes})
        if one.probes.get(name) != other.probes.get(name)
    ]
    said += ["loading"] if one.load != other.load else []
    return enumerated([*arrays, *said], 3)


def with_config(observed: Observed, config: Mapping[str, Any]) -> Observed:
    """The observation of a checkpoint with this config: the round trip reports the config that it started with."""
    if "config_before" not in observed.facts.get("roundtrip", {}):
        return observed
    roundtrip = {**observed.facts["roundtrip"], "config_before": dict(config)}
    return dataclasses.replace(observed, facts={**observed.facts, "roundtrip": roundtrip}, timings={})


def _unstamped(facts: Mapping[str, Any]) -> dict[str, Any]:
    roundtrip = {key: value for key, value in facts.get("roundtrip", {}).items() if key != "config_before"}
    if "config" in roundtrip:
        roundtrip["config"] = {key: value for key, value in roundtrip["config"].items() if key not in _STAMPS}
    return {**facts, "roundtrip": roundtrip}


def adapter_id(manifest: Manifest) -> str:
    """Names the content of the adapter's config."""
    return _id(manifest, (ADAPTER_CONFIG,))


def base_id(manifest: Manifest) -> str:
    """Names the content of the base's configs."""
    return _id(manifest, BASE_CONFIGS)


def _id(manifest: Manifest, names: Iterable[str]) -> str:
    digests = [manifest.files[name].sha256 if name in manifest.files else "" for name in names]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:24]


def age(manifest: Manifest) -> tuple[Any, ...]:
    """Sorts fixtures from the oldest creator to the newest."""
    releases = (version_of(manifest.versions.get(package, "")) for package in ("peft", "transformers"))
    return *(release or Version("0") for release in releases), manifest.creator
