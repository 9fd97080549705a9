"""The unexplained deviations of a run, cause by cause, each with what helps to decide. Pure.

A draft is not a known break yet: its reference is no address and its cause is empty, and each alone is refused when
the file is read. A person fills in both.
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
from harness.deviation.accept import break_file, conditions, expiry
from harness.deviation.accept.conditions import Fields, Said
from harness.judge import causes, expected
from harness.judge.breaks import Break, Condition
from harness.judge.causes import Cause
from harness.report import cell_facts, summary

NO_ISSUE = "https://…"
"""In the place of an address in a draft; `breaks.load` refuses it."""
_TOLD = ("found", "error", "reason", "greatest", "starts at", "moved by", "tensors")
"""Facts of the representative that a decision begins with."""


@dataclass(frozen=True)
class Like:
    """A known break that is like a cause."""

    known: Break
    why: str
    same: bool = False
    """True if it covers cells that show exactly the same."""


@dataclass(frozen=True)
class Item:
    """One cause, ready for a decision."""

    cause: Cause
    draft: Fields
    sentence: str = ""
    """What `blame` found."""
    like: tuple[Like, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        """The representative's id."""
        return self.cause.representative.id

    def toml(self) -> str:
        """The draft, with what is known in a comment."""
        return break_file.text(self.draft, self.remarks())

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
        rows += [("like", f"{one.known.id}: {one.why} ({one.known.issue})") for one in self.like]
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
            "like": [{"id": one.known.id, "why": one.why} for one in self.like],
            "notes": list(self.notes),
            "drafts": [{key: _plain(value) for key, value in self.draft.items() if value is not None}],
        }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, date) else value


# -- what there is ----------------------------------------------------------------------------------------------------


def items(
    run: Run,
    there: Sequence[Break],
    today: date,
    ranges: Sequence[str] = (),
    known: Mapping[str, str] | None = None,
) -> tuple[Item, ...]:
    """Every cause without a known break, worst first.

    Args:
        run: with the known breaks applied.
        ranges: packages by whose versions creators and loaders are given, unless that takes in another cell.
        known: cell → what `blame` found.
    """
    taken = [one.id for one in there]
    found = []
    for cause in causes.unexpected(run):
        draft, notes = _draft(run, cause, today, tuple(ranges), taken)
        taken.append(draft["id"])
        sentence = blame_notes.of(cause.cells, known or {})
        found.append(Item(cause, draft, sentence, _like(run, cause, there), tuple(notes)))
    return tuple(found)


def _draft(
    run: Run, cause: Cause, today: date, ranges: tuple[str, ...], taken: Sequence[str]
) -> tuple[Fields, list[str]]:
    said = Said("https://example.org/1", "–", expiry.after(today), one_line(cause.title, 100), ranges=ranges)
    notes = []
    try:
        fields = conditions.drafted(run, cause.cells, said, taken)
        conditions.checked(run, cause.cells, fields)
    except UsageError as error:
        notes = [f"by name, and not by the versions of {', '.join(ranges)}: {error.found}"]
        fields = conditions.drafted(run, cause.cells, dataclasses.replace(said, ranges=()), taken)
    return fields | {"references": [NO_ISSUE], "cause": ""}, notes


def _like(run: Run, cause: Cause, there: Sequence[Break]) -> tuple[Like, ...]:
    """Known breaks that may be about the same thing, the likeliest first."""
    covered = {cell.expectation for cell in run.cells if cell.expected and causes.is_of(cell, cause)}
    family = {cell.scenario for cell in run.cells if cell.family == cause.representative.family}
    kinds = set(expected.kinds_of(cause.representative))
    expired = {one.id for one in run.expectation_problems if one.problem == "expired"}
    versions = conditions.versions_of(run)
    found: list[tuple[int, Like]] = []
    for one in there:
        stated = [each for each in one.condition if each.verdict is cause.verdict and "*" not in each.scenarios]
        if one.id in expired and any(expected.covers(one, cell, versions) for cell in cause.cells):
            why = f"it covers this and has expired; if it still holds, `accept --renew {one.id} --expires DATE`"
            found.append((-1, Like(one, why, same=True)))
        elif one.id in covered:
            found.append((0, Like(one, "it covers cells of this run that show exactly the same", same=True)))
        elif any(_names(each, cause.scenarios) for each in stated):
            found.append((1, Like(one, "it is about the same scenario, with other creators, loaders or kinds")))
        elif any(set(each.of_kinds) == kinds and _names(each, family) for each in stated):
            found.append((2, Like(one, "the same verdict and kinds, in the same family")))
    return tuple(like for _, like in sorted(found, key=lambda pair: pair[0])[:3])


