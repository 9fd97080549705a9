"""Types and devices of adapter parameters after every load path, compared with `PeftModel.from_pretrained`'s (pure).

Float32 values that a load path rounds to the base's type are another adapter, though no name, shape or tensor is
missing. Each path is compared with the reference of the same loader in the same precision; a wider type loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.observation import Observed
from harness.core.verdict import Verdict
from harness.judge import load_paths
from harness.judge.contracts import Found
from harness.worker.shared import (
    AS_SAVED,
    AUTOCASTS,
    FOR_TRAINING,
    FROM_PRETRAINED,
    LOAD_PATH,
    NARROW,
    NEW,
    TYPES,
    WITHOUT_AUTOCAST,
)

Types = Mapping[str, str]
"""Canonical name of a parameter → its type."""

_WIDTH = {"float16": 1, "bfloat16": 1, "float32": 2, "float64": 3}
_OWN = {FOR_TRAINING: "PeftModel.from_pretrained with is_trainable=True", NEW: "get_peft_model"}
_NOT_CAST = ("modules_to_save", "trainable_tokens_delta")
"""Parts of the names of parameters that are no adapter layer's: they are copies of the base's, in its type."""


def compare(golden: Observed, now: Observed, found: Found) -> None:
    """Judge the types of each precision that the replay recorded, and of a base that is loaded without a type."""
    _as_saved(golden.facts.get(AS_SAVED, {}), now.facts.get(AS_SAVED, {}), found)
    recorded: Mapping[str, Mapping[str, Types]] = now.facts.get(TYPES, {})
    for precision, paths in recorded.items():
        reference = paths.get(FROM_PRETRAINED, {})
        _reference(reference, precision, bool(now.facts.get(AUTOCASTS)), found)
        for path, types in paths.items():
            if path in (FROM_PRETRAINED, NEW):
                continue
            narrower = _narrower(types, reference)
            if path in WITHOUT_AUTOCAST:
                narrower = [line for line in narrower if not line.endswith(f" {precision}")]
            if narrower:
                _report(path, narrower, precision, found)
        if lost := _narrower(reference, paths.get(NEW, {})):
            message = f"{len(lost)} adapter parameters have a narrower type than get_peft_model gives them"
            found.contract("structure", "adapter-dtype", message + _on(precision), lost)


def _as_saved(before: Mapping[str, Any], after: Mapping[str, Any], found: Found) -> None:
    """The types of a base that is saved in a narrow type and loaded without one, and of the adapter on it."""
    if after.get("outcome") == "error" and before.get("outcome") == "ok":
        error = after["error"]
        message = f"the base is loaded without a dtype, and loading fails: {error['type']}: {error['message']}"
        found.add("load", "as-saved-error", Verdict.LOAD_ERROR, message,
                  stage=error["stage"], error_type=error["type"])  # fmt: skip
    if not before.get("base") or not after.get("base"):
        return
    was, is_now = (", ".join(side["base"]) for side in (before, after))
    if was != is_now:
        message = f"loaded without a dtype, the base is in {is_now}; for the creator's library it is in {was}"
        found.contract("base", "base-dtype", message)
    if narrower := _narrower(after.get("adapter", {}), before.get("adapter", {})):
        message = f"on a base that is loaded without a dtype, {len(narrower)} adapter parameters have another type"
        found.contract("structure", "as-saved-dtype", f"{message} than for the creator", narrower)


def _reference(types: Types, precision: str, autocasts: bool, found: Found) -> None:
    """A release that promises `autocast_adapter_dtype` keeps its layers' parameters in float32."""
    if not autocasts or precision not in NARROW:
        return
    cast = [f"{name}: float32 → {kind}" for name, kind in types.items() if kind in NARROW and not _is_copy(name)]
    if cast:
        message = f"{len(cast)} adapter parameters are not in float32, as autocast_adapter_dtype promises"
        found.contract("structure", "adapter-not-autocast", message + _on(precision), cast)


def _is_copy(name: str) -> bool:
    return any(part in name.split(".") for part in _NOT_CAST)


def _narrower(types: Types, reference: Types) -> list[str]:
    """Lines of the parameters whose type holds less than the reference's."""
    both = sorted(set(types) & set(reference))
    return [
        f"{name}: {reference[name]} → {types[name]}"
        for name in both
        if types[name] != reference[name] and _WIDTH.get(types[name], 0) <= _WIDTH.get(reference[name], 0)
    ]


def _report(path: str, narrower: list[str], precision: str, found: Found) -> None:
    probe = LOAD_PATH + path
    action = _OWN.get(path) or load_paths.titled(probe)
    message = (
        f"loaded by {action}, {len(narrower)} adapter parameters have another type than by PeftModel.from_pretrained"
    )
    where, kind = ("structure", "trainable-dtype") if path in _OWN else (probe, load_paths.kind(probe, "dtype"))
    first = narrower[0].partition(": ")[2]
    found.contract(where, kind, f"{message} ({first}){_on(precision)}", narrower)


def _on(precision: str) -> str:
    return f", on a base in {precision}" if precision in NARROW else ""
