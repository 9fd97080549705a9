"""Records an observation: named arrays, facts, warnings and errors, by probe and precision.

On disk an observation is two files: `observation.json` (text) and `arrays.safetensors`. Equal arrays are stored once,
under the first name, and `observation.json` maps the other names to it. Both files depend only on what was observed:
durations go into `timings.json`, which is no evidence.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np

from ..shared import OBSERVATION_FORMAT


class Observation:
    """One scenario's observation, while it is recorded."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        self.probes: dict[str, dict[str, Any]] = {}
        self.load: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self.timings: dict[str, float] = {}
        self._names: dict[str, str] = {}
        self._tensors: dict[str, np.ndarray[Any, Any]] = {}

    def array(self, name: str, value: Any) -> None:
        """Record an array (a tensor is copied to the CPU; float16 and bfloat16 are stored as float32, exactly)."""
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            if str(value.dtype) in ("torch.bfloat16", "torch.float16"):
                self.facts.setdefault("stored_wider", {})[name] = str(value.dtype)
                value = value.float()
            value = value.contiguous().numpy()
        array = np.asarray(value, order="C")
        key = hashlib.sha256(str((array.dtype, array.shape)).encode() + array.tobytes()).hexdigest()[:16]
        self._tensors.setdefault(key, array.copy())
        self._names[name] = key

    def get(self, name: str) -> np.ndarray[Any, Any] | None:
        """An array that was recorded, or None."""
        key = self._names.get(name)
        return None if key is None else self._tensors[key]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All arrays by name."""
        return {name: self._tensors[key] for name, key in self._names.items()}

    def write(self, folder: str) -> None:
        """Write the files; their bytes depend only on what was observed."""
        from safetensors.numpy import save_file

        os.makedirs(folder, exist_ok=True)
        first: dict[str, str] = {}
        for name, key in sorted(self._names.items()):
            first.setdefault(key, name)
        same = {name: first[key] for name, key in sorted(self._names.items()) if first[key] != name}
        data = {
            "format": OBSERVATION_FORMAT,
            "scenario": self.scenario,
            "load": self.load,
            "probes": self.probes,
            "facts": self.facts,
            "same": same,
        }
        tensors = {name: self._tensors[key] for key, name in sorted(first.items(), key=lambda item: item[1])}
        save_file(tensors, os.path.join(folder, "arrays.safetensors"))
        _write_json(os.path.join(folder, "observation.json"), data)
        _write_json(os.path.join(folder, "timings.json"), self.timings)


def read_arrays(folder: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an observation on disk, by name."""
    from safetensors.numpy import load_file

    with open(os.path.join(folder, "observation.json"), encoding="utf-8") as file:
        same = json.load(file)["same"]
    tensors = load_file(os.path.join(folder, "arrays.safetensors"))
    arrays = {name: tensor.copy() for name, tensor in tensors.items()}
    return {**arrays, **{name: arrays[other] for name, other in same.items()}}


def _write_json(path: str, data: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, separators=(",", ":"), sort_keys=True, default=str)
        file.write("\n")
