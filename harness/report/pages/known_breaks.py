"""The pages of known breaks: an index, and a page for each file of `matrices/breaks/`.

They are for the owner of an old adapter, who has no harness.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from packaging.specifiers import Specifier
from packaging.version import Version

from harness.core import versions
from harness.core.matrix import Declared
from harness.core.text import first_sentence, listed, many
from harness.core.verdict import Verdict
from harness.judge.adapter_rule_words import sentences
from harness.judge.breaks import FOLDER, Break, Condition
from harness.judge.causes import KIND_PHRASES
from harness.judge.shape import bounds
from harness.report.pages import page, table

_SIGNS = {">=": "≥", "<=": "≤", ">": ">", "<": "<", "==": "", "~=": "about", "===": ""}
_NAMES = {"peft": "PEFT", "transformers": "Transformers", "torch": "Torch", "accelerate": "Accelerate"}
_INTRO = """\
This page lists adapters that one release saved and another release loads differently or not at all. \
[peft-regress](../../README.md) found each break with adapters that the old release really saved, and tests it again \
in every run. A break that no longer holds fails the run and is removed from this page. `peft-regress accept` adds a \
break: see [Known breaks as data](../expectations.md)."""
_KINDS = {
    **KIND_PHRASES,
    "differs-from-forward": "merged, switched or saved again, the output differs",
    "differs-from-merge_and_unload": "the merged model differs after saving and loading",
    "differs-from-merged": "merged after a run, the output differs",
    "fresh-values": "a new adapter with the same config gives other outputs",
    "structure-steps": "classes, types or trainable parameters differ",
}
_SECTIONS: Sequence[tuple[str, str, Collection[Verdict]]] = (
    (
        "Silently wrong", "Nothing is raised, but the result differs or a part of the adapter is missing.",
        [Verdict.SILENT_WRONG],
    ),
    ("Errors after loading", "The adapter loads, but an operation that works in the release that saved it raises.",
     [Verdict.RUN_ERROR, Verdict.CRASH, Verdict.TIMEOUT]),
    ("Other differences",
     "The adapter has the same effect. Something else differs: its config, its saved files, or the base model.",
     [Verdict.CONTRACT, Verdict.BASE_MOVED, Verdict.WARNED]),
    ("Refused", "Loading fails with an error, so nobody gets a wrong result.", [Verdict.LOAD_ERROR]),
)  # fmt: skip
"""Heading, text and verdicts; a break is in the first section that has the verdict of one of its conditions."""
_METHODS = {
    "AdaLora": "AdaLoRA",
    "Adamss": "AdaMSS",
    "AdaptionPrompt": "Adaption prompt",
    "Beft": "BEFT",
    "Cartridge": "CARTRIDGE",
    "Deft": "DEFT",
    "Delora": "DeLoRA",
    "Frod": "FRoD",
    "Glora": "GLoRA",
    "Gralora": "GraLoRA",
    "Hira": "HiRA",
    "IA3": "IA³",
    "LNTuning": "LN tuning",
    "Lora": "LoRA",
    "Miss": "MiSS",
    "MultitaskPromptTuning": "Multitask prompt tuning",
    "Peanut": "PEANuT",
    "PrefixTuning": "Prefix tuning",
    "PromptEncoder": "P-tuning",
    "PromptTuning": "Prompt tuning",
    "Psoft": "PSOFT",
    "Pvera": "PVeRA",
    "RandLora": "RandLoRA",
    "Road": "RoAd",
    "Shira": "SHiRA",
    "TinyLora": "TinyLoRA",
    "TrainableTokens": "Trainable tokens",
    "UniLora": "UniLoRA",
    "VBLoRA": "VB-LoRA",
    "Vera": "VeRA",
    "XLora": "X-LoRA",
}
"""Name of the config class without `Config` → the method's name in PEFT's documentation, if it differs."""


def render(known: Sequence[Break], declared: Iterable[Declared]) -> dict[str, str]:
    """File name → text: the index, and a page a break."""
    declared = list(declared)
    found = {f"{one.id}.md": _linked(_page(one, declared), {other.id for other in known} - {one.id}) for one in known}
    return {"index.md": _index(known, declared)} | found


def _linked(text: str, ids: Collection[str]) -> str:
    """The text with each id of another break and each page of `docs/` as a link."""
    text = re.sub(r"\bdocs/([\w/.-]+\.md)\b", r"[\g<0>](../\1)", text)
    return re.sub(r"`([\w.-]+)`", lambda found: f"[{found[0]}]({found[1]}.md)" if found[1] in ids else found[0], text)


def method(declared: Declared) -> str:
    """What a scenario's method is called: `LoRA` of `LoraConfig`."""
    name = declared.scenario.adapter.config.removesuffix("Config")
    return _METHODS.get(name, name)


