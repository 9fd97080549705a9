"""What each release of PEFT writes: the table that dates an adapter, made of the stored fixtures.

`peft-regress docs` writes it to `matrices/written-by.json`, which the package carries. The configuration of a method
has the same keys in every adapter that a release saves. Parts of tensor names (`oft_R`) are in some of them.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import Version

from harness.core.errors import HarnessError
from harness.store.saved_adapter import Written
from harness.worker.files import read_json

FILE = "written-by.json"
"""The table's name in the matrices folder."""
_ABOUT = (
    "Which keys of adapter_config.json, and which parts of tensor names, the releases of PEFT write. "
    "Made of the stored fixtures by `peft-regress docs`. `seen`: the releases with fixtures."
)
_OTHER_NAMES = {"LOHA": "hada", "ADALORA": "lora", "XLORA": "lora"}
"""Methods whose tensors are not called by the method's name."""
_TO = " to "


_ALL = ("base_model_name_or_path", "inference_mode", "peft_type", "task_type")
_PROMPT = (*_ALL, "num_attention_heads", "num_layers", "num_transformer_submodules", "num_virtual_tokens", "token_dim")
EARLIEST = "0.2.0"
EARLY: Mapping[str, Sequence[str]] = {
    "LORA": (*_ALL, "bias", "enable_lora", "fan_in_fan_out", "lora_alpha", "lora_dropout", "merge_weights",
             "modules_to_save", "r", "target_modules"),
    "PROMPT_TUNING": (*_PROMPT, "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"),
    "PREFIX_TUNING": (*_PROMPT, "encoder_hidden_size", "prefix_projection"),
    "P_TUNING": (*_PROMPT, "encoder_dropout", "encoder_hidden_size", "encoder_num_layers",
                 "encoder_reparameterization_type"),
}  # fmt: skip
"""What PEFT 0.2.0 writes, by its sources: no environment can run it, so there are no fixtures."""


@dataclass(frozen=True)
class Presence:
    """Where something was written, and where not, by release."""

    there: frozenset[str]
    absent: frozenset[str]


@dataclass(frozen=True)
class MethodTable:
    """What releases write of one method.

    Attributes:
        seen: the releases with fixtures of the method, oldest first.
        config: key of the configuration → the releases that write it.
        parts: part of a tensor's name → where it was seen, and where the same adapter was saved without it.
    """

    seen: tuple[str, ...]
    config: Mapping[str, frozenset[str]]
    parts: Mapping[str, Presence] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """What each release writes.

    Attributes:
        releases: the releases of PEFT, oldest first, pre-releases left out → day.
        methods: `LORA` → what is written of it.
    """

    releases: Mapping[str, str]
    methods: Mapping[str, MethodTable]

    @functools.cached_property
    def seen(self) -> tuple[str, ...]:
        """The releases with fixtures, oldest first."""
        return ordered({release for one in self.methods.values() for release in one.seen})

    @functools.cached_property
    def covered(self) -> tuple[str, ...]:
        """The releases with fixtures of all their methods, oldest first; others have LoRA only."""
        count = Counter(release for one in self.methods.values() for release in one.seen)
        return ordered(release for release in count if count[release] > 1)

    @property
    def newest(self) -> str:
        """The newest release that is known."""
        return list(self.releases)[-1] if self.releases else ""


def ordered(releases: Iterable[str]) -> tuple[str, ...]:
    """Releases, oldest first."""
    return tuple(sorted(releases, key=Version))


def table(written: Iterable[Written], releases: Mapping[str, str], early: Mapping[str, Sequence[str]] = EARLY) -> Table:
    """The table of stored adapters.

    Args:
        releases: release → day; those of the adapters may be missing.
        early: what the release before all fixtures writes.
    """
    by_method: dict[str, list[Written]] = defaultdict(list)
    for one in written:
        by_method[one.method].append(one)
    every = {one.release: "" for each in by_method.values() for one in each} | dict(releases)
    return Table(
        {release: every[release] for release in ordered(every)},
        {name: _method(name, by_method[name], early.get(name, ())) for name in sorted(by_method)},
    )


