"""Measures the rounding of a narrower type: the same computation, with every operator's result rounded to that type.

A model in bfloat16 rounds its weights and each operator's result. Here Torch's dispatcher makes the wide model do the
same. So the rounding noise of *this* model on *these* inputs is measured without the libraries' own code for that type.
What a model computes in float32 for every type (norms, softmax, rotary angles) is in float32 in its float64 twin too,
and is not rounded.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator

KINDS = ("nearest", "truncated")
"""Two ways to round: to the nearest, as processors do, and toward zero, which errs to one side."""


@contextlib.contextmanager
def every_operator(torch: Any, main: str, narrow: str, kind: str) -> Iterator[None]:
    """Inside, each operator's new result of one dtype is rounded to a narrower one.

    Args:
        main: the dtype that the model computes in: `float64`.
        narrow: the dtype to round to: `bfloat16`.
        kind: one of `KINDS`.
    """
    from torch.utils._python_dispatch import TorchDispatchMode  # every pinned Torch has it

    rounded = _rounding(torch, narrow, kind)
    wide = getattr(torch, main)

    class Rounding(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            declared = func._schema.returns
            many = isinstance(result, (tuple, list)) and len(declared) == len(result)
            made = [self._one(value, said) for value, said in zip(result if many else [result], declared)]
            return type(result)(made) if many else (made[0] if made else result)

        @staticmethod
        def _one(value: Any, said: Any) -> Any:
            if not isinstance(value, torch.Tensor) or value.dtype != wide or not _is_plain(value):
                return value
            alias = said.alias_info
            if alias is None:
                return rounded(value)
            if alias.is_write:
                value.copy_(rounded(value))
            return value  # a view has been rounded before

    with Rounding():
        yield


def _is_plain(value: Any) -> bool:
    """False for tensors without numbers to round: sparse ones, whose values are rounded, and those with a shape
    only."""
    return str(value.layout) == "torch.strided" and value.device.type != "meta"


_CUT = {"bfloat16": -(1 << 16), "float16": -(1 << 13)}
"""The mask that keeps the fraction bits of a narrower type in a float32."""


def _rounding(torch: Any, narrow: str, kind: str) -> Callable[[Any], Any]:
    dtype = getattr(torch, narrow)
    limit = float(torch.finfo(dtype).max)

    def rounded(value: Any) -> Any:
        # an attention mask has the wide type's least value, which must stay finite
        kept = torch.where(torch.isfinite(value), value.clamp(-limit, limit), value)
        if kind == "nearest":
            return kept.to(dtype).to(value.dtype)
        return (kept.float().contiguous().view(torch.int32) & _CUT[narrow]).view(torch.float32).to(value.dtype)

    return rounded
