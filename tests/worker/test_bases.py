"""Inputs, calls and outputs of a base; what needs torch is in tests/integration/test_worker.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.worker.model import bases, fill

IDS: dict[str, Any] = {"kind": "tokens", "shape": [2, 7], "low": 3, "high": 48}
MASK: dict[str, Any] = {"kind": "mask", "shape": [2, 7], "pad_right": [0, 2]}
GOLDEN_IDS = [[29, 46, 15, 33, 14, 11, 47], [18, 5, 47, 32, 16, 6, 12]]


def values(*numbers: Any, **options: Any) -> np.ndarray[Any, Any]:
    """An input that is written out."""
    return bases.make_inputs({"x": {"kind": "values", "values": list(numbers), **options}}, "base")["x"]


class TestInputs:
    def test_tokens(self) -> None:
        ids = bases.make_inputs({"input_ids": IDS}, "llama")["input_ids"]

        assert (ids.shape, ids.dtype) == ((2, 7), np.int64)
        assert ids.min() >= 3
        assert ids.max() < 48
        assert not np.array_equal(ids[0], ids[1])

    def test_golden_tokens(self) -> None:
        # a base's inputs are made by the creator and stored, but two creators must be asked the same
        ids = bases.make_inputs({"input_ids": IDS}, "llama")["input_ids"]

        assert ids.tolist() == GOLDEN_IDS

    def test_they_hang_on_the_bases_and_the_inputs_name(self) -> None:
        one = bases.make_inputs({"a": IDS, "b": IDS}, "llama")
        other = bases.make_inputs({"a": IDS}, "bert")

        assert not np.array_equal(one["a"], one["b"])
        assert not np.array_equal(one["a"], other["a"])
        assert np.array_equal(one["a"], bases.make_inputs({"b": IDS, "a": IDS}, "llama")["a"])

    def test_uniform(self) -> None:
        x = bases.make_inputs({"x": {"kind": "uniform", "shape": [50, 4, 5], "low": -2, "high": 3}}, "mlp")["x"]

        assert (x.shape, x.dtype) == ((50, 4, 5), np.float32)
        assert -2 <= x.min() < -1.9
        assert 2.9 < x.max() <= 3

    @pytest.mark.parametrize(
        ("padding", "expected"),
        [
            ({}, [[1, 1, 1, 1], [1, 1, 1, 1]]),
            ({"pad_right": [0, 2]}, [[1, 1, 1, 1], [1, 1, 0, 0]]),
            ({"pad_left": [3, 0]}, [[0, 0, 0, 1], [1, 1, 1, 1]]),
            ({"pad_left": [1, 0], "pad_right": [1, 4]}, [[0, 1, 1, 0], [0, 0, 0, 0]]),
            ({"pad_right": [2]}, [[1, 1, 0, 0], [1, 1, 1, 1]]),
            ({"pad_left": None, "pad_right": []}, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        ],
    )
    def test_mask(self, padding: dict[str, Any], expected: list[list[int]]) -> None:
        mask = bases.make_inputs({"m": {"kind": "mask", "shape": [2, 4], **padding}}, "base")["m"]

        assert mask.dtype == np.int64
        assert mask.tolist() == expected

    def test_values_are_whole_numbers_or_floats(self) -> None:
        assert values(1, 2).dtype == np.int64
        assert values([1, 2], [3, 4]).dtype == np.int64
        assert values(1.0, 2).dtype == np.float32
        assert values([0.1], [2]).dtype == np.float32

    def test_values_in_a_type_of_their_own(self) -> None:
        assert values(1, 0, dtype="bool").tolist() == [True, False]
        assert values(1, 2, dtype="float32").dtype == np.float32
        assert values(1, 2, dtype=None).dtype == np.int64

    def test_what_is_not_said_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            bases.make_inputs({"x": {"kind": "tokens", "shape": [2, 2]}}, "base")


class TestContain:
    def test_tokens_stand_at_the_start_of_the_last_row(self) -> None:
        plain = bases.make_inputs({"ids": IDS}, "llama")["ids"]
        ids = bases.make_inputs({"ids": {**IDS, "contain": [7, 41]}}, "llama")["ids"]

        assert ids[-1, :2].tolist() == [7, 41]
        assert np.array_equal(ids[-1, 2:], plain[-1, 2:])
        assert np.array_equal(ids[:-1], plain[:-1])

    @pytest.mark.parametrize("mask_first", [True, False])
    def test_padding_is_left_free_of_them(self, mask_first: bool) -> None:
        mask: dict[str, Any] = {"kind": "mask", "shape": [2, 7], "pad_left": [0, 3]}
        ids = {**IDS, "contain": [7, 41]}
        specs = {"mask": mask, "ids": ids} if mask_first else {"ids": ids, "mask": mask}

        made = bases.make_inputs(specs, "llama")

        assert made["ids"][-1, 3:5].tolist() == [7, 41]
        assert made["mask"][-1].tolist() == [0, 0, 0, 1, 1, 1, 1]

    def test_another_shapes_mask_says_nothing(self) -> None:
        mask: dict[str, Any] = {"kind": "mask", "shape": [2, 9], "pad_left": [0, 3]}

        made = bases.make_inputs({"mask": mask, "decoder_ids": {**IDS, "contain": [7]}}, "t5")

        assert made["decoder_ids"][-1, 0] == 7

    def test_they_may_fill_the_row(self) -> None:
        made = bases.make_inputs({"mask": MASK, "ids": {**IDS, "contain": [3, 4, 5, 6, 7]}}, "llama")

        assert made["ids"][-1, :5].tolist() == [3, 4, 5, 6, 7]

    def test_no_room_is_an_error_that_says_how_many(self) -> None:
        with pytest.raises(ValueError, match="6 tokens must occur, the last row has room for 5"):
            bases.make_inputs({"mask": MASK, "ids": {**IDS, "contain": [3, 4, 5, 6, 7, 8]}}, "llama")

    def test_no_tokens_is_no_change(self) -> None:
        plain = bases.make_inputs({"ids": IDS}, "llama")["ids"]

        nothing: tuple[list[int] | None, ...] = ([], None)
        for contain in nothing:
            made = bases.make_inputs({"ids": {**IDS, "contain": contain}}, "llama")
            assert np.array_equal(made["ids"], plain)


class ByName:
    """A base whose forward knows the inputs' names."""

    def forward(self, input_ids: Any, attention_mask: Any = None) -> None:
        raise NotImplementedError


