"""The unexplained deviations of a run, cause by cause, each with what helps to decide about it. Pure.

What is drafted here is no expectation: its issue is no address and its reason is empty, and either alone is refused
when the file is read. Both are a person's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from harness.core.errors import UsageError
from harness.core.run import ExpectationProblem, Run
from harness.core.text import code, fenced, many, one_line, prose
from harness.deviation import blame_notes
from harness.deviation.accept import entries, expiry, toml_text
from harness.deviation.accept.entries import Fields, Said
from harness.judge import causes
from harness.judge import expectations as expect
from harness.judge.causes import Cause
from harness.judge.expectations import Expectation
from harness.report import cell_facts, summary

NO_ISSUE = "https://…"
"""Stands for the address in a draft; `expect.load` refuses it."""
_TOLD = ("found", "error", "reason", "greatest", "starts at", "moved by", "tensors")
"""Facts of the representative that a decision begins with."""


@dataclass(frozen=True)
class Like:
    """An expectation that is like a cause."""

    expectation: Expectation
    why: str
    same: bool = False
    """True where it covers cells that show the very same."""


@dataclass(frozen=True)
class Item:
    """One cause, ready to be decided about."""

    cause: Cause
    drafts: tuple[Fields, ...]
    sentence: str = ""
    """What `blame` found."""
    like: tuple[Like, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        """The representative's id."""
        return self.cause.representative.id

    def toml(self) -> str:
        """The drafted entries, with what is known above the first."""
        comments = ["\n".join(self.remarks()), *["As above."] * (len(self.drafts) - 1)]
        drafted = zip(self.drafts, comments, strict=True)
        return "\n".join(toml_text.entry(fields, comment) for fields, comment in drafted)

    def remarks(self) -> list[str]:
        """What is known, a line each."""
        lines = [f"{self.cause.verdict}, {many(len(self.cause.cells), 'cell')}: {one_line(self.cause.title)}"]
        lines += [one_line(part, 400) for part in (summary.reach(self.cause), summary.since(self.cause)) if part]
        lines += [f"{label}: {value}" for label, value in self.rows()]
        return lines

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of what helps to decide."""
        told = cell_facts.facts(self.cause.representative)
        rows = [("shown by", self.cell)] + [(fact.label, fact.value) for fact in told if fact.label in _TOLD]
        rows.append(("blame", self.sentence or f"not asked yet: `peft-regress blame '{self.cell}'`"))
        rows += [("like", f"{one.expectation.id}: {one.why} ({one.expectation.issue})") for one in self.like]
        return [(label, one_line(value, 400)) for label, value in [*rows, *(("note", note) for note in self.notes)]]

    def data(self) -> dict[str, Any]:
        """For a program."""
        return {
            "title": self.cause.title,
            "verdict": str(self.cause.verdict),
            "cells": [cell.id for cell in self.cause.cells],
            "scenarios": list(self.cause.scenarios),
            "creators": self.cause.creators.ranges,
            "loaders": self.cause.loaders.ranges,
            "size": summary.size(self.cause.representative),
            "first_layer": self.cause.representative.first_difference,
            "sentence": self.sentence,
            "like": [{"id": one.expectation.id, "why": one.why} for one in self.like],
            "notes": list(self.notes),
            "drafts": [
                {
                    k: str(value) if isinstance(value, date) else value
                    for k, value in fields.items()
                    if value is not None
                }
                for fields in self.drafts
            ],
        }


# -- what there is ----------------------------------------------------------------------------------------------------


def items(
    run: Run,
    expectations: Sequence[Expectation],
    today: date,
    ranges: Sequence[str] = (),
    known: Mapping[str, str] | None = None,
) -> tuple[Item, ...]:
    """Every cause without an expectation, worst first.

    Args:
        run: with the expectations applied.
        ranges: packages by whose versions creators and loaders are told, where that takes in no other cell.
        known: cell → what `blame` found.
    """
    taken = [one.id for one in expectations]
    found = []
    for cause in causes.unexpected(run):
        drafts, notes = _drafts(run, cause, today, tuple(ranges), taken)
        taken += [str(fields["id"]) for fields in drafts]
        like = _like(run, cause, expectations)
        found.append(Item(cause, tuple(drafts), blame_notes.of(cause.cells, known or {}), like, tuple(notes)))
    return tuple(found)


def _drafts(
    run: Run, cause: Cause, today: date, ranges: tuple[str, ...], taken: Sequence[str]
) -> tuple[list[Fields], list[str]]:
    said = Said("https://example.org/1", "–", expiry.after(today), ranges=ranges)
    notes = []
    try:
        fields = entries.entries(run, cause.cells, said, taken)
        entries.checked(run, cause.cells, fields)
    except UsageError as error:
        notes = [f"by name, and not by the versions of {', '.join(ranges)}: {error.found}"]
        fields = entries.entries(run, cause.cells, dataclasses.replace(said, ranges=()), taken)
    return [one | {"issue": NO_ISSUE, "reason": ""} for one in fields], notes


def _like(run: Run, cause: Cause, expectations: Sequence[Expectation]) -> tuple[Like, ...]:
    """Expectations that may be about the same thing, the likeliest first."""
    covered = {cell.expectation for cell in run.cells if cell.expected and causes.signature(cell) == cause.signature}
    family = {cell.scenario for cell in run.cells if cell.family == cause.representative.family}
    kinds = set(expect.kinds_of(cause.representative))
    expired = {one.id for one in run.expectation_problems if one.problem == "expired"}
    versions = entries.versions_of(run)
    found: list[tuple[int, Like]] = []
    for one in expectations:
        if one.id in expired and any(expect.covers(one, cell, versions) for cell in cause.cells):
            why = f"it covers this and is expired; if it is still so, `accept --renew {one.id} --expires DATE`"
            found.append((-1, Like(one, why, same=True)))
        elif one.id in covered:
            found.append((0, Like(one, "it covers cells of this run that show the very same", same=True)))
        elif one.verdict is not cause.verdict or "*" in one.scenarios:
            continue
        elif _names(one, cause.scenarios):
            found.append((1, Like(one, "it is about the same scenario, with other creators, loaders or kinds")))
        elif set(one.kinds or ()) == kinds and _names(one, family):
            found.append((2, Like(one, "the same verdict and kinds, in the same family")))
    return tuple(like for _, like in sorted(found, key=lambda pair: pair[0])[:3])


def _names(one: Expectation, scenarios: Sequence[str] | set[str]) -> bool:
    return any(fnmatchcase(name, glob) for name in scenarios for glob in one.scenarios)


def remedy(run: Run, problem: ExpectationProblem) -> str:
    """The command that settles an expectation that does not hold."""
    remove, renew = (
        f"`peft-regress accept --remove {problem.id}`", f"`peft-regress accept --renew {problem.id} --expires DATE`",
    )  # fmt: skip
    if problem.problem == "expired":
        return f"{renew} if it is still so and still open, else {remove}"
    if any(cell.expectation == problem.id for cell in run.cells):
        return "narrow its creators, loaders or scenarios by hand to the cells that still deviate as it says"
    return remove if problem.problem == "stale" else f"{remove}, and decide anew about what deviates now"


# -- how it reads -----------------------------------------------------------------------------------------------------


def text(item: Item, place: str) -> str:
    """A cause on a terminal."""
    cause = item.cause
    head = f"{place}  {cause.verdict}, {many(len(cause.cells), 'cell')}: {one_line(cause.title)}"
    lines = [head, *(f"  {one_line(part, 400)}" for part in (summary.reach(cause), summary.since(cause)) if part)]
    return "\n".join([*lines, *(f"  {label:9}  {value}" for label, value in item.rows())])


def details(item: Item) -> str:
    """All that the report knows of the representative, the other cells, and the draft."""
    told = cell_facts.facts(item.cause.representative, whole=True)
    lines = [f"  {fact.label:12}  {one_line(fact.value, 2000)}" for fact in told]
    others = [f"  {size:>10}  {cell.id}" for cell, size in summary.others(item.cause)]
    return "\n".join([*lines, *(["the same in:", *others] if others else []), "draft:", item.toml().rstrip()])


def problem_text(run: Run, problem: ExpectationProblem, place: str) -> str:
    """An expectation that does not hold, on a terminal."""
    return (
        f"{place}  {problem.problem}: {problem.id}\n  {one_line(problem.message, 2000)}\n  do: {remedy(run, problem)}"
    )


def toml(run: Run, found: Sequence[Item]) -> str:
    """All drafts as a file."""
    problems = [f"# {one.problem}: {one.id}: {remedy(run, one)}" for one in run.expectation_problems]
    head = [
        f"# Drafts for {many(len(found), 'cause')} of run {one_line(run.id)}, by `peft-regress triage`.",
        "# None of them is an expectation as it stands: fill in `issue` (an https address) and `reason`, then move it",
        "# to matrices/expectations.toml. Or decide one by one: `peft-regress triage` on a terminal, or `accept`.",
        *problems,
    ]
    return "\n".join(["\n".join(head) + "\n", *(item.toml() for item in found)])


def markdown(run: Run, found: Sequence[Item]) -> str:
    """All causes and drafts, to be pasted into an issue."""
    count = f"{many(len(found), 'cause')} without an expectation, {many(len(run.deviations), 'cell')}"
    lines = [f"## Triage of {code(run.id)}", "", f"{count}."]
    for place, item in enumerate(found, 1):
        lines += ["", f"### {place}. `{item.cause.verdict}`: {code(one_line(item.cause.title))}", ""]
        lines += [f"- {prose(summary.reach(item.cause))}"]
        lines += [f"- {label}: {code(value)}" for label, value in item.rows()]
        lines += ["", "<details><summary>draft</summary>", "", _fenced_toml(item), "", "</details>"]
    for problem in run.expectation_problems:
        lines += ["", f"### {problem.problem}: {code(problem.id)}", "", prose(problem.message), ""]
        lines += [f"Next: {prose(remedy(run, problem))}"]
    return "\n".join(lines) + "\n"


def _fenced_toml(item: Item) -> str:
    bare = "\n".join(toml_text.entry(fields) for fields in item.drafts)
    return fenced(bare.rstrip()).replace("text\n", "toml\n", 1)
