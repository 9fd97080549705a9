"""Observations on disk: what was observed comes back, stored once, and the bytes depend on nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from harness.worker.observe.recorder import Observation, read_arrays
from harness.worker.shared import OBSERVATION_FORMAT

FILES = ("arrays.safetensors", "observation.json")


class FakeTensor:
    """A tensor as an observation meets it: on a device, with a gradient, perhaps in half precision."""

    def __init__(self, array: np.ndarray[Any, Any], dtype: str, place: str = "cuda, with gradient") -> None:
        self.array = array
        self.dtype = dtype
        self.place = place

    def detach(self) -> FakeTensor:
        return FakeTensor(self.array, self.dtype, self.place.replace(", with gradient", ""))

    def cpu(self) -> FakeTensor:
        return FakeTensor(self.array, self.dtype, self.place.replace("cuda", "cpu"))

    def float(self) -> FakeTensor:
        return FakeTensor(self.array.astype(np.float32), "torch.float32", self.place)

    def contiguous(self) -> FakeTensor:
        return FakeTensor(np.ascontiguousarray(self.array), self.dtype, self.place)

    def numpy(self) -> np.ndarray[Any, Any]:
        assert self.place == "cpu"
        assert self.dtype != "torch.bfloat16", "NumPy has no bfloat16"
        assert self.array.flags.c_contiguous
        return self.array


def written(folder: Path, observation: Observation) -> dict[str, bytes]:
    """The bytes of its evidence."""
    observation.write(str(folder))
    return {name: (folder / name).read_bytes() for name in FILES}


def text_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "observation.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_round_trip(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "forward/float32/logits": np.arange(6, dtype=np.float32).reshape(2, 3),
        "forward/float64/logits": np.arange(6, dtype=np.float64).reshape(2, 3),
        "inputs/input_ids": np.array([[1, 2]], dtype=np.int64),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "special": np.array([np.nan, np.inf, -0.0, 5e-324]),
    }
    observation = Observation("lora-linear")
    for name, array in arrays.items():
        observation.array(name, array)
    observation.load["float32"] = {"outcome": "ok"}
    observation.probes["forward"] = {"float32": {"outcome": "ok"}}
    observation.facts["forward"] = {"sketch": [["lin", "adapter"]]}
    observation.write(str(tmp_path))

    found = read_arrays(str(tmp_path))

    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    assert text_of(tmp_path) == {
        "format": OBSERVATION_FORMAT,
        "scenario": "lora-linear",
        "load": {"float32": {"outcome": "ok"}},
        "probes": {"forward": {"float32": {"outcome": "ok"}}},
        "facts": {"forward": {"sketch": [["lin", "adapter"]]}},
        "same": {},
    }


def test_equal_arrays_are_stored_once_under_the_first_name(tmp_path: Path) -> None:
    observation = Observation("s")
    for name in ("merged/x", "base/x", "forward/x"):
        observation.array(name, np.array([1.0, 2.0]))
    observation.array("other/x", np.array([2.0, 1.0]))
    observation.write(str(tmp_path))

    assert sorted(load_file(tmp_path / "arrays.safetensors")) == ["base/x", "other/x"]
    assert text_of(tmp_path)["same"] == {"forward/x": "base/x", "merged/x": "base/x"}
    assert read_arrays(str(tmp_path))["merged/x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(2, np.float64), np.zeros(4, np.float32)),
        (np.zeros(2, np.float64), np.zeros(2, np.int64)),
        (np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2)),
        (np.array([0.0]), np.array([-0.0])),
    ],
    ids=["size", "type", "shape", "sign of zero"],
)
def test_what_differs_in_more_than_bytes_is_not_the_same(
    tmp_path: Path, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]
) -> None:
    observation = Observation("s")
    observation.array("one", one)
    observation.array("other", other)
    observation.write(str(tmp_path))

    assert text_of(tmp_path)["same"] == {}
    assert read_arrays(str(tmp_path))["other"].dtype == other.dtype


def test_another_order_yields_the_same_bytes(tmp_path: Path) -> None:
    arrays = {f"probe/{index}": np.array([index % 3, 1.0]) for index in range(7)}

    def observed(names: list[str]) -> Observation:
        observation = Observation("s")
        for name in names:
            observation.array(name, arrays[name])
            observation.facts[name] = {"a": 1, "b": 2} if len(observation.facts) % 2 else {"b": 2, "a": 1}
            observation.timings[name] = len(observation.timings) / 7
        return observation

    names = list(arrays)

    assert written(tmp_path / "a", observed(names)) == written(tmp_path / "b", observed(names[::-1]))
    assert (tmp_path / "a" / "timings.json").read_bytes() != (tmp_path / "b" / "timings.json").read_bytes()


def test_writing_again_yields_the_same_bytes(tmp_path: Path) -> None:
    observation = Observation("s")
    observation.array("x", np.array([1.5]))

    assert written(tmp_path, observation) == written(tmp_path, observation)


@pytest.mark.parametrize("dtype", ["torch.bfloat16", "torch.float16"])
def test_half_precision_is_stored_wider_and_says_so(tmp_path: Path, dtype: str) -> None:
    values = np.array([[1.5, -2.0]], dtype=np.float16)
    observation = Observation("s")
    observation.array("forward/x", FakeTensor(values, dtype))
    observation.write(str(tmp_path))

    found = read_arrays(str(tmp_path))["forward/x"]
    assert found.dtype == np.float32
    assert found.tolist() == [[1.5, -2.0]]
    assert text_of(tmp_path)["facts"] == {"stored_wider": {"forward/x": dtype}}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_other_tensors_keep_their_type(dtype: str) -> None:
    observation = Observation("s")
    observation.array("x", FakeTensor(np.array([1, 0], dtype=dtype), f"torch.{dtype}"))

    assert [array.dtype for array in observation.arrays().values()] == [np.dtype(dtype)]
    assert observation.facts == {}


def test_arrays_that_are_views_are_stored_as_they_read(tmp_path: Path) -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {"turned": whole.T, "columns": whole[:, 1::2], "backwards": whole[::-1], "order": np.asfortranarray(whole)}
    observation = Observation("s")
    for name, view in views.items():
        observation.array(name, view)
    observation.array("tensor", FakeTensor(whole.T, "torch.float32"))
    observation.write(str(tmp_path))

    found = read_arrays(str(tmp_path))
    for name, view in views.items():
        assert np.array_equal(found[name], view)
    assert text_of(tmp_path)["same"] == {"turned": "tensor"}


def test_what_changes_later_is_not_what_was_observed() -> None:
    array = np.zeros(3)
    observation = Observation("s")
    observation.array("x", array)
    array += 1

    assert observation.arrays()["x"].tolist() == [0.0, 0.0, 0.0]


def test_recorded_again_the_last_counts(tmp_path: Path) -> None:
    observation = Observation("s")
    observation.array("x", np.array([1.0]))
    observation.array("x", np.array([2.0]))
    observation.write(str(tmp_path))

    assert read_arrays(str(tmp_path))["x"].tolist() == [2.0]
    assert len(load_file(tmp_path / "arrays.safetensors")) == 1


def test_get() -> None:
    observation = Observation("s")
    observation.array("x", np.array([1.0]))
    found = observation.get("x")

    assert found is not None
    assert found.tolist() == [1.0]
    assert observation.get("y") is None


def test_an_observation_without_arrays(tmp_path: Path) -> None:
    Observation("s").write(str(tmp_path / "deep" / "now"))

    assert read_arrays(str(tmp_path / "deep" / "now")) == {}


def test_facts_that_json_does_not_know_are_written_as_text(tmp_path: Path) -> None:
    observation = Observation("s")
    observation.facts["config"] = {"kind": Path("lora")}
    observation.write(str(tmp_path))

    assert text_of(tmp_path)["facts"] == {"config": {"kind": "lora"}}


arrays_of_any_kind = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64]), hnp.array_shapes(min_dims=1, max_dims=3, max_side=3)
)


@given(arrays=st.dictionaries(st.sampled_from("abcdef"), arrays_of_any_kind, max_size=6), seed=st.randoms())
@settings(deadline=None, max_examples=30)
def test_any_arrays_come_back_and_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray[Any, Any]], seed: Any
) -> None:
    names = list(arrays)
    folders = []
    for _ in range(2):
        seed.shuffle(names)
        observation = Observation("s")
        for name in names:
            observation.array(name, arrays[name])
        folders.append(tmp_path_factory.mktemp("observation"))
        observation.write(str(folders[-1]))

    found = read_arrays(str(folders[0]))
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in arrays.items()}
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in FILES)
