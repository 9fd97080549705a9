"""An observation as the controller reads it: the worker's `observation.json` and `arrays.safetensors`."""

from __future__ import annotations

import base64
import functools
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from harness.core.errors import HarnessError
from harness.core.text import clip, encodable
from harness.worker.files import LARGEST_JSON, parse_json, read_json, read_regular
from harness.worker.shared import OBSERVATION_FORMAT, Outcome

Array = NDArray[Any]
_PACKED = Path("a packed observation")
_LONGEST_DETAIL = 8000
_LONGEST_S = 1e9
_SHOWN = 60
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError, RecursionError, MemoryError,
    OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a job ended."""

    id: str
    outcome: Outcome
    """`died`: the cell ended its process (verdict `crash`). `error`: the worker itself failed."""
    detail: str
    log_tail: str
    duration_s: float
    note: str = ""
    """What the reader should know about it: that the job was run twice."""

    @classmethod
    def of(cls, id: str, reply: Any, log_tail: str = "", note: str = "") -> Done:
        """How a job ended, according to a worker's reply.

        Raises:
            ValueError: the reply says nothing that makes sense.
        """
        if not isinstance(reply, Mapping):
            raise ValueError("not an object")
        outcome: Any = reply.get("outcome")
        detail, seconds = reply.get("detail") or "", reply.get("duration_s") or 0.0
        if outcome not in get_args(Outcome):
            raise ValueError(f"outcome {clip(repr(outcome), _SHOWN)}: not one of {', '.join(get_args(Outcome))}")
        if not isinstance(detail, str):
            raise ValueError("`detail` is not a text")
        if not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST_S:
            raise ValueError(f"duration_s {clip(repr(seconds), _SHOWN)}: not a number of seconds")
        return cls(id, outcome, clip(encodable(detail), _LONGEST_DETAIL), log_tail, float(seconds), note)


class BadObservation(HarnessError):
    """What a worker left behind, or a golden, can't be read."""


@dataclass(frozen=True)
class Observed:
    """What one scenario's probes yielded.

    Attributes:
        load: precision → outcome of loading base and adapter; `create` → of creating them.
        probes: probe → precision → outcome, error, warnings.
        facts: probe → whatever it states.
        arrays: `probe/precision/name` → array.
        timings: `probe/precision` → seconds; no evidence.
    """

    scenario: str
    load: Mapping[str, Any]
    probes: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    arrays: Mapping[str, Array]
    timings: Mapping[str, float] = field(default_factory=dict)

    def outcome(self, probe: str, precision: str = "float32") -> str:
        """`ok`, `error`, `skipped`, or `missing` where the probe never ran."""
        return str(self.probes.get(probe, {}).get(precision, {}).get("outcome", "missing"))

    def group(self, probe: str, precision: str) -> dict[str, Array]:
        """The arrays of one probe in one precision, by their own names."""
        return dict(self._groups.get((probe, precision), {}))

    @functools.cached_property
    def _groups(self) -> dict[tuple[str, str], dict[str, Array]]:
        found: dict[tuple[str, str], dict[str, Array]] = {}
        for name, array in self.arrays.items():
            probe, _, rest = name.partition("/")
            precision, _, own = rest.partition("/")
            found.setdefault((probe, precision), {})[own] = array
        return found

    def fact(self, probe: str, key: str, default: Any = None) -> Any:
        """One fact of a probe."""
        return self.facts.get(probe, {}).get(key, default)

    def missing(self, probe: str = "accounting") -> list[str]:
        """Keys of the checkpoint whose tensors are not in the model that a probe loaded."""
        return [key for key, where in (self.fact(probe, "tensors") or {}).items() if where["found"] == "nowhere"]


def read(folder: Path) -> Observed:
    """Read an observation from disk. A worker may have left anything in the place of a file.

    Raises:
        BadObservation: a file is missing, cut short, no regular file, too large, or in another format.
    """
    path = folder / "observation.json"
    try:
        text = read_regular(path, LARGEST_JSON, links=False)
        arrays = read_regular(folder / "arrays.safetensors", links=False)
    except OSError as error:
        raise _unreadable(path, error) from error
    return parse(path, text, arrays, _timings(folder))


