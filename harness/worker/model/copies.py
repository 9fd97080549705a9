"""Makes many independent copies of one model: what `copy.deepcopy` yields, in a fraction of its time.

A cell copies its base some twenty times, and `deepcopy` walks it in Python each time. Here it is walked once, by the
pickler, which asks objects the very questions that `deepcopy` asks them (`__reduce_ex__(4)`, `copyreg`), and each copy
is built by the unpickler, in C. What `deepcopy` shares is shared, what it copies in a way of its own (tensors) is
copied by it. A model for which that can't be vouched, or whose copy fails, is left to `copy.deepcopy` altogether.
"""

from __future__ import annotations

import copy
import enum
import io
import pickle
import types
import weakref
from typing import Any

_SHARED = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    weakref.ref,
    property,
    range,
    complex,
    type(Ellipsis),
    type(NotImplemented),
    enum.Enum,
)
"""What `copy.deepcopy` hands on as it is (a module it can't copy at all: `_Pressed` refuses it)."""

_PROTOCOL = 4  # the one that deepcopy asks `__reduce_ex__` for


class Mould:
    """One model, ready to be copied."""

    def __init__(self, model: Any, tensor: type) -> None:
        """Presses the model.

        Args:
            tensor: the class whose instances `copy.deepcopy` is to copy.
        """
        self._model = model
        self._kept: list[Any] = []
        self._pressed: bytes | None = None
        file = io.BytesIO()
        try:
            _Pressed(file, tensor, self._kept).dump(model)
            self._pressed = file.getvalue()
        except Exception:  # noqa: BLE001 - what can't be pickled can perhaps be copied
            self._kept = []

    @property
    def is_fast(self) -> bool:
        """False where `copy.deepcopy` does all the work."""
        return self._pressed is not None

    def copy(self) -> Any:
        """An independent copy, equal to that of `copy.deepcopy`."""
        if self._pressed is not None:
            try:
                return _Cast(io.BytesIO(self._pressed), self._kept).load()
            except Exception:  # noqa: BLE001 - if it is the model's fault, deepcopy raises it as it always did
                self._pressed = None
        return copy.deepcopy(self._model)


class _Pressed(pickle.Pickler):
    """Writes a model's structure; what is shared, and tensors, as numbers into `kept`."""

    def __init__(self, file: io.BytesIO, tensor: type, kept: list[Any]) -> None:
        super().__init__(file, _PROTOCOL)
        self._tensor = tensor
        self._kept = kept
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> Any:
        """The number of an object that is not written; None for one that is."""
        kind = type(obj)
        if kind in (dict, str, int, bool, float, list, tuple, type(None)):
            return None
        if not isinstance(obj, (self._tensor, *_SHARED)):
            if hasattr(kind, "__deepcopy__"):
                raise pickle.PicklingError(f"{kind} copies itself in a way of its own")
            return None
        if isinstance(obj, types.ModuleType):
            raise pickle.PicklingError("deepcopy can't copy a module, and says so itself")
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(self._kept)
            self._kept.append(obj)
        return self._numbers[id(obj)]

    def reducer_override(self, obj: Any) -> Any:
        """As `deepcopy` does it, where a pickler would do it otherwise."""
        if isinstance(obj, types.MethodType):  # a pickler looks the name up, and may find another function
            return types.MethodType, (obj.__func__, obj.__self__)
        return NotImplemented


class _Cast(pickle.Unpickler):
    """Builds one copy. Tensors are copied as they are met; their memo keeps ties, as in one call of `deepcopy`."""

    def __init__(self, file: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(file)
        self._kept = kept
        self._memo: dict[int, Any] = {}

    def persistent_load(self, number: int) -> Any:
        """The object of that number: a shared one itself, of a tensor its copy."""
        return copy.deepcopy(self._kept[number], self._memo)
