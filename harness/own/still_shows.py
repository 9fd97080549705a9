"""Does the small scenario still show what the whole adapter showed? Compares two cells (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import ExitCode
from harness.core.run import Cell
from harness.judge.causes import KIND_PHRASES


@dataclass(frozen=True)
class Compared:
    """What is left in the small scenario.

    Attributes:
        exit_code: 0 if it shows the same, 1 if something was lost, 2 if it cannot be told.
        said: the result in sentences.
    """

    exit_code: ExitCode
    said: tuple[str, ...]


def compare(whole: Cell, small: Cell) -> Compared:
    """Compare the cell of the whole adapter with that of the small scenario."""
    for name, cell in (("the whole adapter", whole), ("the scenario", small)):
        if not cell.verdict.is_judged:
            why = cell.reason.strip().partition("\n")[0] or cell.verdict.meaning
            return Compared(ExitCode.CANNOT_TELL, (f"cannot tell: {name} was not compared ({cell.verdict}): {why}",))
    before, after = kinds(whole), kinds(small)
    lost = sorted(before - after)
    weaker = whole.verdict.is_deviation and small.verdict.severity > whole.verdict.severity
    if lost or weaker:
        return Compared(ExitCode.REGRESSED, tuple(_lost(whole, small, lost)))
    return Compared(ExitCode.CLEAN, tuple(_kept(whole, small, sorted(after - before))))


def kinds(cell: Cell) -> set[str]:
    """The kinds of a cell's deviations; an error with its type."""
    deviations = [one for one in cell.findings if one.verdict.is_deviation]
    return {f"{one.kind} {one.error_type}".strip() for one in deviations}


def _kept(whole: Cell, small: Cell, more: list[str]) -> list[str]:
    if not whole.verdict.is_deviation and not small.verdict.is_deviation:
        return [f"neither the whole adapter ({whole.verdict}) nor the scenario ({small.verdict}) shows a deviation"]
    if not whole.verdict.is_deviation:
        return [
            f"the whole adapter shows no deviation ({whole.verdict}); the scenario shows {small.verdict}{_listed(more)}"
        ]
    said = [f"still shows {whole.verdict}{_listed(sorted(kinds(whole)))}"]
    if small.verdict != whole.verdict or more:
        said.append(f"the scenario shows more: {small.verdict}{_listed(more)}")
    return said


def _lost(whole: Cell, small: Cell, lost: list[str]) -> list[str]:
    said = [f"lost in shrinking: the whole adapter shows {whole.verdict}, the scenario {small.verdict}"]
    said += [f"  gone: {kind} ({KIND_PHRASES.get(kind.split()[0], kind.split()[0])})" for kind in lost]
    if kept := sorted(kinds(whole) & kinds(small)):
        said.append(f"  still there:{_listed(kept)}")
    return [*said, "next: keep more of the model in bases/*.json (layers, widths), or of the adapter in the scenario"]


def _listed(found: list[str]) -> str:
    return f" ({', '.join(found)})" if found else ""
