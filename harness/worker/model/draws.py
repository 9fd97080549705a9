"""Counts the random numbers that a step drew, and draws as many without the step.

A tensor that a load draws at random and that the checkpoint does not fill is part of an observation. So a load that is
replaced by a copy must leave the generator where the load would have left it.
"""

from __future__ import annotations

import random
from typing import Any, Callable, Optional, Tuple

_BLOCK = 624
"""Numbers that the Mersenne twister makes at once."""
_PLACE, _NUMBERS = slice(16, 24), slice(24, 24 + 8 * _BLOCK)
"""Bytes of a state of torch's generator: how many numbers of the block were drawn, and the block."""
_MOST = 50_000
"""Blocks to look through: 30 million numbers."""


def counted(torch: Any, step: Callable[[], Any]) -> Tuple[Any, Optional[int]]:
    """Run a step.

    Returns:
        its result, and how many numbers of 32 bits it drew from torch's generator; None if that cannot be told, or if
        it drew from Python's or NumPy's.
    """
    import numpy

    others = random.getstate(), numpy.random.get_state()
    before = torch.get_rng_state()
    result = step()
    if others[0] != random.getstate() or str(others[1]) != str(numpy.random.get_state()):
        return result, None
    return result, _between(torch, before, torch.get_rng_state())


def draw(torch: Any, count: int, generator: Any = None) -> None:
    """Draw numbers of 32 bits from torch's generator, or from another one."""
    torch.empty(count, dtype=torch.int32).random_(generator=generator)


def _between(torch: Any, before: Any, after: Any) -> Optional[int]:
    """How many numbers lie between two states of a generator."""
    generator = torch.Generator()
    generator.set_state(before)
    now, count = before, 0
    for _ in range(_MOST):
        if torch.equal(now[_NUMBERS], after[_NUMBERS]):
            break
        draw(torch, _BLOCK, generator)
        now, count = generator.get_state(), count + _BLOCK
    count += _place(after) - _place(now)
    if count < 0:
        return None
    # the rest of the state counts too: a normal number that is kept for the next call
    generator.set_state(before)
    draw(torch, count, generator)
    return count if torch.equal(generator.get_state(), after) else None


def _place(state: Any) -> int:
    return int.from_bytes(bytes(state[_PLACE].tolist()), "little")
