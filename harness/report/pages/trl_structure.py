"""The page on TRL's history: in which release SFTTrainer started to change a model differently, and how. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from packaging.version import Version

from harness.core.text import code, listed, many
from harness.judge import structure_steps
from harness.report.pages import page, table

_INTRO = """\
This page shows how each release of TRL's `SFTTrainer` changes a model: types, classes and trainable parameters after \
the trainer is `constructed`, after it has `trained` two steps, and after plain PEFT has `reloaded` the saved \
adapter. The stored goldens are the source. Each release runs with the libraries of its day. They may be the cause of \
a change, so the table lists those that changed too. The scenarios are in `matrices/scenarios/sft-prepare.toml`, with \
the reason if a release cannot run one. `peft-regress check` compares such environments; the report of a run over \
several creators or loaders has the table "Structure, by release"."""
_CHANGED = """\
Each golden is compared with the previous golden of its scenario. Goldens that are not listed did not change. If \
releases between two goldens have none, the change may come from any of them."""
_MADE = """\
The types of trainable parameters and of norms after the trainer is constructed. A row covers consecutive releases \
that change the model in the same way at every step."""
_NONE = "No golden is stored."
_NAMED = 3
"""How many releases without a golden are named. More are counted."""
_BESIDE = {"transformers": "Transformers", "peft": "PEFT", "bitsandbytes": "bitsandbytes"}


@dataclass(frozen=True)
class Seen:
    """What one creator's golden of one scenario says about SFTTrainer.

    Attributes:
        versions: canonical package name → version.
        steps: step → its structure, as the worker's `steps.of` has it.
    """

    scenario: str
    creator: str
    versions: Mapping[str, str]
    steps: Mapping[str, Any]

    @property
    def release(self) -> str:
        """The release of TRL; the creator's name if the golden does not state it."""
        return self.versions.get("trl", self.creator)

    @property
    def order(self) -> tuple[Version, str]:
        """Sort key: by release, then by the creator's name."""
        return Version(self.versions.get("trl", "0")), self.creator


History: TypeAlias = Mapping[str, Sequence[Seen]]
"""Scenario → its goldens, by release."""


def render(seen: Iterable[Seen]) -> str:
    """The page: what changed when, the result by scenario, and the libraries of each release."""
    every = sorted(seen, key=lambda one: (one.scenario, one.order))
    history = {name: list(group) for name, group in itertools.groupby(every, key=lambda one: one.scenario)}
    creators = {one.creator: one for one in sorted(every, key=lambda one: one.order)}
    releases = {one.release for one in every}
    said = f"{many(len(every), 'golden')} of {many(len(history), 'scenario')}, in {many(len(releases), 'release')}."
    blocks = [said, _changed(history), _made(history, list(creators.values())), _releases(every, creators)]
    return page("How SFTTrainer changes a model", "fixtures/", _INTRO, *(blocks if every else [_NONE]))


def _changed(history: History) -> str:
    """By release: what changed since the previous one, and in which scenarios."""
    found: dict[tuple[str, str, str], list[str]] = {}
    pairs = [pair for releases in history.values() for pair in itertools.pairwise(releases)]
    for before, after in sorted(pairs, key=lambda pair: (pair[1].order, pair[0].order)):
        for line in _changes(before, after):
            found.setdefault((_label(before, after), _moved(before, after), line), []).append(after.scenario)
    rows = [(label, moved, code(line), ", ".join(names)) for (label, moved, line), names in found.items()]
    shown = table(("TRL", "libraries that changed too", "change", "scenarios"), rows) if rows else "Nothing changed."
    return f"## Changes by release\n\n{_CHANGED}\n\n{shown}"


def _label(before: Seen, after: Seen) -> str:
    return f"{before.release} → {after.release}"


def _moved(before: Seen, after: Seen) -> str:
    """The other libraries whose version changed: `PEFT 0.17.1 → 0.18.0`."""
    pairs = {name: (before.versions.get(name, "none"), after.versions.get(name, "none")) for name in _BESIDE}
    return ", ".join(f"{_BESIDE[name]} {was} → {now}" for name, (was, now) in pairs.items() if was != now) or "nothing"


def _changes(before: Seen, after: Seen) -> list[str]:
    """The changes, each once with all steps that show it."""
    found: dict[str, list[str]] = {}
    recorded = {*before.steps, *after.steps}
    for step in [name for name in structure_steps.SFT_STEPS if name in recorded] + sorted(
        recorded - {*structure_steps.SFT_STEPS}
    ):
        for line in _step_changes(step, before.steps.get(step, {}), after.steps.get(step, {})):
            found.setdefault(line.partition(": ")[2], []).append(step)
    return [f"{listed(names)}: {what}" for what, names in found.items()]


def _step_changes(step: str, was: Mapping[str, Any], is_now: Mapping[str, Any]) -> list[str]:
    before, after = was.get("outcome", "not recorded"), is_now.get("outcome", "not recorded")
    if before != after:
        return [f"{step}: {before} → {after}"]
    return (
        structure_steps.difference(step, was, is_now) + structure_steps.layers(step, was, is_now)
        if before == "ok"
        else []
    )


def _made(history: History, creators: Sequence[Seen]) -> str:
    """One row per run of consecutive releases with the same result."""
    rows = [
        (name, _range(run, creators), str(len(run)), *_types(run[0]))
        for name, releases in history.items()
        for run in _runs(releases)
    ]
    header = ("scenario", "TRL", "goldens", "trains", "norms")
    return f"## Result by scenario\n\n{_MADE}\n\n{table(header, rows, right=(2,))}"


def _runs(releases: Sequence[Seen]) -> list[list[Seen]]:
    runs = [[releases[0]]]
    for before, after in itertools.pairwise(releases):
        if _changes(before, after):
            runs.append([])
        runs[-1].append(after)
    return runs


def _range(run: Sequence[Seen], creators: Sequence[Seen]) -> str:
    """`0.19.1 – 0.24.0`, with the releases between them that have no golden of the scenario."""
    first, last = run[0], run[-1]
    have = {one.creator for one in run}
    lacking = [one.release for one in creators if first.order < one.order < last.order and one.creator not in have]
    named = listed(lacking) if len(lacking) <= _NAMED else f"{len(lacking)} of the releases between"
    without = f", without {named}" if lacking else ""
    return f"{first.release} – {last.release}{without}" if first is not last else first.release


def _types(one: Seen) -> tuple[str, str]:
    """The types of trainable parameters and of norms after the trainer is constructed."""
    parameters: Mapping[str, Sequence[Any]] = one.steps.get("constructed", {}).get("parameters", {})
    trains = sorted({str(dtype) for dtype, requires_grad in parameters.values() if requires_grad})
    norms = sorted({str(dtype) for name, (dtype, _) in parameters.items() if "norm" in name})
    return ", ".join(trains) or "nothing", ", ".join(norms) or "no norms"


def _releases(every: Sequence[Seen], creators: Mapping[str, Seen]) -> str:
    """The libraries of each release, and how many scenarios have a golden."""
    counts = {name: sum(one.creator == name for one in every) for name in creators}
    rows = [
        (one.release, name, *(one.versions.get(package, "none") for package in _BESIDE), str(counts[name]))
        for name, one in creators.items()
    ]
    header = ("TRL", "environment", *_BESIDE.values(), "goldens")
    return f"## The releases\n\n{table(header, rows, right=(len(header) - 1,))}"
