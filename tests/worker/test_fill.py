"""Fill values: from nothing but the tensor's name, the same in every release and on every machine."""

from __future__ import annotations

import contextlib
import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.worker.model import fill

SPACE = "adapter:lora-linear"
QUERY = "model.layers.0.self_attn.q_proj.lora_A.weight"
NORM = "model.norm.weight"

names = st.text(alphabet="abcdefghij.0123456789_AB", min_size=1, max_size=40)


def splitmix64(namespace: str, name: str, count: int) -> list[int]:
    """The published generator, in whole numbers of Python."""
    mask = 2**64 - 1
    state = int.from_bytes(hashlib.sha256(f"{namespace}\0{name}".encode()).digest()[:8], "little")
    drawn = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        drawn.append(z ^ (z >> 31))
    return drawn


def filled(name: str, *shape: int, **options: Any) -> np.ndarray[Any, Any]:
    """Values that must be there."""
    drawn = fill.values(SPACE, name, shape, **options)
    assert drawn is not None
    return drawn


def test_golden_values_of_a_matrix() -> None:
    # stored fixtures hold these: whoever changes them makes every golden unreadable
    assert fill.bits(SPACE, QUERY, 3).tolist() == [4596510452508700272, 8395122858962666457, 16553901065429019765]
    assert fill.uniform(SPACE, QUERY, 3).tolist() == [-0.5016454458236694, -0.08979904651641846, 0.794777512550354]
    assert filled(QUERY, 2, 3).tolist() == [
        [-0.30098727345466614, -0.053879428654909134, 0.4768665134906769],
        [0.13376498222351074, -0.3597131371498108, -0.4509190320968628],
    ]


def test_golden_values_of_a_norm() -> None:
    assert fill.bits(SPACE, NORM, 3).tolist() == [10312934606139116298, 10893232970783085987, 1842290400621957737]
    assert fill.uniform(SPACE, NORM, 3).tolist() == [0.11813056468963623, 0.18104660511016846, -0.8002585172653198]
    assert filled(NORM, 3).tolist() == [1.0236260890960693, 1.0362093448638916, 0.839948296546936]


def test_golden_integers() -> None:
    assert fill.integers("input", QUERY, 6, 3, 48).tolist() == [28, 9, 11, 21, 28, 8]
    assert fill.integers("input", NORM, 6, 3, 48).tolist() == [18, 27, 37, 38, 28, 13]


@given(namespace=names, name=names, count=st.integers(0, 40))
@settings(deadline=None, max_examples=50)
def test_bits_are_splitmix64_seeded_with_the_name(namespace: str, name: str, count: int) -> None:
    drawn = fill.bits(namespace, name, count)

    assert drawn.dtype == np.uint64
    assert drawn.tolist() == splitmix64(namespace, name, count)


def test_the_namespace_ends_where_the_name_begins() -> None:
    assert fill.bits("ab", "c", 4).tolist() != fill.bits("a", "bc", 4).tolist()


@given(pair=st.lists(names, min_size=2, max_size=2, unique=True), count=st.integers(2, 64))
@settings(deadline=None, max_examples=100)
def test_another_name_is_another_array(pair: list[str], count: int) -> None:
    one, other = (fill.uniform(SPACE, name, count) for name in pair)

    assert not np.array_equal(one, other)


@given(name=names)
@settings(deadline=None, max_examples=50)
def test_another_namespace_is_another_array(name: str) -> None:
    assert not np.array_equal(fill.uniform("adapter:a", name, 8), fill.uniform("adapter:b", name, 8))


@given(name=names, size=st.integers(2, 12))
@settings(deadline=None, max_examples=50)
def test_a_tensor_differs_from_its_transpose_and_its_rows_from_each_other(name: str, size: int) -> None:
    drawn = filled(name, size, size, recipes=())

    assert not np.array_equal(drawn, drawn.T)
    assert len({row.tobytes() for row in drawn}) == size


@given(name=names, few=st.integers(1, 20), more=st.integers(0, 20))
@settings(deadline=None, max_examples=50)
def test_a_longer_draw_begins_with_the_shorter_one(name: str, few: int, more: int) -> None:
    assert np.array_equal(fill.uniform(SPACE, name, few + more)[:few], fill.uniform(SPACE, name, few))


