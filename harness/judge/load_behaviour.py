"""What a loader did with a checkpoint on reading it: refused it, dropped tensors, ignored config keys, or read it.

Pure. Of an old loader and a newer checkpoint this is the question: none can have what was invented after it, and
refusing aloud is the best that it can do. It decides no verdict, but for a loader that lacks a scenario's feature by
declaration and is tried all the same (`tried`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from harness.core.run import Cell
from harness.core.verdict import Reading, Verdict

_REMOVED = re.compile(r"- (?P<key>\S+) \(was .*\)", re.DOTALL)
"""An entry of the config that is gone and said something, as `harness.judge.config_entries` words it."""
_UNKNOWN = re.compile(r"[Uu]nexpected keyword arguments? \[(?P<keys>[^\]]*)\]")
"""How PEFT warns (since 0.14) of config keys that it passes over."""


def of(cell: Cell) -> Reading:
    """What the loader did, the worst first; empty where it did not come to an end (a crash, nothing to compare)."""
    if cell.verdict in (Verdict.LOAD_ERROR, Verdict.UNSUPPORTED) and cell.error is not None:
        return "refused"
    if not (cell.verdict.is_clean or cell.verdict.is_deviation) or not cell.probes:
        return ""
    if cell.keys is not None and cell.keys.lost:
        return "dropped"
    return "ignored" if ignored_keys(cell) else "read"


def ignored_keys(cell: Cell) -> tuple[str, ...]:
    """Keys of the adapter's config that say something and that the loader did not keep, sorted.

    What it saves again shows which; where it could not save, what it warned of has to do, whatever the values are.
    """
    roundtrip = cell.probes.get("roundtrip")
    if roundtrip is None or roundtrip.outcome != "ok":
        return tuple(sorted(_warned_of(cell.new_warnings)))
    found = filter(None, map(_REMOVED.fullmatch, cell.config_differences))
    return tuple(sorted(each["key"] for each in found))


def _warned_of(warnings: Iterable[str]) -> set[str]:
    """Keys that every such warning names: PEFT tries a config as its base class first, which knows almost none."""
    lists = [_listed(found["keys"]) for text in warnings for found in _UNKNOWN.finditer(text)]
    common = set(lists[0]).intersection(*lists[1:]) if lists else set()
    return {key for key in common if not key.endswith("_version")}


def _listed(keys: str) -> list[str]:
    return [key.strip(" '\"") for key in keys.split(",") if key.strip()]


def tried(cell: Cell, lacks: str) -> Cell:
    """The cell of a loader that lacks the scenario's feature by declaration, and was tried all the same.

    Refusing is what it should do: `unsupported`, and how it refuses is told. Whatever else came of it counts as for any
    loader, above all a checkpoint that it loads without a word and computes otherwise.

    Args:
        lacks: what it lacks: `needs peft>=0.9, has peft 0.7.1`.
    """
    if cell.verdict is Verdict.LOAD_ERROR and cell.error is not None:
        error = cell.error
        said = (error.message.strip().splitlines() or [""])[0]
        reason = f"loader: {lacks}; it refuses at stage {error.stage}: {error.type}: {said}"
        return cell.model_copy(update={"verdict": Verdict.UNSUPPORTED, "reason": reason, "findings": ()})
    if cell.verdict.is_clean or cell.verdict.is_deviation:
        note = f"the loader lacks the feature by declaration: it {lacks}"
        return cell.model_copy(update={"notes": (*cell.notes, note)})
    return cell
