"""The pattern of a layer's update as a matrix: it acts transposed, or it is another layer's (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from harness.core.observation import Array, Observed
from harness.core.pattern import Pattern
from harness.core.text import enumerated, many
from harness.judge.pattern.arrays import Change

_SHOWN = 3


def of(golden: Observed, now: Observed, changes: Mapping[str, Change], precision: str) -> Pattern | None:
    """The pattern of the layers that differ; None if there is none.

    Args:
        changes: layer → its own effect in the golden and now.
        precision: of these effects.
    """
    inputs = {name: golden.arrays.get(f"layers/input/{name}") for name in changes}
    updates = now.group("updates", precision)
    linear = {n: updates[n] for n, c in changes.items() if n in updates and _fits(c, inputs[n], updates[n], c.now)}
    differing = [name for name, change in changes.items() if change.differs]
    telling = [name for name in differing if changes[name].telling]
    return _transposed(changes, inputs, linear, telling, differing) or _others(
        changes, inputs, linear, telling, differing
    )


def _fits(change: Change, given: Array | None, update: Array, effect: Array) -> bool:
    """True if an update makes an effect of an input."""
    if given is None or given.shape[-1] != update.shape[0] or effect.shape[-1] != update.shape[1]:
        return False
    return Change(effect, given.astype(effect.dtype) @ update.astype(effect.dtype), change.allowance).left(effect) <= 1


def _transposed(
    changes: Mapping[str, Change],
    inputs: Mapping[str, Array | None],
    linear: Mapping[str, Array],
    telling: list[str],
    differing: list[str],
) -> Pattern | None:
    found = [
        name
        for name in telling
        if name in linear
        and linear[name].shape[0] == linear[name].shape[1]
        and _fits(changes[name], inputs[name], linear[name].T, changes[name].golden)
    ]
    if 2 * len(found) <= len(differing):
        return None
    return Pattern(
        kind="transposition",
        says=f"the update acts transposed in {len(found)} of {many(len(changes), 'layer')}",
        detail="update",
        layers=tuple(found),
        unexplained=tuple(name for name in differing if name not in found),
        compared=len(changes),
    )


def _others(
    changes: Mapping[str, Change],
    inputs: Mapping[str, Array | None],
    linear: Mapping[str, Array],
    telling: list[str],
    differing: list[str],
) -> Pattern | None:
    """Layers that have the update that another had in the golden."""
    now_at: dict[str, str] = {}
    for name in telling:
        fits = [
            other
            for other in linear
            if other != name and _fits(changes[name], inputs[name], linear[other], changes[name].golden)
        ]
        if len(fits) == 1:
            now_at[name] = fits[0]
    if not now_at or set(now_at) != set(now_at.values()) or 2 * len(now_at) <= len(differing):
        return None
    pairs = {tuple(sorted(pair)) for pair in now_at.items() if now_at[pair[1]] == pair[0]}
    if 2 * len(pairs) == len(now_at):
        says = f"{enumerated([' and '.join(pair) for pair in sorted(pairs)], _SHOWN)} have each other's effect"
    else:
        says = enumerated([f"{now} has the effect of {was}" for was, now in sorted(now_at.items())], _SHOWN)
    return Pattern(
        kind="exchange",
        says=says,
        detail="effect",
        layers=tuple(sorted(now_at)),
        unexplained=tuple(name for name in differing if name not in now_at),
        compared=len(changes),
    )
