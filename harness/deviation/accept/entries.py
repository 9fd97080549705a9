"""From cells of a run, and what a person says of them, to expectations that state just that. Pure.

An expectation made here selects the cells that were named and no other that was judged in the run: neither one that
deviates otherwise, nor one that is sound, which would make it stale at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

import pydantic
from packaging.version import InvalidVersion, Version

from harness.core import run as results
from harness.core import versions as requirements
from harness.core.errors import UsageError
from harness.core.run import Cell, Run
from harness.core.verdict import Verdict
from harness.deviation.accept import blocks
from harness.deviation.accept.blocks import Block, place_of
from harness.judge import expectations as expect
from harness.judge.expectations import Expectation

Fields = dict[str, Any]
"""What an entry says, by key; not checked yet."""

_SHOWN = 6
_EXPECTED = {
    "issue": "where the deviation is discussed: https://github.com/huggingface/peft/issues/NUMBER",
    "reason": "why it deviates, in words",
    "id": "lower-case letters, digits, - _ and .: lokr-scaled-by-alpha-over-r",
}
"""What an option takes that a person fills in."""


@dataclass(frozen=True)
class Said:
    """What a person says of the cells that are accepted."""

    issue: str = ""
    reason: str = ""
    expires: date = date.max
    id: str = ""
    """In place of one made of scenarios and verdict; further entries are numbered."""
    creators: str = ""
    """A version condition, or names and globs with commas; empty: the names of the cells' creators."""
    loaders: str = ""
    until: str = ""
    """A version condition that ends what is accepted: `peft<0.22`."""
    ranges: tuple[str, ...] = ()
    """Packages by whose versions creators and loaders are told, in place of names."""
    since: str = ""
    verified: str = ""
    workaround: str = ""


def applied(run: Run, expectations: Sequence[Expectation], today: date) -> Run:
    """The run as it would be with the expectations as they are now."""
    cells, problems = expect.apply(run.cells, expectations, versions_of(run), today, complete=not run.interrupted)
    return results.finished(run.model_copy(update={"cells": cells, "expectation_problems": problems}))


def versions_of(run: Run) -> dict[str, dict[str, str]]:
    """Environment → package → version."""
    return {environment.name: environment.versions for environment in run.environments}


# -- what is stated ---------------------------------------------------------------------------------------------------


def entries(run: Run, cells: Sequence[Cell], said: Said, taken: Iterable[str]) -> list[Fields]:
    """Entries that select just these cells: one for each verdict and kinds of findings, or more where one can't.

    Args:
        run: with the expectations of now applied.
        taken: ids that are in use.

    Raises:
        UsageError: a condition leaves out a cell that was named, or takes in one that was not.
    """
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((str(cell.verdict), *expect.kinds_of(cell)), []).append(cell)
    used, found = set(taken), []
    if said.id and said.id in used:
        raise UsageError(f"there is an expectation {said.id!r} already", "an id of its own", "give another --id")
    harmless = [place_of(cell) for cell in run.cells if cell.verdict is Verdict.UNSUPPORTED]
    for (verdict, *kinds), group in groups.items():
        for block in blocks.blocks([place_of(cell) for cell in group], harmless):
            fields = _fields(run, block, said)
            fields |= {"id": _id(said.id or _stem(block, verdict), used), "verdict": verdict, "kinds": kinds or None}
            found.append(fields)
            used.add(fields["id"])
    return found


def _fields(run: Run, block: Block, said: Said) -> Fields:
    return {
        "scenarios": sorted(block.scenarios),
        "creators": _rule(run, block.creators, said.creators, said.ranges, ""),
        "loaders": _rule(run, block.loaders, said.loaders, said.ranges, said.until),
        "devices": _devices(run, block),
        "issue": said.issue,
        "reason": said.reason,
        "expires": said.expires,
        "since": said.since or None,
        "verified": said.verified or None,
        "workaround": said.workaround or None,
    }


