"""Expectations: reviewed statements that cells are known to deviate. They match, they expire, and they must hold.

Pure but for `load`. An expectation that no longer holds is a problem of its own and fails the run: the file
must never say more than what is so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import pydantic

from harness.core import toml_files
from harness.core import versions as requirements
from harness.core.errors import UsageError
from harness.core.model import Strict
from harness.core.run import Cell, ExpectationProblem
from harness.core.verdict import Verdict

Versions = Mapping[str, Mapping[str, str]]
"""Name of an environment → package → version."""

_SHOWN = 8
_ADDRESS = r"https://[^\s/]+/\S+"


class Expectation(Strict):
    """One `[[expectation]]` of `matrices/expectations.toml`."""

    id: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    scenarios: list[str] = pydantic.Field(min_length=1)
    """Globs of scenario names."""
    creators: str | list[str]
    """A version condition on the creator's environment (`peft<0.7`), or globs of environment names."""
    loaders: str | list[str]
    """The same of the loader's."""
    devices: list[str] | None = None
    """Globs of device names; every device where absent."""
    noted: str | None = pydantic.Field(default=None, min_length=1)
    """Glob of a note that the cell must have, or after `!` must not have: for what hangs on the processor."""
    verdict: Verdict = pydantic.Field(strict=False)
    """The verdict that it covers. Any other stays red."""
    kinds: list[str] | None = pydantic.Field(default=None, min_length=1)
    """The kinds of findings that it covers; every kind where absent."""
    issue: str
    reason: str
    expires: date
    """The last day on which it counts."""
    since: str | None = pydantic.Field(default=None, min_length=1)
    """The release that brought it: `PEFT 0.7.0`. For readers, like the two that follow; nothing is matched by it."""
    verified: str | None = pydantic.Field(default=None, min_length=1)
    """Which releases were seen to be fine and which wrong, and how."""
    workaround: str | None = pydantic.Field(default=None, min_length=1)
    """What somebody with such an adapter can do."""

    @pydantic.field_validator("*")
    @classmethod
    def _written(cls, value: Any) -> Any:
        """Undecodable bytes of a command line come as surrogates, which no file takes; pydantic 2.14 lets them pass."""
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and re.search("[\ud800-\udfff]", text) for text in texts):
            raise ValueError("text that can be written as UTF-8")
        return value

    @pydantic.field_validator("creators", "loaders", mode="before")
    @classmethod
    def _condition_or_globs(cls, value: Any) -> str | list[str]:
        if isinstance(value, str):
            return _condition_text(value)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return [_glob(item) for item in value]
        raise ValueError("a version condition like 'peft<0.7', or a list of globs of environment names like ['v06*']")

    @pydantic.field_validator("scenarios", "devices")
    @classmethod
    def _globs(cls, value: list[str] | None) -> list[str] | None:
        return [_glob(item) for item in value] if value is not None else None

    @pydantic.field_validator("verdict")
    @classmethod
    def _deviation(cls, verdict: Verdict) -> Verdict:
        if not (verdict.is_deviation or verdict is Verdict.WARNED):
            allowed = [v for v in Verdict if v.is_deviation or v is Verdict.WARNED]
            raise ValueError(f"a deviation: one of {', '.join(allowed)}; nothing else can be expected")
        return verdict

    @pydantic.field_validator("issue")
    @classmethod
    def _discussed(cls, issue: str) -> str:
        if not is_address(issue):
            raise ValueError("an https address, where the deviation is discussed")
        return issue

    @pydantic.field_validator("reason")
    @classmethod
    def _said(cls, reason: str) -> str:
        if not reason.strip():
            raise ValueError("a reason in words")
        return reason


class ExpectationFile(Strict):
    """The content of `matrices/expectations.toml`."""

    expectation: list[Expectation] = pydantic.Field(default_factory=list)


def is_address(text: str) -> bool:
    """True where a text can be an expectation's issue."""
    return re.fullmatch(_ADDRESS, text) is not None


def load(path: Path) -> tuple[Expectation, ...]:
    """The expectations of a file; none where there is no file.

    Raises:
        UsageError: with the key path of what is wrong.
    """
    return checked(toml_files.read(path), path) if path.exists() else ()


