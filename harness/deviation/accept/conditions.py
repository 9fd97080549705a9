"""A known break for cells of a run, from what a person says about them. Pure.

The break selects the cells that were named and no other cell that was judged in the run: neither one that deviates in
another way, nor one that agrees, which would make the break stale at once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pydantic
from packaging.version import InvalidVersion, Version

from harness.core import run as results
from harness.core import versions as requirements
from harness.core.errors import UsageError
from harness.core.run import Cell, Run
from harness.core.text import first_sentence
from harness.core.verdict import Verdict
from harness.deviation.accept import blocks
from harness.deviation.accept.blocks import Block, place_of
from harness.judge import expected, shape_measured
from harness.judge.breaks import Break, Condition

Fields = dict[str, Any]
"""What a break's file says by key, and its id; not checked yet."""

_SHOWN = 6
_EXPECTED = {
    "issue": "where the deviation is discussed: https://github.com/huggingface/peft/issues/NUMBER",
    "reason": "why it deviates, in words",
    "id": "lower-case letters, digits, - _ and .: lokr-scaled-by-alpha-over-r",
}
"""What the options accept that a person fills in."""
_OPTIONS = {"references": "issue", "cause": "reason"}
"""Options whose name is not the key that they fill."""


@dataclass(frozen=True)
class Said:
    """What a person says about the cells that are accepted."""

    issue: str = ""
    reason: str = ""
    expires: date = date.max
    title: str = ""
    """Empty: the first sentence of the reason."""
    id: str = ""
    """Empty: made from scenarios and verdict."""
    creators: str = ""
    """A version condition, or names and globs with commas; empty: the names of the cells' creators."""
    loaders: str = ""
    until: str = ""
    """A version condition that ends what is accepted: `peft<0.22`."""
    ranges: tuple[str, ...] = ()
    """Packages by whose versions creators and loaders are given, instead of by name."""
    since: str = ""
    verified: str = ""
    workaround: str = ""


def applied(run: Run, known: Sequence[Break], today: date) -> Run:
    """The run as it would be with the known breaks of now."""
    cells, problems = expected.apply(run.cells, known, versions_of(run), today, complete=not run.interrupted)
    return results.finished(run.model_copy(update={"cells": cells, "expectation_problems": problems}))


def versions_of(run: Run) -> dict[str, dict[str, str]]:
    """Environment → package → version."""
    return {environment.name: environment.versions for environment in run.environments}


# -- what is stated ---------------------------------------------------------------------------------------------------


def drafted(run: Run, cells: Sequence[Cell], said: Said, taken: Collection[str]) -> Fields:
    """A break for these cells, with a condition for each verdict and set of kinds, or more if one is not enough.

    Args:
        run: with the known breaks of now applied.
        taken: ids that are in use.

    Raises:
        UsageError: the id is in use.
    """
    if said.id in taken:
        raise UsageError(f"there is a known break {said.id!r} already", "an id of its own", "give another --id")
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((str(cell.verdict), *expected.kinds_of(cell)), []).append(cell)
    harmless = [place_of(cell) for cell in run.cells if cell.verdict is Verdict.UNSUPPORTED]
    return {
        "id": said.id or _id(cells, taken),
        "title": said.title or first_sentence(said.reason).removesuffix("."),
        "cause": said.reason,
        "references": [said.issue],
        "since": said.since or None,
        "verified": said.verified or None,
        "workaround": said.workaround or None,
        "expires": said.expires,
        "condition": [
            _condition(run, block, said) | {"verdict": verdict} | _shape([c for c in group if block.holds(place_of(c))])
            for (verdict, *_), group in groups.items()
            for block in blocks.blocks([place_of(cell) for cell in group], harmless)
        ],
    }


def _shape(cells: Sequence[Cell]) -> Fields:
    """What the cells show, as measured; nothing for a process that died."""
    shape, size = shape_measured.measured(cells)
    lines = {key: line.model_dump(exclude_none=True) for key, line in shape.items()}
    return {"shape": lines or None, "size": size or None}


def _condition(run: Run, block: Block, said: Said) -> Fields:
    return {
        "scenarios": sorted(block.scenarios),
        "creators": _rule(run, block.creators, said.creators, said.ranges, ""),
        "loaders": _rule(run, block.loaders, said.loaders, said.ranges, said.until),
        "devices": _devices(run, block),
    }


def _devices(run: Run, block: Block) -> list[str] | None:
    """None if the run was on the CPU alone, as in most breaks that are written by hand."""
    return None if {cell.place for cell in run.cells} == {"cpu"} else sorted(block.devices)


