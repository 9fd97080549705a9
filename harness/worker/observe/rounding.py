"""What computing in a narrower type costs: the same computation with every operator's result rounded to that type.

A model that computes in bfloat16 rounds its weights, and what each operator yields. Here the wide model does the same
by way of Torch's dispatcher: so what narrow arithmetic costs *this* model on *these* inputs is measured, apart from the
libraries' own code for that type. What a model computes in float32 whatever its own type (norms, softmax, rotary
angles) it computes in float32 in its float64 twin too, and it is left alone.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator

KINDS = ("nearest", "truncated")
"""Two ways to round: the nearest, as processors do, and toward zero, which errs always to one side."""


@contextlib.contextmanager
def every_operator(torch: Any, main: str, narrow: str, kind: str) -> Iterator[None]:
    """Inside, each operator's new result of one dtype is what a narrower one can hold.

    Args:
        main: the dtype that the model computes in: `float64`.
        narrow: the one that it is to be rounded to: `bfloat16`.
        kind: one of `KINDS`.
    """
    from torch.utils._python_dispatch import TorchDispatchMode  # in every Torch that an environment pins

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
            return value  # a view shows what was rounded before

    with Rounding():
        yield


def _is_plain(value: Any) -> bool:
    """False for what has no numbers of its own to be rounded: sparse tensors, whose values are, and those of shape
    alone."""
    return str(value.layout) == "torch.strided" and value.device.type != "meta"


_CUT = {"bfloat16": -(1 << 16), "float16": -(1 << 13)}
"""What keeps of a float32's bits those of the fraction that a narrower type has room for."""


def _rounding(torch: Any, narrow: str, kind: str) -> Callable[[Any], Any]:
    dtype = getattr(torch, narrow)
    limit = float(torch.finfo(dtype).max)

    def rounded(value: Any) -> Any:
        # a mask's least value is the least of the wide type: it must not become infinite
        kept = torch.where(torch.isfinite(value), value.clamp(-limit, limit), value)
        if kind == "nearest":
            return kept.to(dtype).to(value.dtype)
        return (kept.float().contiguous().view(torch.int32) & _CUT[narrow]).view(torch.float32).to(value.dtype)

    return rounded