def anchor(title: str) -> str:
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# -- the index --------------------------------------------------------------------------------------------------------


def _index(known: Sequence[Break], declared: Sequence[Declared]) -> str:
    left, blocks = list(known), []
    for title, text, verdicts in _SECTIONS:
        mine = [one for one in left if {each.verdict for each in one.condition} & set(verdicts)]
        left = [one for one in left if one not in mine]
        if mine:
            rows = table(("break", "method", "saved with", "loaded with"), [_row(one, declared) for one in mine])
            folded = f"<details><summary>{many(len(mine), 'break')}</summary>\n\n{rows}\n\n</details>"
            blocks += [f"## {title}", text, folded if title == "Refused" else rows]
    return page("Known breaks", _source("*"), _INTRO, f"{many(len(known), 'break')}.", *blocks)


def _row(one: Break, declared: Sequence[Declared]) -> tuple[str, ...]:
    methods = sorted({method(each) for each in _scenarios(one.condition, declared)})
    shown = listed(methods) if len(methods) <= 2 else f"{len(methods)} methods"
    return (
        f"[{one.title}]({one.id}.md)",
        shown or "other",
        _brief([each.creators for each in one.condition]),
        _brief([each.loaders for each in one.condition]),
    )


def _brief(rules: Iterable[str | list[str]]) -> str:
    first, *more = dict.fromkeys(condition(rule, brief=True) for rule in rules)
    return f"{first} …" if more else first


# -- a page -----------------------------------------------------------------------------------------------------------


def _page(one: Break, declared: Sequence[Declared]) -> str:
    verdicts = listed(f"`{verdict}`" for verdict in dict.fromkeys(each.verdict for each in one.condition))
    rows = dict.fromkeys(
        (condition(each.creators), condition(each.loaders), f"`{each.verdict}`") for each in one.condition
    )
    facts = (
        f"**Cause:** {_sentence(one.cause)}",
        f"**Workaround:** {_sentence(one.workaround)}" if one.workaround else "",
        f"**Since:** {_sentence(one.since)}" if one.since else "",
        f"**Fixed:** {_sentence(one.fixed)}" if one.fixed else "",
        f"**Verified:** {_sentence(one.verified)}" if one.verified else "",
        "**References:** " + ", ".join(f"<{address}>" for address in one.references),
        f"**Expires:** {one.expires}." if one.expires else f"**Permanent:** {_sentence(one.permanent or '')}",
    )
    return page(
        one.title,
        _source(one.id),
        f"[Known breaks](index.md) · `{one.id}` · {verdicts}",
        "## Who is affected",
        table(("saved with", "loaded with", "shows as"), rows),
        *dict.fromkeys(sentences(rule) for each in one.condition if (rule := one.rule(each))),
        "## What happens",
        _effects(one.condition),
        *facts,
        "## Cells covered",
        "\n".join(_covered(each) for each in one.condition),
        "The adapters of these scenarios:",
        _listing(one.condition, declared),
    )


