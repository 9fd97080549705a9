"""Rules for scenarios and bases that a schema cannot state. Pure: declared scenarios in, complaints out.

The schema (`harness.core.scenario`) says what a file may contain. These rules say what makes a scenario worth having:
it explains itself, it says what must be saved, and it can notice the break that it is there for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.files import read_text
from harness.core.matrix import Declared, resolve

_LINK = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+")
_WORDS = 12
_WHOLE_INPUTS = ("pixel_values", "input_features", "input_values")
"""Images and sound: rows of a batch are not padded."""
_SCALED = {
    "LoraConfig": ("r", "lora_alpha"),
    "AdaLoraConfig": ("init_r", "lora_alpha"),
    "LoHaConfig": ("r", "alpha"),
    "LoKrConfig": ("r", "alpha"),
}
"""Adapter configurations that scale by an alpha → the arguments for rank and alpha."""


@dataclass(frozen=True, order=True)
class Complaint:
    """One rule that one declaration breaks."""

    file: str
    line: int
    """Of the declaration, from 1; 0 where the whole file is meant."""
    rule: str
    says: str
    """Found and expected, in one line."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.rule}: {self.says}"


@dataclass(frozen=True)
class Rule:
    """One rule about a scenario.

    Args:
        check: a scenario, and the package versions of one environment → what is wrong, a sentence each.
        by_version: the rule depends on the versions; it is checked for every environment that is given.
    """

    id: str
    why: str
    check: Callable[[Declared, Mapping[str, str]], Iterable[str]]
    by_version: bool = False


def _explained(declared: Declared, _: Mapping[str, str]) -> Iterator[str]:
    words = len(declared.scenario.why.split())
    if words < _WORDS:
        yield f"`why` has {words} words; expected at least {_WORDS}: what would be missed without this scenario"
    if not declared.base.why.strip():
        yield f"base {declared.base_name!r} has no `why`"


def _written(declared: Declared, _: Mapping[str, str]) -> Iterator[str]:
    texts = {"why": declared.scenario.why, "guards": " ".join(declared.scenario.guards), "base": declared.base.why}
    for key, text in texts.items():
        if "TODO" in text:
            what = f"base {declared.base_name!r}: `why`" if key == "base" else f"`{key}`"
            yield f"{what} is still to be written: {text}"


def _expected(declared: Declared, _: Mapping[str, str]) -> Iterator[str]:
    expects = declared.scenario.expects
    if expects is None:
        yield "`expects` is missing; expected the keys that the checkpoint must hold"
        return
    for glob, count in expects.keys.items():
        if count < 1:
            yield f"`expects.keys.{glob}` = {count}; expected at least 1"
        if glob in ("*", "*.weight"):
            yield f"`expects.keys` has the glob {glob!r}, which matches every key and so notices nothing"


def _linked(declared: Declared, _: Mapping[str, str]) -> Iterator[str]:
    for link in declared.scenario.guards:
        if not _LINK.fullmatch(link):
            yield f"`guards` has {link!r}; expected the address of an issue or a pull request on GitHub"


def _scaled(declared: Declared, _: Mapping[str, str]) -> Iterator[str]:
    adapter = declared.scenario.adapter
    if adapter.config not in _SCALED:
        return
    rank, alpha = (adapter.args.get(name) for name in _SCALED[adapter.config])
    # LoKr's scaling by alpha/r changed in 0.14: there, equality is the rule and a difference is in the name
    lokr = adapter.config == "LoKrConfig"
    equal = "alpha-equals-r" in declared.name or (lokr and "alpha-differs" not in declared.name)
    if (rank == alpha) is not equal:
        yield f"rank {rank} and alpha {alpha}; expected {'equal' if equal else 'different'} values for this name"


def _deterministic(declared: Declared, _: Mapping[str, str]) -> Iterator[str]:
    model = declared.base.transformers
    for name, value in (model.args if model else {}).items():
        if value != 0 and "drop" in name:
            yield f"base {declared.base_name!r} has `{name}` = {value}; expected 0: a base draws no random numbers"


