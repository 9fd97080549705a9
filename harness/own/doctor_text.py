"""What `doctor` prints of an adapter: the answer in the first line, then what it rests on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.core.text import listed, many, one_line
from harness.core.versions import release_order
from harness.judge.adapter_uses import USES
from harness.judge.applies import Applies
from harness.own.damage import Damage
from harness.own.doctor import Diagnosis

_METHODS = {
    "LORA": "LoRA", "ADALORA": "AdaLoRA", "LOHA": "LoHa", "LOKR": "LoKr", "IA3": "IA³", "VERA": "VeRA",
    "PROMPT_TUNING": "prompt tuning", "PREFIX_TUNING": "prefix tuning", "P_TUNING": "P-tuning",
    "MULTITASK_PROMPT_TUNING": "multitask prompt tuning", "ADAPTION_PROMPT": "adaption prompt",
    "TRAINABLE_TOKENS": "trainable tokens", "LN_TUNING": "LN tuning", "XLORA": "X-LoRA", "FOURIERFT": "FourierFT",
    "VBLORA": "VB-LoRA", "POLY": "Poly", "BONE": "Bone", "MISS": "MiSS", "RANDLORA": "RandLoRA", "SHIRA": "SHiRA",
    "ROAD": "RoAd",
}  # fmt: skip
"""PEFT's names of methods → how people write them; others stay as they are."""
_SIZES = (
    "r", "lora_alpha", "alpha", "oft_block_size", "boft_block_size", "num_virtual_tokens", "n_frequency", "block_size",
    "adapter_len", "decompose_factor",
)  # fmt: skip
"""Entries of a configuration that say how large an adapter is."""
_PARTS = (
    "rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform", "target_parameters", "exclude_modules",
    "trainable_token_indices", "layer_replication", "feedforward_modules",
)  # fmt: skip
"""Entries that are worth a line where they are set."""
_MOST = 8


def method_name(peft_type: str) -> str:
    """`LoRA` for `LORA`."""
    return _METHODS.get(peft_type, one_line(peft_type, 60))


def text(found: Diagnosis, *, verbose: bool = False) -> str:
    """The whole answer.

    Args:
        verbose: tell all of the breaks, also of those that only apply if the user does something special.
    """
    parts = [[_first_line(found)], _what(found), _written(found), _breaks(found, verbose), _damage(found), _next(found)]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := [*part]))


def _first_line(found: Diagnosis) -> str:
    adapter = found.folder.adapter
    base = one_line(str(adapter.config.get("base_model_name_or_path") or "a base that it does not name"), 100)
    return f"{method_name(adapter.method)} adapter of {found.dated.span} for {base}: {_answer(found)}"


def _answer(found: Diagnosis) -> str:
    serious = [one for one in found.damage if one.serious]
    under = f"under {found.target.name}"
    said = []
    if serious:
        said.append(f"damaged: {serious[0].text}" + (f" (and {len(serious) - 1} more)" if serious[1:] else ""))
    if certain := found.certain:
        verb = "applies" if len(certain) == 1 else "apply"
        said.append(f"{many(len(certain), 'known break')} {verb} {under}: {certain[0].known.title}")
    if said:
        return "; ".join(said)
    if found.unsure:
        return f"cannot tell: {found.unsure[0]}"
    if possible := found.possible:
        missing = "the base's config.json is missing, and " if _base_would_tell(found) else ""
        return f"cannot tell: {missing}{many(len(possible), 'known break')} may apply {under}"
    return f"nothing known against it {under}"


def _base_would_tell(found: Diagnosis) -> bool:
    return not found.base and any("base" in one.unknown for one in found.possible)


def _what(found: Diagnosis) -> Iterator[str]:
    config = found.folder.adapter.config
    yield "What it is"
    yield _row("method", ", ".join([method_name(found.folder.adapter.method), *_sizes(config), *_switches(config)]))
    for name in ("target_modules", *_PARTS):
        if config.get(name):
            yield _row(name, _value(config[name]))
    yield _row("tensors", _tensors(found))
    yield _row("base", _base(found))


def _row(name: str, value: str) -> str:
    return f"  {name:<15} {value}" if len(name) < 15 else f"  {name} {value}"


def _sizes(config: Mapping[str, Any]) -> Iterator[str]:
    for name in _SIZES:
        if isinstance(config.get(name), (int, float)) and not isinstance(config[name], bool):
            yield one_line(f"{name} {config[name]}", 60)


def _switches(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in config.items():
        if name.startswith("use_") and value is True:
            yield one_line(name, 60)
    if config.get("bias") not in (None, "none", False):
        yield f"bias {one_line(str(config['bias']), 40)}"
    if config.get("task_type"):
        yield one_line(str(config["task_type"]), 40)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return one_line(", ".join(f"{key} = {each}" for key, each in list(value.items())[:_MOST]), 200)
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - _MOST} more" if len(value) > _MOST else ""
        return one_line(", ".join(map(str, sorted(value[:_MOST], key=str))), 300) + more
    return one_line(str(value), 300)


def _tensors(found: Diagnosis) -> str:
    adapter = found.folder.adapter
    types = listed(sorted(set(adapter.dtypes.values()))) or "no type"
    size = found.folder.size
    names = listed(found.folder.tensors) or "none"
    shown = f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
    unread = f"; {found.scan.unread / 1e6:,.0f} MB of values were not looked at" if found.scan.unread else ""
    return f"{len(adapter.shapes)} of {types}, {shown}, in {names}{unread}"