def _effects(conditions: Sequence[Condition]) -> str:
    kinds: dict[Verdict, dict[str, None]] = {}
    for one in conditions:
        shown = (_KINDS.get(kind, kind.replace("-", " ")) for kind in one.of_kinds if kind != "error")
        kinds.setdefault(one.verdict, {}).update(dict.fromkeys(shown))
    said = {verdict: f" ({'; '.join(shown)})" if shown else "" for verdict, shown in kinds.items()}
    return "\n".join(f"- `{verdict}`: {verdict.meaning}{more}." for verdict, more in said.items())


def _covered(one: Condition) -> str:
    where = f", on {listed(f'`{glob}`' for glob in one.devices)}" if one.devices else ""
    if one.noted:
        glob = one.noted.removeprefix("!")
        where += f", {'without' if one.noted.startswith('!') else 'with'} a note like `{glob}`"
    lines = [
        f"- {', '.join(f'`{glob}`' for glob in one.scenarios)}: {condition(one.creators)} → {condition(one.loaders)}"
        f"{where}. Shows {one.stated}.",
        f"  {_sentence(one.note)}" if one.note else "",
        *(f"  - `{key}`: {text}" for key in one.lines if (text := _known(one, key))),
    ]
    return "\n".join(line for line in lines if line)


def _known(one: Condition, key: str) -> str:
    """What is known of one finding: its pattern, names and texts, and its size over the scenarios."""
    line = one.lines[key]
    parts = [listed(f"`{text}`" for text in texts) for texts in (line.pattern, line.names, line.says) if texts]
    ends = [bounds(row[key]) for row in one.size.values() if key in row]
    if ends:
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        parts.append(f"size {low:g}" if low == high else f"size {low:g} to {high:g}")
    return "; ".join(parts)


def _listing(conditions: Sequence[Condition], declared: Sequence[Declared]) -> str:
    found = _scenarios(conditions, declared)
    if not found:
        globs = dict.fromkeys(glob for one in conditions for glob in one.scenarios)
        return ", ".join(f"`{glob}`" for glob in globs)
    if len(found) > _MANY:
        return f"{len(found)} scenarios; their names match the patterns above."
    return "\n".join(f"- `{one.name}`: {first_sentence(one.scenario.why)}" for one in found)


_MANY = 40
"""Scenarios that a page lists; more are only counted."""


def _scenarios(conditions: Iterable[Condition], declared: Iterable[Declared]) -> list[Declared]:
    globs = [glob for one in conditions for glob in one.scenarios]
    return [one for one in declared if any(fnmatchcase(one.name, glob) for glob in globs)]


def _source(id: str) -> str:
    return f"matrices/{FOLDER}/{id}.toml and matrices/scenarios"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?", ".)")) else f"{text}."


def condition(rule: str | list[str], brief: bool = False) -> str:
    """A creator's or loader's condition in words: `PEFT ≥ 0.6 and < 0.14`, `PEFT ≥ 0.17 with Transformers ≥ 4.52`.

    Args:
        brief: leave single excluded releases out.
    """
    if isinstance(rule, list):
        return f"the environment{'s' * (len(rule) > 1)} {listed(f'`{glob}`' for glob in rule)}"
    first, *more = (
        f"{_NAMES.get(name, name)} {_range(specifiers, brief)}".strip()
        for name, specifiers in versions.parse(rule).parts
    )
    return f"{first} with {', '.join(more)}" if more else first


def _range(specifiers: Iterable[Specifier], brief: bool) -> str:
    ordered = _ordered(specifiers)
    bounds = listed(f"{_SIGNS[one.operator]} {one.version}".strip() for one in ordered if one.operator != "!=")
    excluded = listed(str(_release(one)) for one in ordered if one.operator == "!=")
    if brief or not excluded:
        return bounds
    return f"{bounds} (except {excluded})" if bounds else f"other than {excluded}"


def _ordered(specifiers: Iterable[Specifier]) -> list[Specifier]:
    """Lower bounds first, each kind from the oldest release to the newest."""
    return sorted(specifiers, key=lambda one: (one.operator not in (">", ">=", "=="), _release(one)))


def _release(specifier: Specifier) -> Version:
    return Version(specifier.version.removesuffix(".*"))
