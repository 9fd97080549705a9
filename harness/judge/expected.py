"""Which cells deviate as a known break says, and which breaks do not hold. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from typing import Literal

from harness.core.run import Cell, ExpectationProblem
from harness.core.text import enumerated
from harness.core.versions import FIRST_PACKAGES
from harness.judge import breaks, shape
from harness.judge.breaks import Break, Condition

Versions = Mapping[str, Mapping[str, str]]
"""Environment name → package → version."""
NOT_AS_KNOWN = "known break"
"""How the note of a cell begins that a break selects, but that deviates otherwise."""
_CONSUMER = "consumer-"
"""How the names of consumers' environments begin."""
_SHOWN = 8


def selects(condition: Condition, cell: Cell, versions: Versions) -> bool:
    """True if the condition is about the cell, whatever was found there.

    An environment without known versions (it failed to build) meets no version condition.
    """
    return (
        _any(condition.scenarios, cell.scenario)
        and (condition.devices is None or any(_any(condition.devices, name) for name in (cell.device, cell.place)))
        and admits(condition.creators, cell.creator, versions)
        and admits(condition.loaders, cell.loader, versions)
        and _noted(condition.noted, cell.notes)
    )


def states(condition: Condition, cell: Cell) -> bool:
    """True if the cell deviates as the condition says."""
    return not unlike(condition, cell)


def unlike(condition: Condition, cell: Cell) -> tuple[str, ...]:
    """How the cell deviates otherwise than the condition says, a sentence each; empty if it deviates as stated."""
    if cell.verdict is not condition.verdict:
        kinds = kinds_of(cell)
        return (f"it is {cell.verdict}" + (f" ({', '.join(kinds)})" if kinds else ""),)
    return shape.unlike(condition.lines, condition.size.get(cell.scenario, {}), cell)


def covers(known: Break, cell: Cell, versions: Versions) -> bool:
    """True if a condition of the break selects the cell and the cell deviates as stated. The date is ignored."""
    return any(selects(one, cell, versions) and states(one, cell) for one in known.condition)


def kinds_of(cell: Cell) -> list[str]:
    """Kinds of the findings that make the cell deviate, sorted; of a `warned` cell, those that warn."""
    return sorted({finding.kind for finding in shape.deviating(cell)})


def apply(
    cells: Sequence[Cell],
    there: Sequence[Break],
    versions: Versions,
    today: date,
    *,
    complete: bool = True,
) -> tuple[tuple[Cell, ...], tuple[ExpectationProblem, ...]]:
    """Mark the cells that deviate as known, and report the breaks that do not hold.

    A cell is covered by the first break that has not expired and states what the cell shows. Every condition must
    hold for all cells that it selects. A break that selects no cell of this run is not reported, and neither is a cell
    that could not be compared or is unsupported.

    Args:
        complete: False if only some probes were compared. A cell that looks clean is then no evidence against a
            break, so nothing is reported as `stale`.
    """
    active = [known for known in there if known.counts_on(today)]
    judged = tuple(_judged(cell, active, versions) for cell in cells)
    problems = []
    for known in there:
        selected = [(one, cell) for cell in cells for one in known.condition if selects(one, cell, versions)]
        problems += _problems(known, selected, today, complete)
    return judged, tuple(problems)


def _judged(cell: Cell, active: Sequence[Break], versions: Versions) -> Cell:
    by = next((known for known in active if covers(known, cell, versions)), None)
    notes = tuple(note for note in cell.notes if not note.startswith(NOT_AS_KNOWN))
    other = _not_as_known(cell, active, versions) if by is None and cell.verdict.is_deviation else ""
    return marked(cell.model_copy(update={"notes": (*notes, other) if other else notes}), by)


def marked(cell: Cell, by: Break | None) -> Cell:
    """The cell with the known break that covers it, if one does."""
    return cell.model_copy(
        update={
            "expected": by is not None,
            "expectation": by.id if by else "",
            "expectation_issue": by.issue if by else "",
            "expectation_expires": by.expires.isoformat() if by and by.expires else "",
            "expectation_reason": by.cause if by else "",
        }
    )


def _not_as_known(cell: Cell, active: Sequence[Break], versions: Versions) -> str:
    """How a cell differs from the known break that is nearest to it; empty if none selects it."""
    about = [
        (known.id, unlike(one, cell)) for known in active for one in known.condition if selects(one, cell, versions)
    ]
    if not about:
        return ""
    id, others = min(about, key=lambda pair: len(pair[1]))
    return f"{NOT_AS_KNOWN} `{id}`, but not as known: {enumerated(others, _SHOWN)}"


def _is_own(cell: Cell) -> bool:
    """True under the creator's own library, where what fails for the creator too is a standing defect: no evidence."""
    return cell.creator == cell.loader


_Selected = Sequence[tuple[Condition, Cell]]
"""Each condition of a break with each cell that it selects."""


