"""What creators and loaders are called in a report, in release order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.core.run import Run
from harness.judge.causes import Calendar


def creator_labels(run: Run) -> dict[str, str]:
    """Creator → its label, in release order."""
    calendar = Calendar(run)
    one = {cell.creator: cell for cell in run.cells}
    labels = {name: calendar.creators([cell]).bad[0] for name, cell in one.items()}
    return _in_order(labels, calendar.creators(run.cells).bad)


def loader_labels(run: Run) -> dict[str, str]:
    """Loader → its label, in release order."""
    calendar = Calendar(run)
    one = {cell.loader: cell for cell in run.cells}
    labels = {name: calendar.loaders([cell]).bad[0] for name, cell in one.items()}
    return _in_order(labels, calendar.loaders(run.cells).bad)


def _in_order(labels: Mapping[str, str], order: Sequence[str]) -> dict[str, str]:
    places = {label: place for place, label in enumerate(order)}
    return dict(sorted(labels.items(), key=lambda item: places[item[1]]))
