"""Makes many independent copies of one model: the result of `copy.deepcopy`, in a fraction of its time.

A cell copies its base about twenty times, and `deepcopy` walks it in Python each time. Here the pickler walks it once,
with the protocol that `deepcopy` uses (`__reduce_ex__(4)`, `copyreg`), and the unpickler builds each copy, in C.
Objects that `deepcopy` shares are shared; objects that it copies specially (tensors) are copied by it. If a model does
not support this, or a copy fails, `copy.deepcopy` copies it.

A `Snapshot` stands in for loading a model again. It keeps the model as it is now, whatever becomes of it, and refuses
one of which copies would share more than code.
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
"""Types that `copy.deepcopy` shares. (It cannot copy a module at all: `_Writer` refuses it.)"""

_PROTOCOL = 4  # the protocol of deepcopy


class Copier:
    """One model, ready for copying."""

    def __init__(self, model: Any, tensor: type) -> None:
        """Walk the model once.

        Args:
            tensor: the class whose instances `copy.deepcopy` copies.
        """
        self._model = model
        self._kept: list[Any] = []
        self._pressed: bytes | None = None
        file = io.BytesIO()
        try:
            _Writer(file, tensor, self._kept).dump(model)
            self._pressed = file.getvalue()
        except Exception:  # noqa: BLE001 - deepcopy may copy what cannot be pickled
            self._kept = []

    @property
    def is_fast(self) -> bool:
        """False if `copy.deepcopy` does all the work."""
        return self._pressed is not None

    def copy(self) -> Any:
        """An independent copy, equal to that of `copy.deepcopy`."""
        if self._pressed is not None:
            try:
                return _Reader(io.BytesIO(self._pressed), self._kept).load()
            except Exception:  # noqa: BLE001 - if the model causes it, deepcopy raises it too
                self._pressed = None
        return copy.deepcopy(self._model)


class Snapshot:
    """A model as it is now, ready for copying."""

    def __init__(self, model: Any, tensor: type) -> None:
        """Keep its state.

        Args:
            tensor: the class of its tensors, which are copied now.

        Raises:
            pickle.PicklingError, or what an object of the model raises: copies would share something that may change, a
                function that encloses a module for example; two tensors share their memory; or it cannot be copied.
        """
        self._kept: list[Any] = []
        file = io.BytesIO()
        _Writer(file, tensor, self._kept).dump(model)
        if shared := [one for one in self._kept if not isinstance(one, tensor) and not _is_code(one)]:
            raise pickle.PicklingError(f"copies would share {shared[0]!r}")
        tensors: list[Any] = [one for one in self._kept if isinstance(one, tensor)]
        places = [one.untyped_storage().data_ptr() for one in tensors]
        if len(set(filter(None, places))) < len(list(filter(None, places))):
            raise pickle.PicklingError("two tensors share their memory, and copies of them would not")
        memo: dict[int, Any] = {}
        self._kept = [copy.deepcopy(one, memo) for one in self._kept]
        self._pressed = file.getvalue()

    def copy(self) -> Any:
        """An independent copy."""
        return _Reader(io.BytesIO(self._pressed), self._kept).load()


_CONSTANT = (type, property, range, complex, type(Ellipsis), type(NotImplemented), enum.Enum, types.ModuleType)
_PLAIN = (str, bytes, int, float, type(None), *_CONSTANT)


def _is_code(shared: Any, seen: tuple[Any, ...] = ()) -> bool:
    """True for what no call on one copy can change for another: constants, and functions without state."""
    if isinstance(shared, types.BuiltinFunctionType):
        return isinstance(shared.__self__, (type(None), types.ModuleType, type))
    if not isinstance(shared, types.FunctionType):
        return isinstance(shared, _CONSTANT)
    try:
        enclosed = [cell.cell_contents for cell in shared.__closure__ or ()]
    except ValueError:  # a variable without a value yet
        return False
    held = [*enclosed, *(shared.__defaults__ or ()), *(shared.__kwdefaults__ or {}).values(), *vars(shared).values()]
    return all(isinstance(one, _PLAIN) or one in seen or _is_code(one, (*seen, shared)) for one in held)


class _Writer(pickle.Pickler):
    """Writes a model's structure; shared objects and tensors as numbers in `kept`."""

    def __init__(self, file: io.BytesIO, tensor: type, kept: list[Any]) -> None:
        super().__init__(file, _PROTOCOL)
        self._tensor = tensor
        self._kept = kept
        self._numbers: dict[int, int] = {}
        self._kinds: dict[type, bool] = dict.fromkeys((dict, str, int, bool, float, list, tuple, type(None)), False)
        """Type → whether its instances are kept."""

    def persistent_id(self, obj: Any) -> Any:
        """The number of an object that is kept; None if it is written."""
        kind = type(obj)
        is_kept = self._kinds.get(kind)
        if is_kept is None:
            is_kept = self._kinds[kind] = issubclass(kind, (self._tensor, *_SHARED))
            if not is_kept and hasattr(kind, "__deepcopy__"):
                raise pickle.PicklingError(f"{kind} copies itself in a way of its own")
        if not is_kept:
            return None
        if isinstance(obj, types.ModuleType):
            raise pickle.PicklingError("deepcopy can't copy a module, and says so itself")
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(self._kept)
            self._kept.append(obj)
        return self._numbers[id(obj)]

    def reducer_override(self, obj: Any) -> Any:
        """Reduce like `deepcopy` where a pickler does it differently."""
        if isinstance(obj, types.MethodType):  # a pickler looks the name up, and may find another function
            return types.MethodType, (obj.__func__, obj.__self__)
        return NotImplemented


class _Reader(pickle.Unpickler):
    """Builds one copy. A common memo keeps ties between tensors, as in one call of `deepcopy`."""

    def __init__(self, file: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(file)
        self._kept = kept
        self._memo: dict[int, Any] = {}

    def persistent_load(self, number: int) -> Any:
        """The object with that number: itself if shared, a copy if it is a tensor."""
        return copy.deepcopy(self._kept[number], self._memo)
