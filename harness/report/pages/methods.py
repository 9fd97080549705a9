"""The page of methods: the tested releases and scenarios of each, and the scenarios without a fixture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.core.matrix import Declared
from harness.core.text import many
from harness.report.pages import page, table
from harness.report.pages.known_breaks import anchor, method

_INTRO = """\
This page lists every tested method with its scenarios, and the first and last release whose adapters are stored. A \
method may be older than the first release here. `peft-regress list -v` describes each scenario."""


@dataclass(frozen=True)
class Stored:
    """One stored fixture; `order` is the place of its creator among the releases."""

    scenario: str
    creator: str
    release: str
    method: str
    order: int

    @property
    def label(self) -> str:
        """The release; the creator's name if it has none."""
        return self.release or self.creator


def render(declared: Sequence[Declared], stored: Iterable[Stored]) -> str:
    """The page."""
    by_scenario: dict[str, list[Stored]] = {}
    for one in sorted(stored, key=lambda each: each.order):
        by_scenario.setdefault(one.scenario, []).append(one)
    methods: dict[str, list[Declared]] = {}
    for scenario in declared:
        methods.setdefault(method(scenario), []).append(scenario)
    without = sum(scenario.name not in by_scenario for scenario in declared)
    said = f"{many(len(methods), 'method')}, {many(len(declared), 'scenario')}" + (
        f"; {many(without, 'scenario')} without a fixture." if without else "."
    )
    summary = [_line(name, methods[name], by_scenario) for name in sorted(methods, key=str.lower)]
    header = ("method", "`peft_type`", "first", "last", "scenarios")
    sections = [_section(name, methods[name], by_scenario) for name in sorted(methods, key=str.lower)]
    return page(
        "Methods", "matrices/scenarios and fixtures/", _INTRO, said, table(header, summary, right=(4,)), *sections
    )


def _line(name: str, scenarios: Sequence[Declared], stored: Mapping[str, list[Stored]]) -> tuple[str, ...]:
    every = sorted((one for each in scenarios for one in stored.get(each.name, [])), key=lambda one: one.order)
    types = ", ".join(f"`{kind}`" for kind in dict.fromkeys(one.method for one in every) if kind)
    first, last = (every[0].label, every[-1].label) if every else ("no fixture", "")
    return (f"[{name}](#{anchor(name)})", types, first, last, str(len(scenarios)))


def _section(name: str, scenarios: Sequence[Declared], stored: Mapping[str, list[Stored]]) -> str:
    rows = [
        (
            f"[{one.name}](../matrices/scenarios/{one.file.name})",
            ", ".join(f"`{text}`" for text in one.scenario.requires),
            span(stored.get(one.name, [])),
        )
        for one in scenarios
    ]
    return f"## {name}\n\n{table(('scenario', 'requires', 'fixtures by'), rows)}"


def span(stored: Sequence[Stored]) -> str:
    """`0.6.1–0.21.2 (12)`: first and last release, and the number of creators; `no fixture` if there are none."""
    labels = [one.label for one in stored]
    if not labels:
        return "no fixture"
    return labels[0] if labels[0] == labels[-1] else f"{labels[0]}–{labels[-1]} ({len(labels)})"
