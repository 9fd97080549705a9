"""Copies from a mould are what `copy.deepcopy` makes, and independent of each other."""

from __future__ import annotations

import collections
import copy
import functools
import pickle
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from harness.worker.model.copies import Copier, Snapshot


class Tensor:
    """Like torch's: pickling it is slow, and copying it its own affair."""

    copied = 0

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        Tensor.copied += 1
        memo[id(self)] = made = Tensor(*self.values)
        return made

    def untyped_storage(self) -> Any:
        return SimpleNamespace(data_ptr=lambda: id(self.values))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise AssertionError("a tensor is to be copied, not pickled")


class Module:
    """Like torch's: its state goes through `__setstate__`, its parts know each other."""

    def __init__(self) -> None:
        self.weight = Tensor(1.0)
        self.tied = self.weight
        self.parts: Any = collections.OrderedDict(a=SimpleNamespace(owner=self), b=None)
        self.hook = self.said
        self.function = functools.partial(self.said, 1)
        self.kind = Module
        self.make = lambda: self
        self.names = {"q", "v", "k"}
        self.ranks = (1, [2, 3], frozenset({4}))
        self.awake = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, awake=True)

    def said(self, *words: Any) -> Any:
        return self, words


def test_a_copy_is_as_deepcopy_makes_it() -> None:
    model = Module()
    mould = Copier(model, Tensor)
    assert mould.is_fast
    for made in (mould.copy(), copy.deepcopy(model)):
        assert made is not model
        assert made.weight is made.tied
        assert made.weight is not model.weight
        assert made.weight.values == [1.0]
        assert made.parts["a"].owner is made
        assert made.hook()[0] is made
        assert made.function() == (made, (1,))
        assert made.kind is Module
        assert made.make is model.make, "a function is shared, with all that it encloses"
        assert (made.names, made.ranks, made.awake) == (model.names, model.ranks, True)
        assert list(made.names) == list(copy.deepcopy(model).names)
        assert made.ranks[1] is not model.ranks[1]


def test_copies_do_not_know_each_other() -> None:
    mould = Copier(Module(), Tensor)
    one, other = mould.copy(), mould.copy()
    one.weight.values.append(2.0)
    one.ranks[1].append(4)
    one.parts["c"] = 1
    assert (other.weight.values, other.ranks[1], list(other.parts)) == ([1.0], [2, 3], ["a", "b"])


def test_a_tied_tensor_is_copied_once() -> None:
    mould = Copier(Module(), Tensor)
    before = Tensor.copied
    mould.copy()
    assert Tensor.copied == before + 1


class CopiesItself:
    """Has an idea of its own of what a copy is."""

    def __deepcopy__(self, memo: dict[int, Any]) -> str:
        return "a copy"


def test_what_copies_itself_is_left_to_deepcopy() -> None:
    mould = Copier([CopiesItself(), Tensor()], Tensor)
    assert not mould.is_fast
    assert mould.copy()[0] == "a copy"


def test_what_cannot_be_copied_is_refused_by_deepcopy() -> None:
    mould = Copier([threading.Lock()], Tensor)
    assert not mould.is_fast
    with pytest.raises(TypeError, match="cannot pickle"):
        mould.copy()


class Fussy:
    """Can be pressed, but not built."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise ValueError("not like this")


def test_what_cannot_be_built_is_refused_by_deepcopy() -> None:
    made = Fussy()
    made.__dict__["x"] = 1
    mould = Copier(made, Tensor)
    assert mould.is_fast
    with pytest.raises(ValueError, match="not like this") as caught:
        mould.copy()
    assert any(entry.name == "deepcopy" for entry in caught.traceback)


class Plain:
    """A model that shares nothing but code with its copies."""

    def __init__(self) -> None:
        self.weight = Tensor(1.0)
        self.tied = self.weight
        self.names = ["q"]
        self.function = len
        self.kind = Plain


def test_a_snapshot_keeps_the_model_as_it_was() -> None:
    model = Plain()
    kept = Snapshot(model, Tensor)
    model.weight.values.append(2.0)
    model.names.append("v")
    one, other = kept.copy(), kept.copy()
    one.weight.values.append(3.0)
    assert other.weight is other.tied
    assert (other.weight.values, other.names, other.function, other.kind) == ([1.0], ["q"], len, Plain)


def enclosing(value: Any) -> Any:
    """A function that encloses a value."""
    return lambda: value


def keeping(value: Any = None, **more: Any) -> Any:
    """A function with a default, and with attributes."""

    def function(one: Any = value) -> Any:
        return one

    vars(function).update(more)
    return function


@pytest.mark.parametrize(
    ("value", "is_refused"),
    [
        (enclosing(3), False),
        (enclosing(enclosing("a")), False),
        (enclosing(len), False),
        (keeping(2.5), False),
        (enclosing([]), True),
        (enclosing(enclosing(Plain())), True),
        (keeping({}), True),
        (keeping(state=[1]), True),
        ([].append, True),
        (weakref.ref(Plain), True),
    ],
)
def test_a_snapshot_refuses_what_copies_would_share(value: Any, is_refused: bool) -> None:
    model = Plain()
    model.function = value
    if not is_refused:
        assert Snapshot(model, Tensor).copy().function is value
        return
    with pytest.raises(pickle.PicklingError, match="would share"):
        Snapshot(model, Tensor)


def test_a_snapshot_refuses_two_tensors_in_one_memory() -> None:
    model = Plain()
    model.tied = Tensor()
    Snapshot(model, Tensor)
    model.tied.values = model.weight.values
    with pytest.raises(pickle.PicklingError, match="share their memory"):
        Snapshot(model, Tensor)