def _devices(run: Run, block: Block) -> list[str] | None:
    """None where the run was on the CPU alone, as for most that is written by hand."""
    return None if {cell.place for cell in run.cells} == {"cpu"} else sorted(block.devices)


def _stem(block: Block, verdict: str) -> str:
    """`lokr-alpha-silent-wrong`: the words that the scenarios' names begin with, and the verdict."""
    words = [name.split("-") for name in sorted(block.scenarios)]
    shared = [same[0] for same in _while_same(words)]
    return "-".join([*(shared or words[0][:1]), verdict])


def _while_same(words: list[list[str]]) -> Iterable[tuple[str, ...]]:
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            return
        yield column


def _id(stem: str, used: set[str]) -> str:
    number = 1
    while (name := stem if number == 1 else f"{stem}-{number}") in used:
        number += 1
    return name


# -- creators and loaders ---------------------------------------------------------------------------------------------


def _rule(run: Run, names: frozenset[str], given: str, ranges: Sequence[str], until: str) -> str | list[str]:
    """What an entry says of one side: what was given, a range of versions, or the names as they are in the run."""
    versions = {name: versions_of(run).get(name, {}) for name in names}
    if given:
        return given if _is_condition(given) else [part.strip() for part in given.split(",")]
    if not (until or ranges):
        return [_exactly(name) for name in sorted(names)]
    ended = {name: list(map(str, specifiers)) for name, specifiers in _until(until, versions).parts} if until else {}
    parts = []
    for package in dict.fromkeys([*ended, *ranges]):
        lowest, highest = _bounds(package, versions)
        ends = sorted(ended.get(package, [f"<={highest}"]), key=lambda text: not text.startswith(">"))
        starts = [] if any(text.startswith((">", "=", "~")) for text in ends) else [f">={lowest}"]
        exact = [f"=={lowest}"] if package not in ended and lowest == highest else [*starts, *ends]
        parts.append(package + ",".join(exact))
    return ", ".join(parts)


def _exactly(name: str) -> str:
    """A glob that means this name."""
    return re.sub(r"[\[\]]", "?", name)


def _is_condition(text: str) -> bool:
    return bool(re.search(r"[<>=!~]", text))


def _until(text: str, versions: dict[str, dict[str, str]]) -> requirements.Condition:
    """The condition that ends what is accepted; it must hold of each loader, and end somewhere."""
    try:
        condition = requirements.parse(text)
    except ValueError as error:
        raise UsageError(f"--until {text}: {error}", "a version that ends it: peft<0.22", "mend it") from error
    for name, specifiers in condition.parts:
        if not any(one.operator in ("<", "<=", "==", "~=") for one in specifiers):
            raise UsageError(
                f"--until {text} does not end: {name} has no upper bound", "as in peft<0.22", "give the first release "
                "that must be sound again",
            )  # fmt: skip
    for name in sorted(versions):
        if unmet := condition.unmet(versions[name]):
            raise UsageError(
                f"--until {text} does not hold of the loader {name}: it {unmet}",
                "a condition that the loader of each cell meets", "give a later version, or name other cells",
            )  # fmt: skip
    return condition


def _bounds(package: str, versions: dict[str, dict[str, str]]) -> tuple[Version, Version]:
    """The lowest and the highest release of a package; a development version counts as the release it leads to."""
    found = []
    for name, has in sorted(versions.items()):
        try:
            found.append(Version(Version(has[package]).base_version))
        except (KeyError, InvalidVersion):
            raise UsageError(
                f"{name} has no known version of {package} in this run",
                f"an environment with one of {', '.join(sorted(has)[:_SHOWN]) or 'its packages, and none is known'}",
                "name another package, or leave the environment's name to stand for it",
            ) from None
    return min(found), max(found)


# -- checks -----------------------------------------------------------------------------------------------------------