def parse(text: str, path: Path) -> tuple[Expectation, ...]:
    """The expectations of a file's text.

    Raises:
        UsageError: with the key path of what is wrong.
    """
    return checked(toml_files.parsed(text, path), path)


def checked(data: Any, path: Path) -> tuple[Expectation, ...]:
    """The expectations in what a TOML file holds.

    Raises:
        UsageError: with the key path of what is wrong.
    """
    expectations = toml_files.validated(ExpectationFile, data, path).expectation
    first: dict[str, int] = {}
    for index, expectation in enumerate(expectations):
        before = first.setdefault(expectation.id, index)
        if before != index:
            raise UsageError(
                f"{path}: `expectation[{index}].id` = {expectation.id!r} is the id of `expectation[{before}]` too",
                "one id for one expectation",
                "give one of them another id",
            )
    return tuple(expectations)


def selects(expectation: Expectation, cell: Cell, versions: Versions) -> bool:
    """True where the expectation speaks of the cell, whatever was found there.

    An environment without known versions (it failed to build) meets no version condition.
    """
    return (
        _any(expectation.scenarios, cell.scenario)
        and (expectation.devices is None or any(_any(expectation.devices, name) for name in (cell.device, cell.place)))
        and _admits(expectation.creators, cell.creator, versions)
        and _admits(expectation.loaders, cell.loader, versions)
        and _noted(expectation.noted, cell.notes)
    )


def states(expectation: Expectation, cell: Cell) -> bool:
    """True where the cell deviates as the expectation says: with its verdict, and findings of its kinds alone."""
    if cell.verdict is not expectation.verdict:
        return False
    return expectation.kinds is None or set(kinds_of(cell)) <= set(expectation.kinds)


def covers(expectation: Expectation, cell: Cell, versions: Versions) -> bool:
    """True where the expectation speaks of the cell and it deviates just so. The date is not looked at."""
    return selects(expectation, cell, versions) and states(expectation, cell)


def kinds_of(cell: Cell) -> list[str]:
    """Kinds of the findings that make the cell deviate, sorted; of a `warned` cell, those that warn."""
    warned = cell.verdict is Verdict.WARNED
    deviating = (f for f in cell.findings if f.verdict.is_deviation or (warned and f.verdict is Verdict.WARNED))
    return sorted({finding.kind for finding in deviating})


def apply(
    cells: Sequence[Cell],
    expectations: Sequence[Expectation],
    versions: Versions,
    today: date,
    *,
    complete: bool = True,
) -> tuple[tuple[Cell, ...], tuple[ExpectationProblem, ...]]:
    """Mark the cells that deviate as expected, and tell which expectations do not hold.

    A cell is covered by the first expectation, in the file's order, that is not expired and states what it shows. Every
    expectation that selects a cell must hold of it. One that selects no cell of this run says nothing, and so does
    a cell that could not be compared or is unsupported.

    Args:
        complete: False where not all that a cell asks for was looked at (some probes only), so that a cell that looks
            clean is no evidence against an expectation: no `stale` is told.
    """
    active = [expectation for expectation in expectations if today <= expectation.expires]
    judged = tuple(_judged(cell, active, versions) for cell in cells)
    problems = []
    for expectation in expectations:
        selected = [cell for cell in cells if selects(expectation, cell, versions)]
        problems += _problems(expectation, selected, today, complete)
    return judged, tuple(problems)


def _judged(cell: Cell, active: Sequence[Expectation], versions: Versions) -> Cell:
    by = next((expectation for expectation in active if covers(expectation, cell, versions)), None)
    return cell.model_copy(
        update={
            "expected": by is not None,
            "expectation": by.id if by else "",
            "expectation_issue": by.issue if by else "",
            "expectation_expires": by.expires.isoformat() if by else "",
            "expectation_reason": by.reason if by else "",
        }
    )


def _problems(
    expectation: Expectation, selected: Sequence[Cell], today: date, complete: bool
) -> list[ExpectationProblem]:
    if not selected:
        return []
    if today > expectation.expires:
        return [_problem(expectation, "expired", _expired(expectation, selected, today))]
    others = [cell for cell in selected if not states(expectation, cell)]
    # a warning of another kind than the one that was stated is no news of a fix
    mismatched = [cell for cell in others if cell.verdict.is_deviation or cell.verdict is expectation.verdict]
    stale = [cell for cell in others if cell.verdict.is_clean and cell not in mismatched]
    problems = []
    if stale and complete:
        problems.append(_problem(expectation, "stale", _stale(expectation, stale, len(selected))))
    if mismatched:
        problems.append(_problem(expectation, "mismatch", _mismatch(expectation, mismatched)))
    return problems


