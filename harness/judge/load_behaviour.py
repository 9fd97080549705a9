"""What a loader did with a checkpoint on reading it: refused it, dropped tensors, ignored config keys, or read it.

Pure. An old loader cannot support a newer feature: the best that it can do is to fail loudly. This decides no verdict,
except for a loader that lacks a scenario's feature by declaration and runs all the same (`tried`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from harness.core.run import Cell
from harness.core.verdict import Reading, Verdict

_REMOVED = re.compile(r"- (?P<key>\S+) \(was .*\)", re.DOTALL)
"""A config entry that is gone and had a meaning, in the words of `harness.judge.config_entries`."""
_UNKNOWN = re.compile(r"[Uu]nexpected keyword arguments? \[(?P<keys>[^\]]*)\]")
"""PEFT's warning (since 0.14) about config keys that it ignores."""


def of(cell: Cell) -> Reading:
    """What the loader did, the worst first; empty if it did not finish (a crash, nothing to compare)."""
    if cell.verdict in (Verdict.LOAD_ERROR, Verdict.UNSUPPORTED) and cell.error is not None:
        return "refused"
    if not cell.verdict.is_judged or not cell.probes:
        return ""
    if cell.keys is not None and cell.keys.lost:
        return "dropped"
    return "ignored" if ignored_keys(cell) else "read"


def ignored_keys(cell: Cell) -> tuple[str, ...]:
    """Keys of the adapter's config that have a meaning and that the loader did not keep, sorted.

    They are missing when it saves the adapter again. If it could not save, its warnings name them.
    """
    roundtrip = cell.probes.get("roundtrip")
    if roundtrip is None or roundtrip.outcome != "ok":
        return tuple(sorted(_warned_of(cell.new_warnings)))
    found = filter(None, map(_REMOVED.fullmatch, cell.config_differences))
    return tuple(sorted(each["key"] for each in found))


def _warned_of(warnings: Iterable[str]) -> set[str]:
    """Keys that every such warning names: PEFT first reads a config as its base class, which has few keys."""
    lists = [_listed(found["keys"]) for text in warnings for found in _UNKNOWN.finditer(text)]
    common = set(lists[0]).intersection(*lists[1:]) if lists else set()
    return {key for key in common if not key.endswith("_version")}


def _listed(keys: str) -> list[str]:
    return [key.strip(" '\"") for key in keys.split(",") if key.strip()]


def tried(cell: Cell, lacks: str) -> Cell:
    """The cell of a loader that lacks the scenario's feature by declaration, and ran all the same.

    It should refuse: then the verdict is `unsupported`, and the reason says how. Anything else counts as for any
    loader, above all a checkpoint that it loads silently and computes wrongly.

    Args:
        lacks: what it lacks: `needs peft>=0.9, has peft 0.7.1`.
    """
    if cell.verdict is Verdict.LOAD_ERROR and cell.error is not None:
        error = cell.error
        said = (error.message.strip().splitlines() or [""])[0]
        reason = f"loader: {lacks}; it refuses at stage {error.stage}: {error.type}: {said}"
        return cell.model_copy(update={"verdict": Verdict.UNSUPPORTED, "reason": reason, "findings": ()})
    if cell.verdict.is_judged:
        note = f"the loader lacks the feature ({lacks}), but does not refuse{_LOADS.get(of(cell), '')}"
        return cell.model_copy(update={"notes": (*cell.notes, note)})
    return cell


_LOADS: dict[Reading, str] = {
    "dropped": ": it drops tensors of the checkpoint",
    "ignored": ": it ignores entries of the config",
    "read": ": it reads tensors and config completely",
}