def checked(run: Run, cells: Sequence[Cell], found: Sequence[Fields]) -> tuple[Expectation, ...]:
    """The entries as the program reads them, if together they cover the cells, and select no other that was judged.

    Raises:
        UsageError: an entry is malformed, leaves a cell out or takes another in.
    """
    stated = tuple(_validated(fields) for fields in found)
    versions, wanted = versions_of(run), {cell.id for cell in cells}
    for one in stated:
        if others := [cell for cell in run.cells if _is_other(one, cell, wanted, versions)]:
            raise _overreach(one, others)
    for cell in cells:
        if not any(expect.covers(one, cell, versions) for one in stated):
            raise _left_out(cell, stated, versions)
    return stated


def _validated(fields: Fields) -> Expectation:
    """The entry as the program reads it; what is wrong is told by the option that says it."""
    try:
        return Expectation.model_validate({key: value for key, value in fields.items() if value is not None})
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0])
        raise UsageError(
            f"--{key} {problem.get('input')!r}: {problem['msg'].removeprefix('Value error, ')}",
            _EXPECTED.get(key, "what `matrices/expectations.toml` takes there; its first lines show each key"),
            "give it anew; nothing was written",
        ) from error


def _is_other(one: Expectation, cell: Cell, wanted: set[str], versions: expect.Versions) -> bool:
    """True of a judged cell that is selected and was not meant. One that is expected to do just so does no harm."""
    if not (cell.verdict.is_clean or cell.verdict.is_deviation) or not expect.selects(one, cell, versions):
        return False
    return not (expect.states(one, cell) and (cell.id in wanted or cell.expected))


def _overreach(one: Expectation, others: Sequence[Cell]) -> UsageError:
    shown = ", ".join(f"{cell.id} is {_found(cell)}" for cell in others[:_SHOWN])
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return UsageError(
        f"creators = {one.creators!r} and loaders = {one.loaders!r} would take in {len(others)} more: {shown}{more}",
        f"only the cells that were named: those that are {one.verdict}"
        + (f" ({', '.join(one.kinds)})" if one.kinds else ""),
        "narrow --creators, --loaders or --until; without them and --range the environments' own names stand",
    )


def _found(cell: Cell) -> str:
    kinds = expect.kinds_of(cell)
    return f"{cell.verdict}" + (f" ({', '.join(kinds)})" if kinds else "")


def _left_out(cell: Cell, stated: Sequence[Expectation], versions: expect.Versions) -> UsageError:
    one = next((e for e in stated if cell.scenario in e.scenarios and expect.states(e, cell)), stated[0])
    has = {name: versions.get(name, {}) for name in (cell.creator, cell.loader)}
    known = "; ".join(f"{name} has {_versions(packages)}" for name, packages in has.items())
    return UsageError(
        f"creators = {one.creators!r} and loaders = {one.loaders!r} leave out {cell.id} ({known})",
        "conditions or globs that select each cell that was named",
        "mend --creators or --loaders, or name fewer cells",
    )


def _versions(packages: Mapping[str, str]) -> str:
    first = [f"{name} {packages[name]}" for name in ("peft", "transformers", "torch") if name in packages]
    return (
        ", ".join(first or [f"{name} {version}" for name, version in list(packages.items())[:3]]) or "no known versions"
    )


# -- where it goes ----------------------------------------------------------------------------------------------------


def neighbour(run: Run, fields: Fields, expectations: Sequence[Expectation]) -> str | None:
    """The id of the entry to stand behind: the last one of the same scenarios, else of the family, else of the method.

    One that speaks of many scenarios is nobody's neighbour.
    """
    mine = [cell for cell in run.cells if cell.scenario in fields["scenarios"]]
    same: list[Callable[[Cell], bool]] = [
        lambda cell: cell.scenario in fields["scenarios"],
        lambda cell: bool(cell.family) and cell.family in {one.family for one in mine},
        lambda cell: bool(cell.method) and cell.method in {one.method for one in mine},
    ]
    for alike in same:
        scenarios = {cell.scenario for cell in run.cells if alike(cell)}
        for one in reversed(expectations):
            globs = one.scenarios if len(one.scenarios) <= _SHOWN and "*" not in one.scenarios else []
            if any(fnmatchcase(name, glob) for name in scenarios for glob in globs):
                return one.id
    return None