def _method(name: str, written: Sequence[Written], early: Sequence[str]) -> MethodTable:
    config: dict[str, set[str]] = defaultdict(set, {key: {EARLIEST} for key in early})
    for one in written:
        for key in (*one.config, *one.versions):
            config[key].add(one.release)
    seen = ordered({one.release for one in written} | ({EARLIEST} if early else set()))
    return MethodTable(seen, {key: frozenset(config[key]) for key in sorted(config)}, _parts(name, written))


def own_parts(method: str, keys: Iterable[str]) -> set[str]:
    """The parts of tensor names that PEFT gives, not the model: `lora_A`, `base_layer`."""
    start = f"{_OTHER_NAMES.get(method, method.lower())}_"
    return {part for key in keys for part in key.split(".") if part.startswith(start) or part == "base_layer"}


def _parts(method: str, written: Sequence[Written]) -> dict[str, Presence]:
    """Parts that an adapter has under some releases only; those that all have date nothing."""
    there: dict[str, set[str]] = defaultdict(set)
    scenarios: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in written:
        found = own_parts(method, one.shapes)
        scenarios[one.scenario][one.release] |= found
        for part in found:
            there[part].add(one.release)
    result = {}
    for part in sorted(there):
        having = [each for each in scenarios.values() if any(part in found for found in each.values())]
        absent = {release for each in having for release, found in each.items() if part not in found} - there[part]
        if absent:
            result[part] = Presence(frozenset(there[part]), frozenset(absent))
    return result


def again(matrices: Path, written: Iterable[Written], more: Mapping[str, str] | None = None) -> dict[Path, str]:
    """The file and its text for these adapters; nothing if the folder has no table.

    The releases are those that it names, and those of the adapters.

    Args:
        more: further releases of PEFT → day.
    """
    path = matrices / FILE
    return {path: render(table(written, {**(more or {}), **load(matrices).releases}))} if path.is_file() else {}


def render(found: Table) -> str:
    """The text of the file."""
    methods = {}
    for name, one in found.methods.items():
        methods[name] = {
            "seen": _spans(one.seen, found.seen),
            "config": {key: _spans(one.config[key], one.seen) for key in one.config},
            "parts": {
                part: {"there": _spans(each.there, one.seen), "absent": _spans(each.absent, one.seen)}
                for part, each in one.parts.items()
            },
        }
    whole = {"about": _ABOUT, "releases": found.releases, "seen": found.seen, "methods": methods}
    text = json.dumps(whole, indent=1)
    return re.sub(r"\[\s+((?:\"[^\"]*\",?\s*)+)\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _spans(releases: Collection[str], every: Sequence[str]) -> list[str]:
    """The stretches of `every` that are in `releases`: `0.3.0 to 0.9.0`."""
    spans: list[list[str]] = []
    inside = False
    for release in every:
        if release in releases:
            spans = [*spans[:-1], [spans[-1][0], release]] if inside else [*spans, [release]]
        inside = release in releases
    return [_TO.join(dict.fromkeys(span)) for span in spans]


def load(matrices: Path) -> Table:
    """The table of a matrices folder.

    Raises:
        HarnessError: it cannot be read.
    """
    path = matrices / FILE
    try:
        raw = read_json(path, links=True)
        return Table(raw["releases"], {name: _read(one, raw["seen"]) for name, one in raw["methods"].items()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise HarnessError(
            f"{path}: {type(error).__name__}: {error}", "the table that `peft-regress docs` writes",
            "restore it, or run `peft-regress docs`",
        ) from error  # fmt: skip


def _read(raw: Mapping[str, Any], every: Sequence[str]) -> MethodTable:
    seen = tuple(_within(raw["seen"], every))
    parts = {
        part: Presence(frozenset(_within(one["there"], seen)), frozenset(_within(one["absent"], seen)))
        for part, one in raw["parts"].items()
    }
    return MethodTable(seen, {key: frozenset(_within(one, seen)) for key, one in raw["config"].items()}, parts)


def _within(spans: Iterable[str], every: Sequence[str]) -> Iterable[str]:
    for span in spans:
        first, _, last = span.partition(_TO)
        yield from every[every.index(first) : every.index(last or first) + 1]