def test_the_order_of_drawing_does_not_matter() -> None:
    forth = {name: filled(name, 3, 4) for name in (QUERY, NORM)}
    back = {name: filled(name, 3, 4) for name in (NORM, QUERY)}

    assert all(np.array_equal(forth[name], back[name]) for name in forth)


def test_uniform_fills_its_range_and_has_no_bias() -> None:
    drawn = fill.uniform(SPACE, QUERY, 20_000)

    assert -1.0 <= drawn.min() < -0.999
    assert 0.999 < drawn.max() < 1.0
    assert abs(drawn.mean()) < 0.02
    assert drawn.var() == pytest.approx(1 / 3, abs=0.01)
    assert len(np.unique(drawn)) > 19_900


@pytest.mark.parametrize(
    "recipe", ["w.weight", "w.bias", NORM, "q.ia3_l", "q.lora_E", "conv.weight", "x.adaption_gate"]
)
def test_values_are_exact_in_float32(recipe: str) -> None:
    drawn = filled(recipe, 6, 7)

    assert drawn.dtype == np.float64
    assert np.array_equal(drawn.astype(np.float32).astype(np.float64), drawn)


def test_uniform_is_exact_in_float32() -> None:
    drawn = fill.uniform(SPACE, QUERY, 5000)

    assert np.array_equal(drawn.astype(np.float32).astype(np.float64), drawn)


@pytest.mark.parametrize(
    ("name", "shape", "centre", "spread"),
    [
        ("w.weight", (5, 300), 0.0, 0.1),  # sqrt(3 / fan-in)
        ("w.weight", (300, 5), 0.0, 0.6),  # at most
        ("conv.weight", (2, 12, 5, 5), 0.0, 0.1),  # fan-in over the kernel too
        ("w.weight", (4, 0), 0.0, 0.6),
        ("w.bias", (9,), 0.0, 0.3),
        ("scalar", (), 0.0, 0.3),
        ("model.norm.weight", (9,), 1.0, 0.2),
        ("model.norm.bias", (9,), 0.0, 0.3),
        ("q.ia3_l", (1, 9), 1.0, 0.5),
        ("q.ia3_l.default", (9, 1), 1.0, 0.5),
        ("q.lora_magnitude_vector.weight", (9,), 1.0, 0.5),
        ("attn.adaption_gate", (1,), 0.5, 0.4),
        ("q.lora_E", (8, 1), 0.5, 0.4),
        ("q.ranknum", (1,), None, 0.0),
    ],
)
def test_recipes(name: str, shape: tuple[int, ...], centre: float | None, spread: float) -> None:
    found = fill.centre_and_spread(name, shape, {}, fill.RECIPES)

    assert found[0] == centre
    assert found[1] == pytest.approx(spread)


def test_what_counts_is_left_alone() -> None:
    assert fill.values(SPACE, "q.ranknum", (1,)) is None


@pytest.mark.parametrize(
    ("name", "shape"), [("q.ia3_l", (40, 1)), ("q.lora_magnitude_vector", (40,)), (NORM, (40,)), ("q.lora_E", (40, 1))]
)
def test_what_multiplies_stays_positive_and_is_never_the_idle_value(name: str, shape: tuple[int, ...]) -> None:
    drawn = filled(name, *shape)

    assert drawn.min() > 0.0
    assert not (drawn == 1.0).any()
    assert len(np.unique(drawn)) == 40


def test_norm_weights_lie_around_one() -> None:
    drawn = filled(NORM, 2000)

    assert 0.8 <= drawn.min() < 0.81
    assert 1.19 < drawn.max() < 1.2
    assert drawn.mean() == pytest.approx(1.0, abs=0.01)


@given(name=names, rows=st.integers(1, 8), columns=st.integers(1, 50))
@settings(deadline=None, max_examples=50)
def test_a_matrix_stays_in_its_range(name: str, rows: int, columns: int) -> None:
    drawn = filled(name, rows, columns, recipes=())

    assert drawn.shape == (rows, columns)
    assert np.abs(drawn).max() <= np.float32(min(0.6, math.sqrt(3 / columns)))