def _problems(known: Break, selected: _Selected, today: date, complete: bool) -> list[ExpectationProblem]:
    if not selected:
        return []
    if not known.counts_on(today):
        return [_problem(known, "expired", _expired(known, selected, today))]
    others = [(one, cell) for one, cell in selected if not states(one, cell)]
    # a warning of another kind than the stated one is no sign of a fix
    mismatched = [(one, cell) for one, cell in others if cell.verdict.is_deviation or cell.verdict is one.verdict]
    stale = [
        (one, cell) for one, cell in others
        if cell.verdict.is_clean and (one, cell) not in mismatched and not _is_own(cell)
    ]  # fmt: skip
    problems = []
    if stale and complete:
        problems.append(_problem(known, "stale", _stale(known, stale, len(_cells_of(selected)))))
    if mismatched:
        problems.append(_problem(known, "mismatch", _mismatch(known, mismatched)))
    return problems


def _problem(known: Break, problem: Literal["stale", "expired", "mismatch"], message: str) -> ExpectationProblem:
    return ExpectationProblem(id=known.id, problem=problem, message=message)


def _expired(known: Break, selected: _Selected, today: date) -> str:
    still = _cells_of((one, cell) for one, cell in selected if states(one, cell))
    step = (
        f"check {known.issue}: set a later date if the break is still open, remove it if it was fixed"
        if still
        else "remove the break: none of its cells deviates any more"
    )
    shown = f": {_names(still)}" if still else ""
    return (
        f"expired on {known.expires} (today is {today}). {len(still)} of {_number(_cells_of(selected))} still "
        f"{'shows' if len(still) == 1 else 'show'} {_stated(selected)}{shown}. Next: {step}"
    )


def _stale(known: Break, stale: _Selected, selected: int) -> str:
    cells = _cells_of(stale)
    step = "remove the break" if len(cells) == selected else "narrow its conditions to the cells that still deviate"
    found = ", ".join(f"{cell.id} is {cell.verdict}" for cell in cells[:_SHOWN]) + _more(cells)
    return (
        f"{len(cells)} of {selected} {'cell' if selected == 1 else 'cells'} no longer "
        f"{'deviates' if len(cells) == 1 else 'deviate'}: {found}; expected: {_stated(stale)}. "
        f"It may have been fixed. Next: {step} (and say so in {known.issue})"
    )


def _mismatch(known: Break, mismatched: _Selected) -> str:
    cells = _cells_of(mismatched)
    said = {cell.id: unlike(one, cell) for one, cell in mismatched}
    shown = [f"{id}: {enumerated(others, _SHOWN)}" for id, others in list(said.items())[:_SHOWN]]
    return (
        f"a known break, but not as known: {_number(cells)} {'deviates' if len(cells) == 1 else 'deviate'} otherwise: "
        f"{'; '.join(shown)}{_more(cells)}; expected: {_stated(mismatched)}. Next: `peft-regress show '{cells[0].id}'` "
        f"to find out what changed; if it is the same break, `peft-regress accept --update {known.id}`"
    )


def _stated(pairs: _Selected) -> str:
    return " or ".join(dict.fromkeys(one.stated for one, _ in pairs))


def _cells_of(pairs: Iterable[tuple[Condition, Cell]]) -> list[Cell]:
    return list({cell.id: cell for _, cell in pairs}.values())


def _number(cells: Sequence[Cell]) -> str:
    return "1 cell" if len(cells) == 1 else f"{len(cells)} cells"


def _names(cells: Sequence[Cell]) -> str:
    return ", ".join(cell.id for cell in cells[:_SHOWN]) + _more(cells)


def _more(cells: Sequence[Cell]) -> str:
    return f" and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else ""


def _any(globs: Sequence[str], name: str) -> bool:
    return _fits(tuple(globs), name)


@functools.lru_cache(maxsize=1 << 16)  # a large run has few names, and asks of each once for every condition and cell
def _fits(globs: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in globs)


def _noted(rule: str | None, notes: Sequence[str]) -> bool:
    """True if a cell's notes are as a condition requires."""
    if rule is None:
        return True
    return any(fnmatchcase(note, rule.removeprefix("!")) for note in notes) is not rule.startswith("!")


def admits(rule: str | list[str], environment: str, versions: Versions) -> bool:
    """True if a condition's creators or loaders admit an environment.

    A consumer's must name it, or a package that only consumers have.
    """
    is_consumer = environment.startswith(_CONSUMER)
    if isinstance(rule, list):
        return _any([glob for glob in rule if not is_consumer or glob.startswith(_CONSUMER)], environment)
    condition = breaks.version_condition(rule)
    if is_consumer and all(package in FIRST_PACKAGES for package, _ in condition.parts):
        return False
    return environment in versions and condition.holds(versions[environment])