def _problem(
    expectation: Expectation, problem: Literal["stale", "expired", "mismatch"], message: str
) -> ExpectationProblem:
    return ExpectationProblem(id=expectation.id, problem=problem, message=message)


def _expired(expectation: Expectation, selected: Sequence[Cell], today: date) -> str:
    still = [cell for cell in selected if states(expectation, cell)]
    step = (
        f"look at {expectation.issue}: set a later date if it is still open, mend the cells if it was fixed"
        if still
        else "remove the expectation: nothing that it selects deviates so any more"
    )
    cells = f": {_names(still)}" if still else ""
    return (
        f"expired on {expectation.expires} (today is {today}); of {_cells(len(selected))} that it selects, "
        f"{len(still)} {'shows' if len(still) == 1 else 'show'} {_stated(expectation)}{cells}. Next: {step}"
    )


def _stale(expectation: Expectation, stale: Sequence[Cell], selected: int) -> str:
    whole = len(stale) == selected
    step = "remove the expectation" if whole else "narrow it to the cells that still deviate"
    found = ", ".join(f"{cell.id} is {cell.verdict}" for cell in stale[:_SHOWN]) + _more(stale)
    return (
        f"{len(stale)} of {_cells(selected)} no longer {'deviates' if len(stale) == 1 else 'deviate'}: {found}; "
        f"expected: {_stated(expectation)}. A fix is good news. Next: {step} (and say so in {expectation.issue})"
    )


def _mismatch(expectation: Expectation, mismatched: Sequence[Cell]) -> str:
    shown = [
        f"{cell.id} is {cell.verdict}" + (f" ({', '.join(kinds)})" if (kinds := kinds_of(cell)) else "")
        for cell in mismatched[:_SHOWN]
    ]
    return (
        f"{_cells(len(mismatched))} {'deviates' if len(mismatched) == 1 else 'deviate'} otherwise than stated: "
        f"{', '.join(shown)}{_more(mismatched)}; expected: {_stated(expectation)}. Next: find out what changed; a "
        "deviation that is known needs an expectation that states it"
    )


def _stated(expectation: Expectation) -> str:
    return f"{expectation.verdict}" + (f" ({', '.join(expectation.kinds)})" if expectation.kinds else "")


def _cells(number: int) -> str:
    return "1 cell" if number == 1 else f"{number} cells"


def _names(cells: Sequence[Cell]) -> str:
    return ", ".join(cell.id for cell in cells[:_SHOWN]) + _more(cells)


def _more(cells: Sequence[Cell]) -> str:
    return f" and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else ""


def _any(globs: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in globs)


def _noted(rule: str | None, notes: Sequence[str]) -> bool:
    """True where a cell's notes are as an expectation wants them."""
    if rule is None:
        return True
    return any(fnmatchcase(note, rule.removeprefix("!")) for note in notes) is not rule.startswith("!")


def _admits(rule: str | list[str], environment: str, versions: Versions) -> bool:
    if isinstance(rule, list):
        return _any(rule, environment)
    return environment in versions and _condition(rule).holds(versions[environment])


_condition = functools.lru_cache(maxsize=1024)(requirements.parse)


def _condition_text(text: str) -> str:
    """The text if it is a condition whose every package has a specifier; ValueError where it is not.

    A bare word would be read as "has a package of that name", and is most likely an environment's name.
    """
    bare = [name for name, specifiers in _condition(text).parts if not len(specifiers)]
    if bare:
        raise ValueError(
            f"{bare[0]!r} has no version; write 'peft<0.7', or a list for environment names: ['{bare[0]}']"
        )
    return text


def _glob(text: str) -> str:
    """The text if it is a glob that can match something; ValueError where it can't."""
    if not text.strip() or text != text.strip():
        raise ValueError(f"{text!r} is no glob: it is empty, or has spaces around it")
    if text.count("[") != text.count("]"):
        raise ValueError(f"{text!r} is no glob: a bracket is not closed")
    return text