class InOrder:
    """A plain module: one input, whatever it is called."""

    def forward(self, x: Any) -> None:
        raise NotImplementedError


class Anything:
    """A base of Transformers, whose forward may be wrapped beyond recognition."""

    config = SimpleNamespace()

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


class TestCall:
    @staticmethod
    def model(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns what it was called with."""
        return args, kwargs

    @pytest.mark.parametrize("base", [ByName(), Anything()], ids=["known names", "has a config"])
    def test_by_name(self, base: Any) -> None:
        inputs = {"attention_mask": 2, "input_ids": 1}

        assert bases.call(self.model, base, inputs) == ((), inputs)

    def test_in_order(self) -> None:
        assert bases.call(self.model, InOrder(), {"input": 1, "other": 2}) == ((1, 2), {})


class FakeTensor:
    """Something that can be detached."""

    def detach(self) -> FakeTensor:
        return self


class TestOutputs:
    one, two = FakeTensor(), FakeTensor()

    @pytest.mark.parametrize(
        ("result", "wanted", "expected"),
        [
            (one, [], {"output": one}),
            (one, ["logits"], {"output": one}),
            ({"loss": two, "logits": one}, [], {"logits": one}),
            ({"last_hidden_state": one, "pooler_output": two}, [], {"last_hidden_state": one}),
            ({"last_hidden_state": one, "logits": two}, [], {"logits": two}),
            ({"logits": one, "pooler_output": two}, ["pooler_output"], {"pooler_output": two}),
            ({"a": one, "b": two}, ["b", "a"], {"b": two, "a": one}),
            ((one, two), [], {"output": one}),
            ([one], [], {"output": one}),
        ],
    )
    def test_found(self, result: Any, wanted: list[str], expected: dict[str, Any]) -> None:
        assert bases.outputs(result, wanted) == expected

    @pytest.mark.parametrize("result", [{"hidden": one}, (3,), 3, None], ids=["mapping", "tuple", "number", "nothing"])
    def test_untold(self, result: Any) -> None:
        with pytest.raises(TypeError, match=f"of a {type(result).__name__}; name it under `outputs`"):
            bases.outputs(result, [])

    def test_a_declared_output_that_is_not_there(self) -> None:
        with pytest.raises(KeyError, match="logits"):
            bases.outputs({"hidden": self.one}, ["logits"])


class FakeTorch:
    """A default dtype to be set."""

    float32, float64 = "torch.float32", "torch.float64"

    def __init__(self) -> None:
        self.default = "torch.bfloat16"

    def get_default_dtype(self) -> str:
        return self.default

    def set_default_dtype(self, dtype: str) -> None:
        self.default = dtype


class TestPrecision:
    @pytest.mark.parametrize("name", ["float32", "float64"])
    def test_inside_and_after(self, name: str) -> None:
        torch = FakeTorch()

        with bases.precision(torch, name):
            assert torch.default == f"torch.{name}"

        assert torch.default == "torch.bfloat16"

    def test_after_an_error(self) -> None:
        torch = FakeTorch()

        with pytest.raises(ValueError), bases.precision(torch, "float64"):
            raise ValueError

        assert torch.default == "torch.bfloat16"


class TestSource:
    def test_a_base_from_its_source(self) -> None:
        model = object()
        base = {"name": "own", "kind": "python", "file": "own.py", "source": "import math\ndef build(): return math"}

        assert bases._construct(model, base).__name__ == "math"

    def test_without_build_it_says_what_is_missing(self) -> None:
        base = {"name": "own", "kind": "python", "file": "own.py", "source": "def make(): ..."}

        with pytest.raises(TypeError, match=r"own\.py has no function build\(\)"):
            bases._construct(None, base)

    def test_its_errors_name_its_file(self) -> None:
        base = {"name": "own", "kind": "python", "file": "own.py", "source": "def build(:"}

        with pytest.raises(SyntaxError) as caught:
            bases._construct(None, base)

        assert caught.value.filename == "own.py"


class TestTypes:
    """A base in a narrow type that its declaration does not name would meet inputs in float32."""

    class Model:
        def __init__(self, dtype: str) -> None:
            self.dtype = dtype

        def parameters(self) -> list[Any]:
            return [SimpleNamespace(dtype=f"torch.{self.dtype}")]

        def named_parameters(self) -> list[Any]:
            return []

        def to(self, dtype: str) -> TestTypes.Model:
            return TestTypes.Model(dtype)

        def eval(self) -> TestTypes.Model:
            return self

    TORCH = SimpleNamespace(manual_seed=lambda _: None, bfloat16="bfloat16")

    @pytest.fixture(autouse=True)
    def faked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bases, "_construct", lambda _, base: TestTypes.Model(base["made"]))
        monkeypatch.setattr(fill, "fill_parameters", lambda *_, **__: None)

    def test_it_is_refused(self) -> None:
        with pytest.raises(TypeError, match='next: add `dtype = "bfloat16"` to the base'):
            bases.build(self.TORCH, {"name": "b", "made": "bfloat16"})

    @pytest.mark.parametrize("made", ["float32", "bfloat16"])
    def test_one_that_names_it_is_saved_in_it(self, made: str) -> None:
        model = bases.build(self.TORCH, {"name": "b", "made": made, "saved_dtype": "bfloat16"})
        assert model.dtype == "bfloat16"

    def test_float32_needs_no_declaration(self) -> None:
        assert bases.build(self.TORCH, {"name": "b", "made": "float32"}).dtype == "float32"