def _id(cells: Sequence[Cell], taken: Collection[str]) -> str:
    """`lokr-alpha-silent-wrong`: the words that all scenarios' names begin with, and the worst verdict."""
    words = [name.split("-") for name in sorted({cell.scenario for cell in cells})]
    shared = [column[0] for column in itertools.takewhile(lambda same: len({*same}) == 1, zip(*words, strict=False))]
    stem = "-".join([*(shared or words[0][:1]), min((cell.verdict for cell in cells), key=lambda one: one.severity)])
    return next(name for n in itertools.count(1) if (name := stem if n == 1 else f"{stem}-{n}") not in taken)


# -- creators and loaders ---------------------------------------------------------------------------------------------


def _rule(run: Run, names: frozenset[str], given: str, ranges: Sequence[str], until: str) -> str | list[str]:
    """The rule for one side: what was given, a range of versions, or the names as they are in the run."""
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
        raise UsageError(f"--until {text}: {error}", "a version that ends it: peft<0.22", "correct it") from error
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
                "name another package, or leave it out: the environment's name is used then",
            ) from None
    return min(found), max(found)


# -- checks -----------------------------------------------------------------------------------------------------------


def checked(run: Run, cells: Sequence[Cell], fields: Fields) -> Break:
    """The break as the program reads it, if it covers the cells and selects no other cell that was judged.

    Raises:
        UsageError: it is malformed, leaves a cell out or takes another in.
    """
    known = _validated(fields)
    versions, wanted = versions_of(run), {cell.id for cell in cells}
    for one in known.condition:
        if others := [cell for cell in run.cells if _is_other(one, cell, wanted, versions)]:
            raise _overreach(one, others)
    for cell in cells:
        if not expected.covers(known, cell, versions):
            raise _left_out(cell, known, versions)
    return known


def _validated(fields: Fields) -> Break:
    """The break as the program reads it; an error names the option that gave the value."""
    data = {key: value for key, value in fields.items() if value is not None}
    conditions = [{key: value for key, value in one.items() if value is not None} for one in fields["condition"]]
    try:
        return Break.model_validate(data | {"condition": conditions})
    except pydantic.ValidationError as error:
        problem = min(error.errors(), key=lambda one: "title" in one["loc"])  # it may come from an empty reason
        key = next(str(part) for part in problem["loc"][::-1] if isinstance(part, str))
        option = _OPTIONS.get(key, key)
        raise UsageError(
            f"--{option} {problem.get('input')!r}: {problem['msg'].removeprefix('Value error, ')}",
            _EXPECTED.get(option, "what docs/expectations.md shows for this key"),
            "give another value; nothing was written",
        ) from error


def _is_other(one: Condition, cell: Cell, wanted: set[str], versions: expected.Versions) -> bool:
    """True for a judged cell that is selected but not meant, unless it is expected to deviate in just this way."""
    if not cell.verdict.is_judged or not expected.selects(one, cell, versions):
        return False
    return not (expected.states(one, cell) and (cell.id in wanted or cell.expected))


def _overreach(one: Condition, others: Sequence[Cell]) -> UsageError:
    shown = ", ".join(f"{cell.id} is {_found(cell)}" for cell in others[:_SHOWN])
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return UsageError(
        f"creators = {one.creators!r} and loaders = {one.loaders!r} would take in {len(others)} more: {shown}{more}",
        f"only the cells that were named: those that are {one.stated}",
        "narrow --creators, --loaders or --until; without these and --range the environments' names are used",
    )


def _found(cell: Cell) -> str:
    kinds = expected.kinds_of(cell)
    return f"{cell.verdict}" + (f" ({', '.join(kinds)})" if kinds else "")


def _left_out(cell: Cell, known: Break, versions: expected.Versions) -> UsageError:
    mine = (one for one in known.condition if cell.scenario in one.scenarios and expected.states(one, cell))
    one = next(mine, known.condition[0])
    has = {name: versions.get(name, {}) for name in (cell.creator, cell.loader)}
    shown = "; ".join(f"{name} has {_versions(packages)}" for name, packages in has.items())
    return UsageError(
        f"creators = {one.creators!r} and loaders = {one.loaders!r} leave out {cell.id} ({shown})",
        "conditions or globs that select each cell that was named",
        "correct --creators or --loaders, or name fewer cells",
    )


def _versions(packages: Mapping[str, str]) -> str:
    first = [f"{name} {packages[name]}" for name in ("peft", "transformers", "torch") if name in packages]
    return (
        ", ".join(first or [f"{name} {version}" for name, version in list(packages.items())[:3]]) or "no known versions"
    )
