"""What a checkpoint must hold: its keys and shapes against what the scenario `expects` (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from harness.core.observation import Observed


def stored_keys(side: Observed) -> list[str]:
    """The keys of the checkpoint's file, as the worker found them there."""
    return sorted(side.fact("accounting", "tensors") or {})


def unmet(golden: Observed, resolved: Mapping[str, Any]) -> list[str]:
    """Sentences about what the golden's checkpoint lacks or has too much, by the declaration that it was made from."""
    problems, stray = unexpected_keys(stored_keys(golden), resolved.get("expects"))
    shapes = unexpected_shapes(golden.fact("accounting", "shapes") or {}, resolved.get("expects_shapes") or {})
    return [*problems, *(f"key {key!r} is named by no pattern" for key in stray[:5]), *shapes]


def unexpected_keys(keys: Iterable[str], expects: Mapping[str, int] | None) -> tuple[list[str], list[str]]:
    """Holds a checkpoint's keys against what the scenario `expects`.

    Returns:
        (sentences about patterns whose count is not met, keys that no pattern names).
    """
    if expects is None:
        return [], []
    keys = list(keys)
    problems = []
    for pattern, count in expects.items():
        matching = sum(fnmatchcase(key, pattern) for key in keys)
        if matching != count:
            problems.append(f"{count} keys like {pattern!r} are expected, {matching} are there")
    stray = [key for key in keys if not any(fnmatchcase(key, pattern) for pattern in expects)]
    return problems, stray


def unexpected_shapes(shapes: Mapping[str, Sequence[int]], expects: Mapping[str, Sequence[int]]) -> list[str]:
    """Sentences about tensors that are larger or smaller than the scenario `expects`, and patterns that name none."""
    problems = []
    for pattern, shape in expects.items():
        named = {key: list(found) for key, found in shapes.items() if fnmatchcase(key, pattern)}
        if not named:
            problems.append(f"a key like {pattern!r} of shape {list(shape)} is expected, none is there")
        problems += [f"{key!r} has shape {found}, not {list(shape)}" for key, found in named.items() if found != shape]
    return problems