def _names(one: Condition, scenarios: Sequence[str] | set[str]) -> bool:
    return any(fnmatchcase(name, glob) for name in scenarios for glob in one.scenarios)


def remedy(run: Run, problem: ExpectationProblem) -> str:
    """The command that settles a known break that does not hold."""
    remove, renew = (
        f"`peft-regress accept --remove {problem.id}`", f"`peft-regress accept --renew {problem.id} --expires DATE`",
    )  # fmt: skip
    if problem.problem == "expired":
        return f"{renew} if it still holds and is still open, else {remove}"
    if problem.problem == "mismatch":
        update = f"`peft-regress accept --update {problem.id}`"
        return f"find out what changed; {update} if it is the same break, else decide about it separately"
    if any(cell.expectation == problem.id for cell in run.cells):
        return "narrow its conditions by hand to the cells that still deviate as stated"
    return remove


# -- how it reads -----------------------------------------------------------------------------------------------------


def text(item: Item, place: str) -> str:
    """A cause on a terminal."""
    cause = item.cause
    head = f"{place}  {cause.verdict}, {many(len(cause.cells), 'cell')}: {one_line(cause.title)}"
    lines = [head, *(f"  {one_line(part, 400)}" for part in (summary.reach(cause), summary.since(cause)) if part)]
    return "\n".join([*lines, *(f"  {label:9}  {value}" for label, value in item.rows())])


def details(item: Item) -> str:
    """All that the report knows about the representative, the other cells, and the draft."""
    told = cell_facts.facts(item.cause.representative, whole=True)
    lines = [f"  {fact.label:12}  {one_line(fact.value, 2000)}" for fact in told]
    others = [f"  {size:>10}  {cell.id}" for cell, size in summary.others(item.cause)]
    return "\n".join([*lines, *(["the same in:", *others] if others else []), "draft:", item.toml().rstrip()])


def problem_text(run: Run, problem: ExpectationProblem) -> str:
    """A known break that does not hold, on a terminal."""
    head = f"does not hold  {problem.problem}: {problem.id}"
    return f"{head}\n  {one_line(problem.message, 2000)}\n  do: {remedy(run, problem)}"


def files(found: Sequence[Item]) -> dict[str, str]:
    """All drafts, as file name → text."""
    return {f"{item.draft['id']}.toml": item.toml() for item in found}


def toml(run: Run, found: Sequence[Item]) -> str:
    """All drafts in one text, for a reader."""
    problems = [f"# {one.problem}: {one.id}: {remedy(run, one)}" for one in run.expectation_problems]
    head = [
        f"# Drafts for {many(len(found), 'cause')} of run {one_line(run.id)}, by `peft-regress triage`.",
        "# A draft is not accepted yet: fill in `references` (https addresses) and `cause`, and make each a file of",
        "# its own in matrices/breaks/. `--output FOLDER` writes such files; `peft-regress accept` writes one break.",
        *problems,
    ]
    parts = [f"# ---- matrices/breaks/{name} ----\n\n{text}" for name, text in files(found).items()]
    return "\n".join(["\n".join(head) + "\n", *parts])


def markdown(run: Run, found: Sequence[Item]) -> str:
    """All causes and drafts, to be pasted into an issue."""
    count = f"{many(len(found), 'cause')} without a known break, {many(len(run.deviations), 'cell')}"
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
    return fenced(break_file.text(item.draft).rstrip()).replace("text\n", "toml\n", 1)