def _base(found: Diagnosis) -> str:
    named = one_line(str(found.folder.adapter.config.get("base_model_name_or_path") or "not named"), 100)
    if found.base:
        return f"{named} (configuration: {found.base})"
    guess = f"; a {found.guess} by its name" if found.guess else ""
    return f"{named}{guess}; its config.json is not on this machine: --base DIR names it"


def _written(found: Diagnosis) -> Iterator[str]:
    yield f"Written by {found.dated.span}"
    for reason in (*found.dated.reasons, *(f"doubt: {one}" for one in found.dated.doubts)):
        yield f"  {reason}"


def _breaks(found: Diagnosis, verbose: bool) -> Iterator[str]:
    aside = [one for one in found.applies if one.only_if]
    how = "the base's config.json would tell: --base DIR" if _base_would_tell(found) else "its files do not say"
    more = "" if verbose else " (-v: with their workarounds)"
    groups = (
        (f"Known breaks under {found.target.name}", found.certain),
        (f"Known breaks that may apply; {how}", found.possible),
        (f"Only if you do something special{more}", [one for one in aside if one.certain]),
        (f"Only if you do something special, and perhaps not even then{more}",
         [one for one in aside if not one.certain]),
    )  # fmt: skip
    told = [[title, *(row for one in each for row in _break(one, verbose))] for title, each in groups if each]
    told = told or [[f"No known break applies under {found.target.name}"]]
    notes = [f"note: {note}" for note in found.target.notes]
    yield "\n\n".join("\n".join(lines) for lines in told) + "".join(f"\n{note}" for note in notes)


def _break(one: Applies, verbose: bool) -> Iterator[str]:
    known = one.known
    if one.only_if and not verbose:
        condition = listed(USES[use].words for use in one.only_if)
        yield f"  {one.condition.verdict}  {_joined(known.title)}: only if {condition} ({known.id})"
        return
    yield f"  {one.condition.verdict}  {_joined(known.title)} ({known.id})"
    if one.only_if:
        yield f"    only if {listed(USES[use].words for use in one.only_if)}"
    if known.workaround:
        yield f"    workaround: {_joined(known.workaround)}"
    changed = [f"{word} {value}" for word, value in (("since", known.since), ("fixed in", known.fixed)) if value]
    yield f"    {'; '.join([*changed, known.issue])}"


def _joined(text: str) -> str:
    return " ".join(text.split())


def _damage(found: Diagnosis) -> Iterator[str]:
    for title, serious in (("Damaged", True), ("Warnings", False)):
        if listed_ := [one for one in found.damage if one.serious is serious]:
            yield title
            yield from _damages(listed_)


def _damages(found: Iterable[Damage]) -> Iterator[str]:
    for one in found:
        yield f"  {one.kind}  {one.text}"
        if one.next_step:
            yield f"    next: {one.next_step}"


def _next(found: Diagnosis) -> Iterator[str]:
    folder, to = shlex.quote(str(found.folder.path)), shlex.quote(found.target.spec)
    if found.target.spec.startswith("--"):
        to = "current"
    if found.folder.unreadable or found.unsure:
        return
    yield "Next"
    yield f"  peft-regress try {folder} --to {to}    load it under both releases and compare"


def data(found: Diagnosis) -> dict[str, Any]:
    """The answer for programs: docs/doctor.md describes it. Keys are only added."""
    adapter, dated = found.folder.adapter, found.dated
    return {
        "answer": _first_line(found),
        "exit_code": int(found.exit_code),
        "adapter": {
            "folder": str(found.folder.path),
            "method": adapter.method,
            "base": adapter.config.get("base_model_name_or_path"),
            "base_config": found.base or None,
            "base_type_by_name": found.guess or None,
            "files": list(found.folder.tensors),
            "tensors": len(adapter.shapes),
            "dtypes": sorted(set(adapter.dtypes.values())),
            "bytes": found.folder.size,
            "bytes_not_looked_at": found.scan.unread,
            "config": dict(adapter.config),
        },
        "written_by": {
            "peft": sorted(dated.releases, key=release_order),
            "or_newer": dated.newer,
            "reasons": list(dated.reasons),
            "doubts": list(dated.doubts),
        },
        "to": {
            "spec": found.target.spec,
            "peft": found.target.versions.get("peft"),
            "transformers": found.target.versions.get("transformers"),
            "notes": list(found.target.notes),
        },
        "breaks": [_break_data(one) for one in found.applies],
        "damage": [
            {"kind": one.kind, "text": one.text, "next": one.next_step or None, "serious": one.serious}
            for one in found.damage
        ],
        "cannot_tell": list(found.unsure),
    }


def _break_data(one: Applies) -> dict[str, Any]:
    known = one.known
    return {
        "id": known.id,
        "verdict": str(one.condition.verdict),
        "title": _joined(known.title),
        "applies": "yes" if one.certain and not one.only_if else "only-if" if one.certain else "maybe",
        "only_if": [USES[use].words for use in one.only_if],
        "unknown": list(one.unknown),
        "workaround": _joined(known.workaround) if known.workaround else None,
        "since": known.since,
        "fixed": known.fixed,
        "references": list(known.references),
    }
