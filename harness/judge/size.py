"""How bad a cell is, in one figure: the error ÷ allowance of what is said about it (pure).

Colour, order and every sentence of a report take it from here, so that they never show the size of one thing beside the
words about another.
"""

from __future__ import annotations

from harness.core.run import Cell, Figures, Finding
from harness.judge import causes, numbers

_LOSSES = ("lost-tensors", "layers-missing")
"""Ends of kinds without figures of their own: what was lost shows in the values."""


def shown(cell: Cell) -> Figures | None:
    """The figures to show of a cell: those of its main finding, or if it is clean, the greatest of all probes.

    None if the main finding is no difference of arrays: an error, a parameter that no longer trains.
    """
    if cell.verdict.is_clean:
        probes = (probe for probe in cell.probes.values() if probe.verdict.is_clean)
        every = (
            figures for probe in probes for figures in probe.figures if figures.is_size and not _is_beyond(figures)
        )
        return max(every, key=lambda figures: figures.ratio, default=None)
    main = causes.main_finding(cell)
    if main is None or causes.is_error(main):
        return None
    return main.figures or (_of_values(cell) if main.kind.endswith(_LOSSES) else None)


def _is_beyond(figures: Figures) -> bool:
    """True beyond the allowance: in a clean probe, another array than the golden's decided."""
    return figures.ratio > numbers.BELIEVED


def _of_values(cell: Cell) -> Figures | None:
    """The figures of the most important finding as bad as the cell that has some."""
    as_bad = (finding for finding in sorted(cell.findings, key=causes.importance) if _measured(finding, cell))
    return next((finding.figures for finding in as_bad), None)


def _measured(finding: Finding, cell: Cell) -> bool:
    return finding.verdict is cell.verdict and finding.figures is not None and finding.figures.is_size


def ratio(cell: Cell) -> float | None:
    """Error ÷ allowance of what is shown; None if that has no size (token ids have none)."""
    figures = shown(cell)
    return figures.ratio if figures is not None and figures.is_size else None
