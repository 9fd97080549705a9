"""Compares two saved adapters of one scenario as files: what a release saves differently (pure)."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.store.saved_adapter import Written, generic

Kind = Literal["file", "key", "shape", "dtype", "value", "config", "version", "unknown"]
KINDS: dict[Kind, str] = {
    "file": "files",
    "key": "keys",
    "shape": "shapes",
    "dtype": "types",
    "value": "values",
    "config": "config",
    "version": "version strings, no change in meaning",
    "unknown": "could not be compared",
}
"""What changed, in the order of reports. The last two are not differences."""


@dataclass(frozen=True)
class Change:
    """One change, in words that are the same for all scenarios."""

    kind: Kind
    what: str
    details: tuple[str, ...] = ()
    """The full keys of this scenario."""

    @property
    def differs(self) -> bool:
        """False for version strings, and for what could not be compared."""
        return differs(self.kind)


def differs(kind: Kind) -> bool:
    """False for version strings, and for what could not be compared."""
    return kind not in ("version", "unknown")


@dataclass(frozen=True)
class Shared:
    """A change with all its scenarios."""

    kind: Kind
    what: str
    details: Mapping[str, tuple[str, ...]]
    """Scenario → the full keys."""

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted(self.details))


def changes(before: Written, after: Written) -> tuple[Change, ...]:
    """Everything that differs in `after`."""
    renamed = _renames(before.shapes, after.shapes)
    return (
        *_files(before, after),
        *_keys(before, after, renamed),
        *_shapes(before, after),
        *_dtypes(before, after, renamed),
        *_values(before, after, renamed),
        *_config(before.config, after.config, "config"),
        *_config(before.versions, after.versions, "version"),
    )


def shared(found: Mapping[str, Sequence[Change]]) -> tuple[Shared, ...]:
    """Equal changes of several scenarios as one; within a kind, those of most scenarios first.

    Args:
        found: scenario → its changes.
    """
    groups: dict[tuple[Kind, str], dict[str, tuple[str, ...]]] = {}
    for scenario, every in found.items():
        for change in every:
            groups.setdefault((change.kind, change.what), {})[scenario] = change.details
    order = list(KINDS)
    found_of_all = [Shared(kind, what, details) for (kind, what), details in groups.items()]
    return tuple(sorted(found_of_all, key=lambda each: (order.index(each.kind), -len(each.details), each.what)))


def together(every: Iterable[Shared]) -> dict[tuple[Kind, tuple[str, ...]], list[Shared]]:
    """Changes of one kind by their scenarios."""
    groups: dict[tuple[Kind, tuple[str, ...]], list[Shared]] = {}
    for each in every:
        groups.setdefault((each.kind, each.scenarios), []).append(each)
    return groups


def _files(before: Written, after: Written) -> list[Change]:
    gone, new = sorted(set(before.files) - set(after.files)), sorted(set(after.files) - set(before.files))
    if len(gone) == len(new) == 1:
        return [Change("file", f"{gone[0]} → {new[0]}")]
    return [Change("file", f"- {name}") for name in gone] + [Change("file", f"+ {name}") for name in new]


def _keys(before: Written, after: Written, renamed: Mapping[str, str]) -> list[Change]:
    gone = [key for key in before.shapes if key not in after.shapes and key not in renamed]
    new = [key for key in after.shapes if key not in before.shapes and key not in renamed.values()]
    found = _by_end("key", gone, lambda end: f"- {end}") + _by_end("key", new, lambda end: f"+ {end}")
    by_change: dict[str, list[str]] = {}
    for old, now in renamed.items():
        by_change.setdefault(_renaming(old, now), []).append(f"{old} → {now}")
    return [Change("key", what, tuple(sorted(keys))) for what, keys in sorted(by_change.items())] + found


def _by_end(kind: Kind, keys: Iterable[str], words: Any) -> list[Change]:
    by_end: dict[str, list[str]] = {}
    for key in keys:
        by_end.setdefault(generic(key), []).append(key)
    return [Change(kind, words(end), tuple(sorted(every))) for end, every in sorted(by_end.items())]


def _renames(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Removed keys → their new keys: the most similar ones of the same shape, each used once.

    This is a guess from names and shapes. It is made only if as many keys were added as removed; else some are new.
    """
    gone, new = [k for k in before if k not in after], [k for k in after if k not in before]
    if not gone or Counter(before[k] for k in gone) != Counter(after[k] for k in new):
        return {}
    found: dict[str, str] = {}
    for old in sorted(gone):
        free = [key for key in new if key not in found.values() and after[key] == before[old]]
        found[old] = max(free, key=lambda key: difflib.SequenceMatcher(None, old, key, autojunk=False).ratio())
    return found


