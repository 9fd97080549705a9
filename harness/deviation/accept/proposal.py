"""Cells accepted: the entries, where they go in the file, and what the run would be with them. Writes nothing."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from harness.core.errors import UsageError
from harness.core.run import Cell, Run
from harness.deviation.accept import entries as accepting
from harness.deviation.accept import toml_text
from harness.deviation.accept.entries import Fields, Said
from harness.deviation.accept.file import Snapshot
from harness.judge import expectations as expect
from harness.judge.expectations import Expectation

_BY_CONTENT = ("checkout", "git", "interpreter")
"""Kinds of environments whose name is made of what is in them or where they are."""


@dataclass(frozen=True)
class Proposal:
    """What would be written, and what comes of it."""

    before: Snapshot
    entries: tuple[str, ...]
    """The text of each entry."""
    stated: tuple[Expectation, ...]
    text: str
    """The whole file with them."""
    cells: tuple[Cell, ...]
    """Those that are accepted."""
    after: Run
    """The run with the expectations as they would be."""
    notes: tuple[str, ...] = ()

    @property
    def diff(self) -> str:
        """What changes in the file, as `diff -u` shows it."""
        return unified(self.before, self.text)


def unified(before: Snapshot, text: str) -> str:
    """What changes in the file, as `diff -u` shows it."""
    name = str(before.path)
    lines = difflib.unified_diff(before.text.splitlines(), text.splitlines(), name, name, lineterm="")
    return "\n".join(lines)


def propose(run: Run, cells: Sequence[Cell], said: Said, before: Snapshot, today: date) -> Proposal:
    """Entries for cells of a run.

    Args:
        run: with the expectations of `before` applied.

    Raises:
        UsageError: the entries would state more or less than these cells, or the file can't be changed by a command.
    """
    _refuse_expired(run, cells, before)
    fields = accepting.entries(run, cells, said, [one.id for one in before.expectations])
    stated = accepting.checked(run, cells, fields)
    text = _placed(run, fields, before)
    expectations = expect.parse(text, before.path)
    return Proposal(
        before,
        tuple(toml_text.entry(one) for one in fields),
        stated,
        text,
        tuple(cells),
        accepting.applied(run, expectations, today),
        _notes(run, cells, said),
    )


def _refuse_expired(run: Run, cells: Sequence[Cell], before: Snapshot) -> None:
    """A second entry for what an expired one says would leave the run failing for the first."""
    expired = {one.id for one in run.expectation_problems if one.problem == "expired"}
    versions = accepting.versions_of(run)
    for one in before.expectations:
        covered = [cell.id for cell in cells if one.id in expired and expect.covers(one, cell, versions)]
        if covered:
            raise UsageError(
                f"{covered[0]} deviates as {one.id!r} says, which expired on {one.expires}",
                "one entry for one deviation",
                f"if it is still so: `peft-regress accept --renew {one.id} --expires DATE`; else --remove it first",
            )


def _placed(run: Run, fields: Sequence[Fields], before: Snapshot) -> str:
    """The file with each entry behind what it is most like."""
    groups: dict[str | None, list[str]] = {}
    for one in fields:
        beside = accepting.neighbour(run, one, before.expectations)
        groups.setdefault(beside, []).append(toml_text.entry(one))
    made = before
    for beside, entries in groups.items():
        text = made.with_entries(entries, beside)
        made = dataclasses.replace(made, text=text, expectations=expect.parse(text, made.path))
    return made.text


def _notes(run: Run, cells: Sequence[Cell], said: Said) -> tuple[str, ...]:
    """What its writer may not know: a name that another run will not have again."""
    kinds = {environment.name: environment.kind for environment in run.environments}
    told = [] if said.creators or said.ranges else sorted({cell.creator for cell in cells})
    told += [] if said.loaders or said.until or said.ranges else sorted({cell.loader for cell in cells})
    passing = [name for name in dict.fromkeys(told) if kinds.get(name) in _BY_CONTENT]
    return tuple(
        f"{name} is the name of this very {kinds[name]}: another commit or place has another, and the entry "
        "says nothing there. `--range peft` or a condition tells it by its version"
        for name in passing
    )
