"""Measures that the selection by executed code leaves nothing out: `python -m benchmarks.selection --changes 100`.

Makes changes of PEFT (a comparison turned round, another operator or constant, a statement that is gone) in functions
all over the package, and some at the level of modules and classes. For each, the cells are selected by what they
execute. Then every cell is replayed with all changes of functions at once that it was *not* selected for. It must
observe what it observes without them, to the bit. If it does not, the changes are halved until one is found that it
should have been selected for, and the exit code is 1.

The cells are one of each family. They get a trace where there is none.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.edits import Edit, edited, edits
from harness.core import observation
from harness.core.observation import Observed
from harness.core.run import Cell
from harness.core.scratch import scratch_folder
from harness.envs.environments import CURRENT, Environments
from harness.runner import CheckRequest, check, remembered
from harness.runner.alike import equal
from harness.runner.change import code_diff, files
from harness.runner.change.new_names import Package
from harness.runner.change.scope import REFERENCE
from harness.runner.checking import planned
from harness.runner.executed import Executed
from harness.runner.plan import Planned

HANDLER = Path(__file__).with_name("edited_cell.py")
_OF_MODULES = 0.1
"""The share of changes that are at the level of modules and classes."""
Select = Callable[[code_diff.Difference, Executed], object]


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        selected: for each change, the cells that were selected.
        missed: changes that a cell should have been selected for.
        edited: functions that were edited, in all cells.
    """

    cells: tuple[str, ...]
    selected: Mapping[Edit, frozenset[str]]
    missed: Mapping[str, Edit]
    edited: int

    def __str__(self) -> str:
        every = len(self.cells) * len(self.selected)
        some = sum(map(len, self.selected.values()))
        saved = f"{every - some:,} of {every:,} pairs of a change and a cell were left out ({1 - some / every:.0%})"
        checked = f"replayed with all of these at once, in {self.edited:,} edited functions"
        missed = "".join(f"\nMISSED: {cell} differs under {edit}" for cell, edit in self.missed.items())
        counts = f"{len(self.selected)} changes, {len(self.cells)} cells"
        return f"{counts}: {saved}; {checked}; {len(self.missed)} missed{missed}"


def measure(
    count: int, seed: int, environments: Environments, request: CheckRequest, cells: Sequence[Planned],
    select: Select = code_diff.Difference.met_by,
) -> Found:  # fmt: skip
    """Make changes, select cells by `select`, and replay each with what it was left out for."""
    built = environments.build(CURRENT)
    package = files.installed(built, "peft")
    assert package is not None
    plain = _observed(request, cells)
    traces = remembered.executed_of(cells, environments, request.places.store())
    texts = {name: package.text(name) for name in package.digests if name.endswith(".py")}
    every = edits(texts, count, round(count * _OF_MODULES), seed)
    selected = {edit: _selected(edit, texts[edit[0]], package, traces, select) for edit in every}
    names = {str(cell.id): cell for cell in cells if str(cell.id) in plain}
    left = {cell: [edit for edit in every if cell not in selected[edit] and _in_function(edit, texts[edit[0]])]
            for cell in names}  # fmt: skip
    now, functions = _replayed(left, names, request)
    missed = {}
    for cell in names:
        if not _same(plain[cell], now.get(cell)):
            missed[cell] = _first_missed(plain[cell], names[cell], left[cell], request)
    return Found(tuple(names), selected, missed, functions)


def _selected(
    edit: Edit, text: str, package: files.Installed, traces: Mapping[str, Executed], select: Select
) -> frozenset[str]:
    after = ast.unparse(edited(text, [edit])).encode()
    difference = code_diff.of_file(edit[0], text.encode(), after, Package(package.files, package.files))
    return frozenset(cell for cell, executed in traces.items() if select(difference, executed))


def _in_function(edit: Edit, text: str) -> bool:
    tree = ast.parse(text)
    place = list(ast.walk(tree))[edit[1]]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(each is place for node in functions for part in node.body for each in ast.walk(part))


def _replayed(
    edits_of: Mapping[str, Sequence[Edit]], cells: Mapping[str, Planned], request: CheckRequest
) -> tuple[dict[str, Observed], int]:
    """What cells observe with these edits, and how many functions had other code."""
    with scratch_folder() as folder:
        place = folder / "edits.json"
        place.write_text(json.dumps({cell.partition(":")[0]: some for cell, some in edits_of.items()}))
        os.environ["PEFT_REGRESS_EDITS"] = str(place)
        found = _observed(replace(request, worker_handler=HANDLER, each=True), list(cells.values()))
        count = sum(int(file.read_text()) for file in folder.glob("*.count"))
    return found, count


def _observed(request: CheckRequest, cells: Sequence[Planned]) -> dict[str, Observed]:
    found: dict[str, Observed] = {}

    def keep(cell: Cell) -> None:
        if cell.observed:
            found[cell.id] = observation.unpacked(cell.observed)

    check(request, cells, on_cell=keep)
    return found


def _same(one: Observed, other: Observed | None) -> bool:
    return other is not None and equal(one, other)


def _first_missed(plain: Observed, cell: Planned, some: Sequence[Edit], request: CheckRequest) -> Edit:
    """One of these edits under which the cell differs; it does under all together."""
    while len(some) > 1:
        half = some[: len(some) // 2]
        now, _ = _replayed({str(cell.id): half}, {str(cell.id): cell}, request)
        some = some[len(some) // 2 :] if _same(plain, now.get(str(cell.id))) else half
    return some[0]


def cells_of(request: CheckRequest, environments: Environments, count: int) -> list[Planned]:
    """One cell of each family."""
    found: dict[str, Planned] = {}
    for cell in planned(request, environments):
        found.setdefault(cell.declared.family, replace(cell, traced=True))
    return list(found.values())[:count]


def main() -> int:
    """Measure and print; 1 if a cell should have been selected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cells", type=int, default=40, help="at most so many (default: 40)")
    arguments = parser.parse_args()
    request = CheckRequest(creators=(REFERENCE,), observations=True, audit=0)
    environments = request.places.environments()
    cells = cells_of(request, environments, arguments.cells)
    found = measure(arguments.changes, arguments.seed, environments, request, cells)
    print(found)
    return int(bool(found.missed))


if __name__ == "__main__":
    sys.exit(main())
