"""What a checkpoint must hold: its keys and shapes against what the scenario `expects` (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from harness.core.observation import Observed


def stored_keys(side: Observed) -> list[str]:
    """The keys in the checkpoint's file."""
    return sorted(side.fact("accounting", "tensors") or {})


def unmet(golden: Observed, resolved: Mapping[str, Any]) -> list[str]:
    """Sentences about keys and shapes of the golden's checkpoint that its scenario does not expect."""
    problems, stray = unexpected_keys(stored_keys(golden), resolved.get("expects"))
    shapes = unexpected_shapes(golden.fact("accounting", "shapes") or {}, resolved.get("expects_shapes") or {})
    return [*problems, *(f"key {key!r} matches no pattern" for key in stray[:5]), *shapes]


def unexpected_keys(keys: Iterable[str], expects: Mapping[str, int] | None) -> tuple[list[str], list[str]]:
    """Compare a checkpoint's keys with what the scenario `expects`.

    Returns:
        (sentences about patterns that match another number of keys, keys that match no pattern).
    """
    if expects is None:
        return [], []
    keys = list(keys)
    problems = []
    for pattern, count in expects.items():
        matching = sum(fnmatchcase(key, pattern) for key in keys)
        if matching != count:
            problems.append(f"expected {count} keys like {pattern!r}, found {matching}")
    stray = [key for key in keys if not any(fnmatchcase(key, pattern) for pattern in expects)]
    return problems, stray


def unexpected_shapes(shapes: Mapping[str, Sequence[int]], expects: Mapping[str, Sequence[int]]) -> list[str]:
    """Sentences about tensors of other shapes than the scenario `expects`, and patterns that match none."""
    problems = []
    for pattern, shape in expects.items():
        named = {key: list(found) for key, found in shapes.items() if fnmatchcase(key, pattern)}
        if not named:
            problems.append(f"expected a key like {pattern!r} of shape {list(shape)}, found none")
        problems += [f"{key!r} has shape {found}, not {list(shape)}" for key, found in named.items() if found != shape]
    return problems