def _renaming(old: str, now: str) -> str:
    """The part of the name that changed: `bias → base_layer.bias`, the same for every layer."""
    a, b = old.split("."), now.split(".")
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    said = [".".join("*" if part.isdigit() else part for part in side[start : len(side) - end]) for side in (a, b)]
    tail = ".".join(a[len(a) - end :])
    return " → ".join(f"…{part}{'.' if part and tail else ''}{tail}" for part in said)


def _shapes(before: Written, after: Written) -> list[Change]:
    both = [key for key in before.shapes if key in after.shapes and before.shapes[key] != after.shapes[key]]
    return _said("shape", both, lambda key: f"{list(before.shapes[key])} → {list(after.shapes[key])}")


def _dtypes(before: Written, after: Written, renamed: Mapping[str, str]) -> list[Change]:
    pairs = _pairs(before.dtypes, after.dtypes, renamed)
    changed = {key: now for key, now in pairs.items() if before.dtypes[key] != after.dtypes[now]}
    found = _said("dtype", changed, lambda key: f"{before.dtypes[key]} → {after.dtypes[changed[key]]}")
    if before.shapes and after.shapes and not pairs:
        why = " and ".join(dict.fromkeys(name for side in (before, after) if not side.dtypes for name in side.weights))
        found.append(Change("unknown", f"types: {why or 'the checkpoint'} does not state them unless opened"))
    return found


def _said(kind: Kind, keys: Iterable[str], words: Any) -> list[Change]:
    by_words: dict[str, list[str]] = {}
    for key in keys:
        by_words.setdefault(f"{generic(key)}: {words(key)}", []).append(key)
    return [Change(kind, what, tuple(sorted(every))) for what, every in sorted(by_words.items())]


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, str]:
    """Key before → key after, of the tensors in both."""
    named = {key: renamed.get(key, key) for key in before}
    return {key: now for key, now in named.items() if now in after}


def _values(before: Written, after: Written, renamed: Mapping[str, str]) -> list[Change]:
    """Tensors with other values, by the worker's digests, else by the bytes in safetensors, else by the file."""
    for a, b in ((before.digests, after.digests), (before.contents, after.contents)):
        if a and b:
            keys = [key for key, now in _pairs(a, b, renamed).items() if a[key] != b[now]]
            return _by_end("value", keys, lambda end: f"other values: {end}")
    if before.weights == after.weights:
        return []
    if before.weights.keys() == after.weights.keys():
        names = ", ".join(sorted(name for name in before.weights if before.weights[name] != after.weights[name]))
        return [
            Change(
                "value", f"other bytes in {names} (digests would show which tensors, and whether their values changed)"
            )
        ]
    without = [name for side in (before, after) if not side.digests and not side.contents for name in side.weights]
    why = f"{' and '.join(dict.fromkeys(without))} without digests" if without else "no digests of the same kind"
    return [Change("unknown", f"values: {why}")]


def _config(before: Mapping[str, Any], after: Mapping[str, Any], kind: Kind) -> list[Change]:
    found = []
    for key in sorted({*before, *after}):
        if key not in after:
            found.append(Change(kind, f"- {key} (was {_value(before[key])})"))
        elif key not in before:
            found.append(Change(kind, f"+ {key} = {_value(after[key])}"))
        elif _plain(before[key]) != _plain(after[key]):
            found.append(Change(kind, f"{key}: {_value(before[key])} → {_value(after[key])}"))
    return found


def _value(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _plain(value: Any) -> Any:
    """A value to compare: a list of names means the same in any order."""
    return sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
