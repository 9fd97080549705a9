"""Reading what a worker left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.core.observation import BadObservation, read
from harness.worker.observe.recorder import Observation
from harness.worker.shared import OBSERVATION_FORMAT


def _written(folder: Path) -> Path:
    observation = Observation("lora")
    observation.load["float32"] = {"outcome": "ok"}
    observation.probes["forward"] = {"float32": {"outcome": "ok"}}
    observation.facts["forward"] = {"sketch": []}
    observation.facts["autocasts"] = True
    observation.timings["forward/float32"] = 0.25
    observation.array("forward/float32/logits", np.ones((2, 3), np.float32))
    observation.array("renamed/float32/logits", np.ones((2, 3), np.float32))
    observation.array("forward/float64/logits", np.ones((2, 3)))
    observation.write(str(folder))
    return folder


def test_what_the_worker_writes_is_read(tmp_path: Path) -> None:
    seen = read(_written(tmp_path))
    assert seen.scenario == "lora"
    assert seen.outcome("forward") == "ok"
    assert seen.outcome("forward", "float64") == "missing"
    assert seen.outcome("merged") == "missing"
    assert seen.fact("forward", "sketch") == []
    assert seen.fact("merged", "ties") is None
    assert seen.facts["autocasts"] is True
    assert seen.timings == {"forward/float32": 0.25}
    assert set(seen.arrays) == {"forward/float32/logits", "forward/float64/logits", "renamed/float32/logits"}
    assert {name: array.dtype.name for name, array in seen.group("forward", "float32").items()} == {"logits": "float32"}


def test_timings_are_no_evidence(tmp_path: Path) -> None:
    (_written(tmp_path) / "timings.json").write_text("{")
    assert read(tmp_path).timings == {}


def _edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "observation.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def _without(key: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "observation.json"
        data = json.loads(path.read_text())
        del data[key]
        path.write_text(json.dumps(data))

    return edit


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("no file", lambda folder: (folder / "observation.json").unlink(), "FileNotFoundError"),
    ("no arrays", lambda folder: (folder / "arrays.safetensors").unlink(), "arrays.safetensors"),
    ("cut JSON", lambda folder: (folder / "observation.json").write_text('{"format": 1'), "JSONDecodeError"),
    ("no text", lambda folder: (folder / "observation.json").write_bytes(b"\xff\xff{}"), "UnicodeDecodeError"),
    ("no object", lambda folder: (folder / "observation.json").write_text("[]"), "TypeError"),
    ("another format", _edited(format=OBSERVATION_FORMAT + 1), f"format {OBSERVATION_FORMAT + 1}"),
    ("no format", _without("format"), "KeyError"),
    ("no facts", _without("facts"), "KeyError"),
    ("an alias of nothing", _edited(same={"x": "y"}), "KeyError"),
    ("aliases of another kind", _edited(same=[1]), "AttributeError"),
    ("cut arrays", lambda folder: (folder / "arrays.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{"), "Safetensor"),
]


@pytest.mark.parametrize(("damage", "said"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_damage_is_reported(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(_written(tmp_path))
    with pytest.raises(BadObservation, match=said):
        read(tmp_path)


def test_arrays_alone_are_no_observation(tmp_path: Path) -> None:
    save_file({"x": np.ones(1)}, tmp_path / "arrays.safetensors")
    with pytest.raises(BadObservation, match="expected: an observation as the worker writes it"):
        read(tmp_path)


def test_arrays_have_one_order_however_they_are_read(tmp_path: Path) -> None:
    """What safetensors reads has another order each time, and a sum of floats depends on its order."""
    _written(tmp_path)
    arrays = {f"layers/{place}": np.zeros(1) for place in range(40)}
    save_file(arrays, tmp_path / "arrays.safetensors")
    (tmp_path / "observation.json").write_text(
        json.dumps(json.loads((tmp_path / "observation.json").read_text()) | {"same": {}})
    )
    assert list(read(tmp_path).arrays) == sorted(arrays)
