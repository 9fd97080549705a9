"""How an adapter's config changed when it was saved again (pure).

An entry is kept, changed, gone or new. An entry that is gone may have had no effect: a release without `use_dora` that
leaves out `use_dora: false` loses nothing, and the file still describes the same adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VOLATILE_CONFIG = frozenset({"peft_version", "base_model_name_or_path", "revision", "auto_mapping", "inference_mode"})
"""Config entries that a library sets on each save; their change says nothing about the adapter."""

SAID_NOTHING = ", said nothing"
"""The end of the line of an entry that is gone without loss."""

_ON_WHERE_ABSENT = frozenset({"use_cayley_neumann"})
"""Switches that newer releases turn on by default: here `False` has a meaning."""

_READ_ONLY_WITH = {
    "megatron_core": "megatron_config",
    "num_cayley_neumann_terms": "use_cayley_neumann",
    "qalora_group_size": "use_qalora",
}
"""Entries with a default value that are read only if another entry is on."""


def config_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line an entry: `r: 4 → 8`, `- gone (was 4)`, `+ new = value`, `+ filled in: None → value`.

    An entry that is gone and was off ends with `SAID_NOTHING`. Lists in another order are equal.
    """
    return list(changed_entries(before, after).values())


def changed_entries(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """The same lines by the name of the entry."""
    lines: dict[str, str] = {}
    for key in sorted(set(before) | set(after)):
        if key in VOLATILE_CONFIG:
            continue
        if key not in after:
            lines[key] = f"- {key} (was {before[key]!r}){SAID_NOTHING if _says_nothing(key, before) else ''}"
        elif key not in before:
            lines[key] = f"+ {key} = {after[key]!r}"
        elif plain(before[key]) != plain(after[key]):
            mark = "+ " if _filled_in(key, before[key], after[key]) else ""
            lines[key] = f"{mark}{key}: {before[key]!r} → {after[key]!r}"
    return lines


def _says_nothing(key: str, config: Mapping[str, Any]) -> bool:
    """True if the entry is off, or belongs to a switch that is off: leaving it out changes nothing.

    An empty value other than `None` and `False` is off too; a zero is a number like any other.
    """
    value = config[key]
    switch = _READ_ONLY_WITH.get(key)
    if switch is not None:
        return switch not in config or not config[switch]
    if value is False:
        return key not in _ON_WHERE_ABSENT
    return value is None or (isinstance(value, (str, list, tuple, dict, set)) and not value)


def _filled_in(key: str, before: Any, after: Any) -> bool:
    """True if a library only recorded its default: an unset entry, or the head that the task type trains."""
    grown = isinstance(before, list) and isinstance(after, list) and set(before) <= set(after)
    return before is None or (key == "modules_to_save" and grown)


def plain(value: Any) -> Any:
    """A value to compare: a list of names is the same in any order."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return value
