"""A GPU that the CPU plays: a device of torch's own (PrivateUse1) whose tensors can't be mixed with the CPU's.

What would fail on a real GPU since a tensor lies elsewhere fails here too, with the libraries' real code in between. A
handler for the worker (`--handler`, `--device played`); needs torch 2.13's Python backends. Numbers are the CPU's own.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from typing import Any

NAME = "played"
_MIXED = frozenset({"aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::index", "aten::index_put_"})
"""What may have tensors of both devices among its arguments."""
_VIEWS = frozenset({"aten::view", "aten::_unsafe_view", "aten::_reshape_alias"})
_cell = importlib.import_module("peft_regress_worker.observe.cell")
_kept: list[Any] = []
_known: dict[int, Any] = {}
"""Storage of a played tensor → the CPU tensor with its values: autograd keeps the one without the other."""
torch: Any = None
Played: Any = None


class Module:
    """`torch.played`, as far as it is asked."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_device_name(self, _index: int) -> str:
        return "NVIDIA Played"

    def get_device_capability(self, _index: int) -> tuple[int, int]:
        return 9, 0

    def mem_get_info(self, _index: int) -> tuple[int, int]:
        if os.environ.get("PLAYED_BUSY"):
            raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")
        return 1 << 30, 1 << 31

    def synchronize(self) -> None:
        """Nothing is under way."""

    def reset_peak_memory_stats(self) -> None:
        """Nothing is counted."""

    def max_memory_allocated(self) -> int:
        return 3 << 19

    def empty_cache(self) -> None:
        """There is none."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, _seed: int) -> None:
        """The CPU's numbers are drawn."""


def preload(request: dict[str, Any]) -> dict[str, Any]:
    """Puts the device into torch, then does what the worker does."""
    _install()
    found: dict[str, Any] = _cell.preload(request)
    return found


handle = _cell.handle
is_sound = _cell.is_sound


def _install() -> None:
    global torch, Played
    torch = importlib.import_module("torch")

    class Tensor(torch.Tensor):  # type: ignore[misc]
        """A tensor of the device; `raw` holds its values."""

        __torch_function__ = torch._C._disabled_torch_function_impl

        def data_ptr(self) -> int:
            return int(self.raw.data_ptr())

        @property
        def data(self) -> Any:
            return _put(self.raw)

        @data.setter
        def data(self, value: Any) -> None:
            self.raw = _known[self.untyped_storage()._cdata] = value.raw

        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            if id(self) not in memo:
                made = _put(self.raw.clone()).requires_grad_(self.requires_grad)
                made._is_param = getattr(self, "_is_param", False)
                memo[id(self)] = made
            return memo[id(self)]

    Played = Tensor
    backend = importlib.import_module("torch.utils.backend_registration")
    backend._setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    anything, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _kept.extend([anything, aten])
    anything.fallback(_on_cpu, "PrivateUse1")
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::") and _composed(name):
            base, _, overload = name[len("aten::") :].partition(".")
            with contextlib.suppress(Exception):  # a few can't be had in Python; no cell needs them
                op = getattr(getattr(torch.ops.aten, base), overload or "default")
                aten.impl(name[len("aten::") :], functools.partial(_on_cpu, op), "PrivateUse1")
    torch.__future__.set_overwrite_module_params_on_conversion(True)


def _composed(name: str) -> bool:
    """True for an operator that torch composes of others for every device: these go before the fallback."""
    keys = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in keys)


def _put(values: Any) -> Any:
    made = torch._C._acc.create_empty_tensor(values.size(), values.dtype)
    made.__class__ = Played
    made.raw = _known[made.untyped_storage()._cdata] = values.detach()
    _kept.append(made.untyped_storage())  # or its address would become another's
    return made


def _on_cpu(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Does an operator with the values on the CPU, after the look at where the tensors lie."""
    name = op._schema.name
    places: set[str] = set()
    own: dict[int, Any] = {}

    def down(tensor: Any) -> Any:
        if tensor.device.type != NAME:
            places.update(["cpu"] if tensor.dim() else [])  # a number may come from anywhere
            return tensor
        places.add(NAME)
        raw = tensor.raw if isinstance(tensor, Played) else _known[tensor.untyped_storage()._cdata]
        own[id(raw)] = tensor
        return raw

    values, more = _each(list(args), down), _each(kwargs, down)
    if len(places) > 1 and name not in _MIXED:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found played and cpu ({name})")
    here = NAME in places
    if more.get("device") is not None:
        here = torch.device(more["device"]).type == NAME
        more["device"] = "cpu"
    with torch._C._AutoDispatchBelowAutograd():
        result = values[0].reshape(values[1]) if name in _VIEWS else op(*values, **more)
    return _each(result, lambda tensor: own.get(id(tensor)) if id(tensor) in own else _put(tensor) if here else tensor)


def _each(value: Any, change: Any) -> Any:
    """The value with every tensor in it changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_each(item, change) for item in value)
    return {key: _each(item, change) for key, item in value.items()} if isinstance(value, dict) else value