def parse(path: Path, text: bytes, arrays: bytes, timings: Mapping[str, float] | None = None) -> Observed:
    """An observation from the contents of its two files.

    Raises:
        BadObservation: it is not one, or in another format.
    """
    try:
        return _observed(path, text, load(arrays), dict(timings or {}))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def packed(observed: Observed) -> str:
    """An observation as a short text, equal for equal observations; durations are left out."""
    return base64.b64encode(encoded(observed)).decode()


def unpacked(text: str) -> Observed:
    """The observation that `packed` gave.

    Raises:
        BadObservation: it is not one.
    """
    try:
        data = base64.b64decode(text)
    except ValueError as error:
        raise _unreadable(_PACKED, error) from error
    return decoded(data)


def encoded(observed: Observed, golden: Mapping[str, Array] | None = None) -> bytes:
    """An observation in few bytes, equal for equal observations; durations are left out.

    Args:
        golden: arrays that are equal to the bit to the one of the same name here are left out.
    """
    known = {name for name, array in observed.arrays.items() if golden and _same(array, golden.get(name))}
    first: dict[int, str] = {}
    for name in sorted(set(observed.arrays) - known):
        first.setdefault(id(observed.arrays[name]), name)  # what was equal is one array
    own = {name: first[id(array)] for name, array in observed.arrays.items() if name not in known}
    said = {
        "format": OBSERVATION_FORMAT,
        "scenario": observed.scenario,
        "load": observed.load,
        "probes": observed.probes,
        "facts": observed.facts,
        "same": {name: other for name, other in own.items() if other != name},
        "golden": sorted(known),
    }
    text = json.dumps(said, sort_keys=True).encode()
    arrays = save({name: observed.arrays[name] for name in sorted(first.values())})
    return zlib.compress(len(text).to_bytes(8, "big") + text + arrays)


def decoded(data: bytes, golden: Mapping[str, Array] | None = None) -> Observed:
    """The observation that `encoded` gave.

    Raises:
        BadObservation: it is not one, or the golden lacks an array.
    """
    try:
        whole = zlib.decompress(data)
        end = 8 + int.from_bytes(whole[:8], "big")
        text, own = whole[8:end], load(whole[end:])
        known = {name: (golden or {})[name] for name in parse_json(text)["golden"]}
        return _observed(_PACKED, text, own | known, {})
    except (zlib.error, *_UNREADABLE) as error:
        raise _unreadable(_PACKED, error) from error


def _same(one: Array, other: Array | None) -> bool:
    return (
        other is not None and (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()
    )


def _unreadable(path: Path, error: Exception) -> BadObservation:
    said = clip(encodable(str(error)), _LONGEST_DETAIL)
    return BadObservation(
        f"{path}: {type(error).__name__}: {said}", "an observation as the worker writes it", "run the cell again"
    )


def _observed(path: Path, text: bytes, tensors: dict[str, Array], timings: dict[str, float]) -> Observed:
    data = parse_json(text)
    if data["format"] != OBSERVATION_FORMAT:
        raise BadObservation(
            f"{path}: observation format {data['format']!r}",
            f"format {OBSERVATION_FORMAT}",
            "use the version that wrote it",
        )
    arrays = {**tensors, **{name: tensors[other] for name, other in data["same"].items()}}
    arrays = dict(sorted(arrays.items()))  # safetensors gives another order each time; sums and ties depend on it
    for name in ("load", "probes", "facts"):
        allowed = dict | bool if name == "facts" else dict  # a fact may be one answer: `autocasts`
        if not isinstance(data[name], dict) or not all(isinstance(value, allowed) for value in data[name].values()):
            raise ValueError(f"`{name}` is not an object of objects")
    return Observed(data["scenario"], data["load"], data["probes"], data["facts"], arrays, timings)


def _timings(folder: Path) -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in read_json(folder / "timings.json").items()}
    except _UNREADABLE:
        return {}