def test_a_scenarios_own_pattern_comes_before_recipe_and_rule() -> None:
    own = {"*ia3_l*": (4.0, 0.5), "*.lora_B*": (0.0, 0.0)}

    assert fill.centre_and_spread("q.ia3_l", (1, 3), own, fill.RECIPES) == (4.0, 0.5)
    assert filled("q.ia3_l", 1, 3, own=own).min() >= 3.5
    assert not filled("q.lora_B.weight", 2, 3, own=own).any()
    assert fill.values("n", "q.lora_A.weight", (2, 3), {"*lora_A*": ()}) is None
    assert filled("q.lora_A.weight", 2, 3, own=own).all()


def test_patterns_mind_case() -> None:
    assert fill.centre_and_spread("q.lora_e", (8, 1), {}, fill.RECIPES) == (0.0, 0.6)


@pytest.mark.parametrize(
    ("name", "is_norm"),
    [
        ("model.norm.weight", True),
        ("layers.0.input_layernorm.weight", True),
        ("encoder.layer.0.output.LayerNorm.weight", True),
        ("layers.0.q_norm.weight", True),
        ("h.0.ln_1.weight", True),
        ("ln_f.weight", True),
        ("ln.weight", True),
        ("bn.weight", True),
        ("model.norm.bias", False),
        ("norm", False),
        ("weight", False),
        ("normal_proj.bias", False),
        ("q_proj.weight", False),
        ("lnx.weight", False),
        ("norm.proj.weight", False),
    ],
)
def test_norms_are_known_by_their_names(name: str, is_norm: bool) -> None:
    assert fill.is_norm_weight(name) is is_norm


@given(name=names, low=st.integers(-50, 50), span=st.integers(1, 60))
@settings(deadline=None, max_examples=50)
def test_integers_are_in_their_range(name: str, low: int, span: int) -> None:
    drawn = fill.integers("input", name, 30, low, low + span)

    assert drawn.dtype == np.int64
    assert drawn.min() >= low
    assert drawn.max() < low + span


def test_integers_reach_both_ends() -> None:
    assert set(fill.integers("input", "ids", 400, 3, 11).tolist()) == set(range(3, 11))


def test_an_empty_range_of_integers_is_its_lower_end() -> None:
    assert fill.integers("input", "ids", 3, 5, 5).tolist() == [5, 5, 5]


class FakeTorch:
    """As much of torch as filling needs."""

    def __init__(self) -> None:
        self.without_gradients = 0

    @contextlib.contextmanager
    def no_grad(self) -> Any:
        self.without_gradients += 1
        yield

    @staticmethod
    def from_numpy(array: np.ndarray[Any, Any]) -> Any:
        class Tensor:
            @staticmethod
            def to(dtype: Any) -> np.ndarray[Any, Any]:
                return array.astype(dtype.numpy)

        return Tensor()


class FakeDtype:
    """float32, or an integer type."""

    def __init__(self, name: str) -> None:
        self.numpy = np.dtype(name)
        self.is_floating_point = self.numpy.kind == "f"


class FakeParameter:
    """A parameter that remembers what was copied into it."""

    def __init__(self, *shape: int, dtype: str = "float32") -> None:
        self.shape = shape
        self.dtype = FakeDtype(dtype)
        self.content: Any = None

    def copy_(self, tensor: Any) -> None:
        assert tensor.shape == self.shape
        self.content = tensor


def test_parameters_are_filled_in_place_and_named() -> None:
    torch = FakeTorch()
    weight, count, whole = FakeParameter(2, 3), FakeParameter(1), FakeParameter(4, dtype="int64")

    done = fill.fill_parameters(torch, [(QUERY, weight), ("q.ranknum", count), ("position", whole)], SPACE)

    assert done == [QUERY]
    assert torch.without_gradients == 1
    assert weight.content.dtype == np.float32
    assert np.array_equal(weight.content.astype(np.float64), filled(QUERY, 2, 3))
    assert count.content is None
    assert whole.content is None


def test_recipes_may_be_an_iterator() -> None:
    parameters = [("a.ia3_l", FakeParameter(1, 4)), ("b.ia3_l", FakeParameter(1, 4))]

    fill.fill_parameters(FakeTorch(), parameters, SPACE, recipes=iter(fill.RECIPES))

    assert all(parameter.content.min() >= 0.5 for _, parameter in parameters)
