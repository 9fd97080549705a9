"""The pattern of where the checkpoint's tensors are in the model: dropped, exchanged, transposed (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.core.observation import Observed
from harness.core.pattern import Pattern
from harness.core.text import enumerated, listed, many

_SHOWN = 3
_ARRIVED = ("whole", "transposed", "slice")


def dropped(lost: Sequence[str], keys: Iterable[str]) -> Pattern:
    """Tensors that never arrive, by the ends of names that no other tensor has.

    Args:
        keys: all keys of the checkpoint.
    """
    others = [key for key in keys if key not in set(lost)]
    ends = tuple(sorted({_own_end(key, others) for key in lost}))
    few = len(lost) > len(ends) and len(ends) <= _SHOWN
    shown = f"all {len(lost)} tensors {listed(f'…{end}' for end in ends)}" if few else enumerated(lost, _SHOWN)
    return Pattern(
        kind="dropped",
        says=f"{shown} never arrive{'' if len(lost) > 1 else 's'}",
        detail=", ".join(ends) if few else "",
        tensors=tuple(lost),
    )


def _own_end(key: str, others: Sequence[str]) -> str:
    """The shortest end of a key, in whole parts, that no key of the others has."""
    parts = key.split(".")
    ends = ("." + ".".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next((end for end in ends if not any(f".{other}".endswith(end) for other in others)), key)


def misplaced(golden: Observed, now: Observed, layers: Sequence[str]) -> Pattern | None:
    """Tensors that arrived in the place of others, or transposed; None if all are where they were for the creator.

    Args:
        layers: canonical names of the layers that differ.
    """
    before, after = (side.fact("accounting", "tensors") or {} for side in (golden, now))
    return _exchanged(before, after, layers) or _transposed(before, after, layers)


def _exchanged(before: Mapping[str, Any], after: Mapping[str, Any], layers: Sequence[str]) -> Pattern | None:
    was, now_at = (_places(side) for side in (before, after))
    owner = {place: key for key, place in was.items()}
    moved = {
        key: owner[now_at[key]] for key in was if key in now_at and now_at[key] != was[key] and now_at[key] in owner
    }
    if not moved or set(moved) != set(moved.values()):
        return None  # not all of them have another's place: renamed, most likely
    at = {key: _layer(was[key], layers) for key in moved}
    pairs = {tuple(sorted({at[key], at[other]})) for key, other in moved.items()}
    if not all(at.values()) or any(len(pair) != 2 for pair in pairs):
        return None
    of_them = [key for key, place in was.items() if _layer(place, [name for pair in pairs for name in pair])]
    what = "tensors" if set(of_them) <= set(moved) else " and ".join(sorted({_part(was[k], at[k]) for k in moved}))
    shown = enumerated([" and ".join(pair) for pair in sorted(pairs)], _SHOWN)
    return Pattern(
        kind="exchange",
        says=f"{shown} have each other's {what}",
        detail=what,
        layers=tuple(sorted({name for pair in pairs for name in pair})),
        tensors=tuple(sorted(moved)),
    )


def _places(side: Mapping[str, Any]) -> dict[str, str]:
    """Key → its place, for tensors that are in one place only."""
    return {key: said["at"][0] for key, said in side.items() if said["found"] in _ARRIVED and len(said["at"]) == 1}


def _layer(place: str, layers: Iterable[str]) -> str:
    return max((name for name in layers if place.startswith(f"{name}.")), key=len, default="")


def _part(place: str, layer: str) -> str:
    return place[len(layer) + 1 :].removesuffix(".weight")


def _transposed(before: Mapping[str, Any], after: Mapping[str, Any], layers: Sequence[str]) -> Pattern | None:
    keys = [
        key
        for key, said in after.items()
        if {said["found"], before.get(key, {}).get("found")} == {"whole", "transposed"}
        and any(_layer(place, layers) for place in said["at"])
    ]
    if not keys:
        return None
    says = f"{len(keys)} of {many(len(after), 'tensor')} of the checkpoint arrive transposed"
    return Pattern(kind="transposition", says=says, detail="tensors", tensors=tuple(sorted(keys)))
