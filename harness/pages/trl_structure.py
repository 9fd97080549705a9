"""The page of TRL's history: what each release's SFTTrainer makes of a model otherwise than the release before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from harness import steps
from harness.pages import page, table
from harness.report.text import code, many

_INTRO = """\
What TRL's `SFTTrainer` makes of a model, from release to release, as the stored goldens show it: types, classes and \
what trains, after the trainer was `constructed`, after it has `trained` two steps, and when plain PEFT has `reloaded` \
what was saved. A release has the libraries of its day beside it, which are named: what changed may be theirs. The \
scenarios are in `matrices/scenarios/sft-prepare.toml`; `peft-regress check` compares two such environments."""
_BESIDE = {"transformers": "Transformers", "peft": "PEFT", "bitsandbytes": "bitsandbytes"}
_FIRST = "the first that is stored"
_SAME = "as before"


@dataclass(frozen=True)
class Seen:
    """What one creator's golden of one scenario says of SFTTrainer.

    Attributes:
        versions: canonical package name → version.
        steps: step → its structure, as the worker's `steps.of` has it.
    """

    scenario: str
    creator: str
    versions: Mapping[str, str]
    steps: Mapping[str, Any]

    @property
    def order(self) -> tuple[Version, str]:
        """By release; of one release by the creator's name."""
        return Version(self.versions.get("trl", "0")), self.creator

    @property
    def label(self) -> str:
        """`0.24.0`, with what stands beside it."""
        beside = ", ".join(f"{said} {self.versions[name]}" for name, said in _BESIDE.items() if name in self.versions)
        return f"{self.versions.get('trl', self.creator)} ({beside})"


def render(seen: Iterable[Seen]) -> str:
    """The page."""
    by_scenario: dict[str, list[Seen]] = {}
    for one in sorted(seen, key=lambda each: each.order):
        by_scenario.setdefault(one.scenario, []).append(one)
    total = many(sum(map(len, by_scenario.values())), "golden")
    said = f"{total} of {many(len(by_scenario), 'scenario')}." if by_scenario else "No golden is stored."
    sections = [_section(name, by_scenario[name]) for name in sorted(by_scenario)]
    return page("What SFTTrainer makes of a model", "fixtures/", _INTRO, said, *sections)


def _section(name: str, releases: Sequence[Seen]) -> str:
    rows = [(releases[0].label, _types(releases[0]), _FIRST)]
    rows += [(after.label, _types(after), _changes(before, after)) for before, after in itertools.pairwise(releases)]
    return f"## {name}\n\n{table(('TRL', 'trains, and norms', 'otherwise than the release before'), rows)}"


def _types(one: Seen) -> str:
    """The types of what trains, and of norms, once the trainer is constructed."""
    parameters: Mapping[str, Sequence[Any]] = one.steps.get("constructed", {}).get("parameters", {})
    trains = sorted({str(dtype) for dtype, requires_grad in parameters.values() if requires_grad})
    norms = sorted({str(dtype) for name, (dtype, _) in parameters.items() if "norm" in name})
    return f"{', '.join(trains) or 'nothing'}; {', '.join(norms) or 'no norms'}"


def _changes(before: Seen, after: Seen) -> str:
    lines = [
        line
        for step, was in before.steps.items()
        if was.get("outcome") == "ok" and after.steps.get(step, {}).get("outcome") == "ok"
        for line in steps.difference(step, was, after.steps[step])
    ]
    return "; ".join(code(line) for line in lines) or _SAME
