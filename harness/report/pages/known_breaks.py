"""The page of known breaks: what is in `matrices/expectations.toml`, for whoever has an old adapter and no harness."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.core import versions
from harness.core.matrix import Declared
from harness.core.text import listed, many
from harness.judge.causes import KIND_PHRASES
from harness.judge.expectations import Expectation
from harness.report.pages import first_sentence, page, table

_SIGNS = {">=": "≥", "<=": "≤", ">": ">", "<": "<", "==": "", "!=": "other than", "~=": "about", "===": ""}
_NAMES = {"peft": "PEFT", "transformers": "Transformers", "torch": "Torch", "accelerate": "Accelerate"}
_INTRO = """\
Adapters that one release saved and another does not load as they were, or not at all: every break that \
[peft-regress](../README.md) found and somebody looked into. Each was seen with adapters that the real old release \
saved, and whoever runs such a cell tests it again: an entry that no longer holds fails the run and has to go. The \
worst are `silent-wrong`: nothing is raised, and the model computes something else."""
_KINDS = {**KIND_PHRASES, "differs-from-forward": "merged, switched or saved again, the output is another"}
_METHODS = {
    "AdaLora": "AdaLoRA",
    "AdaptionPrompt": "Adaption prompt",
    "IA3": "IA³",
    "Lora": "LoRA",
    "PrefixTuning": "Prefix tuning",
    "PromptEncoder": "P-tuning",
    "PromptTuning": "Prompt tuning",
}
"""What methods are called where their config's class says it otherwise."""


@dataclass(frozen=True)
class _Break:
    """An expectation with the scenarios that it speaks of."""

    stated: Expectation
    scenarios: tuple[Declared, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(method(one) for one in self.scenarios)) or ("Other",)


def render(expectations: Sequence[Expectation], declared: Iterable[Declared]) -> str:
    """The page."""
    declared = list(declared)
    every = [_Break(stated, _scenarios(stated, declared)) for stated in expectations]
    by_method: dict[tuple[str, ...], list[_Break]] = {}
    for one in every:
        by_method.setdefault(one.methods, []).append(one)
    sections = [
        "\n\n".join([f"## {listed(methods)}", *map(_entry, by_method[methods])]) for methods in sorted(by_method)
    ]
    contents = _contents([one for methods in sorted(by_method) for one in by_method[methods]])
    source = "matrices/expectations.toml and matrices/scenarios"
    return page("Known breaks", source, _INTRO, f"{many(len(every), 'break')}:", contents, *sections)


def method(declared: Declared) -> str:
    """What a scenario's method is called: `LoRA` of `LoraConfig`."""
    name = declared.scenario.adapter.config.removesuffix("Config")
    return _METHODS.get(name, name)


def _scenarios(stated: Expectation, declared: Iterable[Declared]) -> tuple[Declared, ...]:
    return tuple(one for one in declared if any(fnmatchcase(one.name, glob) for glob in stated.scenarios))


def _contents(every: Iterable[_Break]) -> str:
    rows = [
        (
            f"[{one.stated.id}](#{anchor(one.stated.id)})",
            listed(one.methods),
            condition(one.stated.creators),
            condition(one.stated.loaders),
            f"`{one.stated.verdict}`",
            one.stated.since or "",
        )
        for one in every
    ]
    return table(("break", "method", "saved with", "loaded with", "verdict", "since"), rows)


def anchor(title: str) -> str:
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _entry(one: _Break) -> str:
    stated = one.stated
    lines = [
        f"### {stated.id}",
        " ".join(stated.reason.split()),
        f"**Affected:** adapters saved with {condition(stated.creators)}, loaded with {condition(stated.loaders)}.",
        *_trigger(one),
        f"**Shows as:** `{stated.verdict}`: {stated.verdict.meaning}{_how(stated.kinds)}.",
        f"**Brought by:** {stated.since}." if stated.since else "",
        f"**Verified:** {_sentence(stated.verified)}" if stated.verified else "",
        f"**What to do:** {_sentence(stated.workaround)}" if stated.workaround else "",
        f"**Reference:** <{stated.issue}>. To be looked at again by {stated.expires}.",
    ]
    return "\n\n".join(line for line in lines if line)


def _trigger(one: _Break) -> list[str]:
    if not one.scenarios:
        return [f"**Which:** {', '.join(f'`{glob}`' for glob in one.stated.scenarios)}"]
    lines = [f"- `{each.name}`: {first_sentence(each.scenario.why)}" for each in one.scenarios]
    return ["**Which:**\n\n" + "\n".join(lines)]


def _how(kinds: Sequence[str] | None) -> str:
    said = [_KINDS.get(kind, kind.replace("-", " ")) for kind in kinds or () if kind != "error"]
    return f" ({'; '.join(said)})" if said else ""


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def condition(rule: str | list[str]) -> str:
    """A creator's or loader's condition in words: `PEFT ≥ 0.6 and < 0.14`, `PEFT ≥ 0.17 with Transformers ≥ 4.52`."""
    if isinstance(rule, list):
        return f"the environment{'s' * (len(rule) > 1)} {listed(f'`{glob}`' for glob in rule)}"
    parts: Mapping[str, list[str]] = {
        name: [f"{_SIGNS[one.operator]} {one.version}".strip() for one in _ordered(specifiers)]
        for name, specifiers in versions.parse(rule).parts
    }
    return " with ".join(f"{_NAMES.get(name, name)} {listed(said)}".strip() for name, said in parts.items())


def _ordered(specifiers: Iterable[versions.Specifier]) -> list[versions.Specifier]:
    """Lower bounds first."""
    return sorted(specifiers, key=lambda one: (one.operator not in (">", ">=", "=="), one.version))
