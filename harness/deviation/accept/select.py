"""Which cells of a run the words of the command line mean, and whether they can be accepted. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from harness.core.errors import UsageError
from harness.core.run import Cell, Run
from harness.core.text import many, similar
from harness.core.verdict import Verdict
from harness.deviation.accept import expiry


@dataclass
class Named:
    """The cells that words on the command line mean."""

    cells: list[Cell] = field(default_factory=list)
    passed_over: list[Cell] = field(default_factory=list)
    """Further cells that a name or glob means, which need no known break."""


def named(run: Run, words: Iterable[str]) -> Named:
    """The cells to accept: the one with an id, or the unexplained deviations of a scenario or glob.

    Args:
        run: with the known breaks of now applied.

    Raises:
        UsageError: no such cell, or nothing there that could be accepted.
    """
    found = Named()
    open_ = {cell.id for cell in run.deviations}
    for word in words:
        meant = [cell for cell in run.cells if _means(word, cell)]
        if not meant:
            raise _unknown(run, word)
        exactly = meant[0].id == word
        taken = meant if exactly else [cell for cell in meant if cell.id in open_]
        for cell in taken if taken else meant:
            if not (cell.id in open_ or (taken and cell.verdict is Verdict.WARNED and not cell.expected)):
                raise _unacceptable(cell, run, "" if exactly else word, len(meant))
        found.cells += [cell for cell in taken if cell not in found.cells]
        found.passed_over += [cell for cell in meant if cell not in taken and cell not in found.passed_over]
    return found


def _means(word: str, cell: Cell) -> bool:
    pattern = word.replace("[", "[[]")  # an id ends with the device in brackets
    return word in (cell.id, cell.scenario) or fnmatchcase(cell.id, pattern) or fnmatchcase(cell.scenario, pattern)


def _unknown(run: Run, word: str) -> UsageError:
    known = list(dict.fromkeys([cell.scenario for cell in run.cells] + [cell.id for cell in run.cells]))
    close = similar(word, known) or [cell.id for cell in (run.deviations or run.cells)[:4]]
    return UsageError(
        f"run {run.id} has no cell {word!r}",
        f"a cell's id, a scenario's name or a glob, for example: {', '.join(close)}",
        "`peft-regress report RUN` lists what deviates; another run is given with --run",
    )


def _unacceptable(cell: Cell, run: Run, word: str, count: int) -> UsageError:
    """Why a cell can't be accepted; it is the first of several where a word means more than one."""
    of = f"nothing that {word!r} means is an unexplained deviation ({many(count, 'cell')}): " if word else ""
    if cell.expected:
        return UsageError(
            f"{of}{cell.id} is expected already, by {cell.expectation!r} {expiry.until(cell.expectation_expires)}",
            "a deviation that no known break covers",
            f"nothing to do; for another date: `peft-regress accept --renew {cell.expectation} --expires DATE`",
        )
    if cell.verdict is Verdict.WARNED:
        return UsageError(
            f"{of}{cell.id} is only warned, which fails a run under --strict alone",
            "a deviation", "give the cell's whole id to accept its warning, or a run of `check --strict`",
        )  # fmt: skip
    if cell.verdict.is_clean:
        return UsageError(
            f"{of}{cell.id} is {cell.verdict}: it does not deviate in run {run.id}",
            "a deviation; a known break of a cell that agrees would be stale at once",
            "name another cell, or the run in which it deviates with --run",
        )
    return UsageError(
        f"{of}{cell.id} is {cell.verdict}{f' ({cell.reason})' if cell.reason else ''}: it was not judged",
        "a deviation; only what was compared can be expected",
        f"`peft-regress show '{cell.id}'` says what to fix",
    )