def _inputs(declared: Declared, versions: Mapping[str, str]) -> Iterator[str]:
    resolved = resolve(declared, versions)
    inputs, base = resolved["inputs"], resolved["base"]
    if not inputs:
        yield "there are no inputs"
    if base["kind"] != "transformers":
        return
    if not {"attention_mask", *_WHOLE_INPUTS} & set(inputs):
        yield "there is neither `attention_mask` nor `pixel_values` nor sound among the inputs"
    # where an image is among the tokens, releases up to 4.45 count positions after it differently in a padded row
    elif not set(_WHOLE_INPUTS) & set(inputs) and not any(inputs["attention_mask"].get("pad_right") or ()):
        yield "no row of the batch is padded on the right"
    for name in ("input_ids", "decoder_input_ids"):
        if name in inputs and (outside := _outside(inputs[name], _vocabulary(base))):
            yield f"`{name}` holds tokens outside the vocabulary of {_vocabulary(base)}: {outside}"


def _old_spellings(declared: Declared, _: Mapping[str, str]) -> Iterator[str]:
    if declared.scenario.doors:
        yield "`doors` is an old spelling; write `load_paths`"


def _vocabulary(base: Mapping[str, Any]) -> int:
    args = base["args"]
    size = base.get("resize_to") or args.get("vocab_size") or args.get("text_config", {}).get("vocab_size", 1)
    return int(size)


def _outside(spec: Mapping[str, Any], size: int) -> list[int]:
    tokens = [token for row in spec.get("values", []) for token in row] + spec.get("contain", [])
    tokens.append(int(spec.get("high", 1)) - 1)
    return sorted({token for token in tokens if not 0 <= token < size})


RULES: tuple[Rule, ...] = (
    Rule("explained", "A scenario and its base say why they are there.", _explained),
    Rule("todo", "Every text is written.", _written),
    Rule("expected-keys", "A scenario says which keys its checkpoint must hold.", _expected),
    Rule("guards", "What a scenario guards is an issue or a pull request.", _linked),
    Rule("alpha", "Alpha differs from the rank, or a lost scaling would not show.", _scaled),
    Rule("no-dropout", "A base draws no random numbers.", _deterministic),
    Rule("inputs", "Inputs are complete, padded, and within the vocabulary.", _inputs, by_version=True),
    Rule("old-spelling", "A key has one spelling.", _old_spellings),
)


def scenarios(
    declared: Iterable[Declared], environments: Mapping[str, Mapping[str, str]], rules: Sequence[Rule] = RULES
) -> list[Complaint]:
    """What is wrong with these scenarios.

    Args:
        environments: name → package versions; rules that depend on versions are checked for each.
    """
    found: dict[Complaint, None] = {}
    for one in declared:
        line = _line(one)
        for rule in rules:
            for versions in environments.values() if rule.by_version else ({},):
                for says in rule.check(one, versions):
                    found[Complaint(str(one.file), line, rule.id, f"{one.name}: {says}")] = None
    return sorted(found)


def unused_bases(bases: Iterable[Path], declared: Iterable[Declared]) -> list[Complaint]:
    """Base files that no scenario uses."""
    used = {one.base_name for one in declared}
    return [
        Complaint(str(path), 0, "unused-base", "no scenario uses this base; expected at least one")
        for path in sorted(bases)
        if path.stem not in used
    ]


def missing_packages(path: Path, packages: Collection[str]) -> list[Complaint]:
    """A complaint where the lock of an environment lacks a package that every environment needs."""
    missing = sorted({"peft", "torch", "transformers", "safetensors"} - set(packages))
    says = f"the lock has no {', '.join(missing)}; expected in every environment"
    return [Complaint(str(path), 0, "lock", says)] if missing else []


def not_as_pinned(path: Path, pins: Mapping[str, str], packages: Mapping[str, str]) -> list[Complaint]:
    """A complaint for each pin of an environment that its lock does not have."""
    return [
        Complaint(str(path), 0, "lock", f"{name} is pinned to {version}; the lock has {packages.get(name, 'none')}")
        for name, version in sorted(pins.items())
        if packages.get(name) != version
    ]


def _line(declared: Declared) -> int:
    text = read_text(declared.file).splitlines()
    name = re.compile(rf"""\s*name\s*=\s*["']{re.escape(declared.name)}["']""")
    return next((number for number, line in enumerate(text, 1) if name.match(line)), 0)
