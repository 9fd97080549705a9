"""What pytest collects: a scenario file, and in it a cell an item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from _pytest.outcomes import OutcomeException

from harness.core.errors import HarnessError
from harness.core.run import Cell
from harness.core.text import visible
from harness.core.verdict import Verdict
from harness.runner.plan import Planned

CELL_PROPERTY = "peft_regress_cell"
"""The property of a test's report that carries its cell as JSON from an xdist worker."""


class Checks(Protocol):
    """The part of the plugin that items use."""

    worker: bool
    """True in a process that yields cells to another one (xdist)."""

    def cells_of(self, file: Path) -> list[Planned]:
        """The planned cells of one scenario file."""

    def result(self, item: CellItem) -> Cell:
        """The cell of an item; waits for it."""

    def expected(self, cell: Cell) -> Cell:
        """The cell with the known break that it matches."""


class ScenarioCollector(pytest.File):
    """A file of scenarios; its items are the cells."""

    def __init__(self, *, check: Checks, **more: Any) -> None:
        super().__init__(**more)
        self.check = check

    def collect(self) -> Iterator[CellItem]:
        """One item a cell."""
        try:
            cells = self.check.cells_of(self.path)
        except HarnessError as error:
            raise self.CollectError(str(error)) from error
        yield from map(self.item, cells)

    def item(self, planned: Planned) -> CellItem:
        """The item of a cell."""
        # the id is passed as text: pytest 9.2 does not recognise one made from a name that ends in "]" for --lf
        node = f"{self.nodeid}::{planned.id}"
        return CellItem.from_parent(self, name=str(planned.id), nodeid=node, planned=planned)


class CellItem(pytest.Item):
    """One cell. It fails if the cell deviates and that is not a known break, or if it could not be judged."""

    def __init__(self, *, planned: Planned, **more: Any) -> None:
        super().__init__(**more)
        self.planned = planned
        scenario = planned.declared.scenario
        self.extra_keyword_matches.update(
            {scenario.family, planned.id.creator, planned.id.loader, scenario.adapter.config}
        )

    def listchain(self) -> list[pytest.Item | pytest.Collector]:  # type: ignore[override]
        """Without the folders above the file, so that `-k lora` does not match everything in `~/lora/`."""
        chain: list[Any] = super().listchain()
        return [node for node in chain if not isinstance(node, pytest.Directory)]

    def runtest(self) -> None:
        """Check the cell."""
        assert isinstance(self.parent, ScenarioCollector)
        check = self.parent.check
        cell = check.result(self)
        if check.worker:  # in one process the session passes cells on; thousands of them as text would use much memory
            self.user_properties.append((CELL_PROPERTY, json.dumps(cell.model_dump(mode="json"))))
        cell = check.expected(cell)
        if cell.verdict is Verdict.UNSUPPORTED:
            pytest.skip(cell.reason)
        if cell.expected:
            pytest.xfail(f"{cell.verdict}, a known break ({cell.expectation})")
        if cell.verdict.is_deviation or cell.verdict.cannot_tell:
            raise Deviation(cell)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **more: Any) -> Any:
        """The findings, not a traceback of ours."""
        if isinstance(excinfo.value, Deviation):
            return excinfo.value.text()
        if isinstance(excinfo.value, OutcomeException):  # a known break: where it was raised does not matter
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **more)

    def reportinfo(self) -> tuple[Path, None, str]:
        """The item's name in reports."""
        return self.path, None, self.name


class Deviation(Exception):
    """A cell that deviates, or could not be judged."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(f"{cell.id}: {cell.verdict}")
        self.cell = cell

    def text(self) -> str:
        """A few lines: what is wrong, and the command that reproduces it."""
        lines = [
            f"{self.cell.id}: {self.cell.verdict}",
            *([f"  {visible(self.cell.reason)}"] if self.cell.reason else []),
        ]
        lines += [f"  {f.probe}: {visible(f.message)}" for f in self.cell.findings[:6]]
        return "\n".join([*lines, f"  reproduce: {self.cell.reproduce}"])
