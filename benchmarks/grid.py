"""Measures what a cell costs in grids of many creators and loaders, side by side in one run.

    python -m benchmarks.grid [--fixtures DIR] [--creators v061,v0140] [--loaders current,v0140] [-k EXPRESSION]

Prints cells, seconds and seconds a cell, wall-clock and of all processors, for (i) every creator that has fixtures
under each one's newest loader, `current`, and (ii) rectangles of 1×1, 2×2, 4×4 … creators × loaders; and at the end the
ratio of the largest rectangle's cost a cell to the smallest's, the import of each loader left out: 1 is linear.
Environments are built first. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measured
from harness.core import data
from harness.envs.environments import CURRENT, Environments
from harness.runner.request import cores
from harness.store.fixtures import Store


@dataclass(frozen=True)
class Measured:
    """One run of `check`."""

    label: str
    loaders: int
    cells: int
    """Those that were computed: an unsupported one costs nothing."""
    wall_s: float
    cpu_s: float
    import_s: float

    @property
    def cpu_a_cell(self) -> float:
        """Processor seconds of a cell, without the loaders' imports."""
        return (self.cpu_s - self.import_s) / max(1, self.cells)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", type=Path, default=data.fixtures(), help="where fixtures are")
    parser.add_argument("--creators", help="names with commas between (default: all that have fixtures)")
    parser.add_argument("--loaders", help="names with commas between (default: current, then the creators)")
    parser.add_argument("-k", dest="keyword", help="only scenarios of which pytest's -k says so")
    arguments = parser.parse_args()
    creators = _names(arguments.creators) or Store(arguments.fixtures).creators()
    loaders = _names(arguments.loaders) or [CURRENT, *creators]
    environments = Environments(data.matrices())
    for name in loaders:
        environments.build(name)
    more = [f"--fixtures={arguments.fixtures.resolve()}", *(["-k", arguments.keyword] if arguments.keyword else [])]
    _check("", creators[:1], loaders[:1], more)  # warm: byte code, file cache
    found = [_check(f"{len(creators)} creators, {CURRENT}", creators, [CURRENT], more)]
    for size in _sizes(creators, loaders):
        found.append(_check(f"{size} × {size}", creators[:size], loaders[:size], more))
    _print(found)
    return 0


def _names(text: str | None) -> list[str]:
    return [name for name in (text or "").split(",") if name]


def _sizes(creators: list[str], loaders: list[str]) -> list[int]:
    """1, 2, 4 … and the largest square that there is."""
    largest = min(len(creators), len(loaders))
    return sorted({size for size in (1, 2, 4, 8, 16) if size < largest} | {largest})


def _print(found: list[Measured]) -> None:
    head = ("", "cells", "wall", "wall a cell", "processor", "of it imports", "a cell without imports")
    rows = [
        (
            m.label,
            str(m.cells),
            f"{m.wall_s:.1f} s",
            f"{m.wall_s / max(1, m.cells):.3f} s",
            f"{m.cpu_s:.1f} s",
            f"{m.import_s:.1f} s",
            f"{m.cpu_a_cell:.3f} s",
        )
        for m in found
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)))
    small, large = found[1], found[-1]
    print(f"{cores()} cores; a cell of {large.label} / one of {small.label}: {large.cpu_a_cell / small.cpu_a_cell:.2f}")


def _check(label: str, creators: list[str], loaders: list[str], more: list[str]) -> Measured:
    asked = [f"--creator={name}" for name in creators] + [f"--loader={name}" for name in loaders]
    ran, report = measured.check("--fresh", *asked, *more)
    cells = sum(cell.get("compute_s", 0.0) > 0 for cell in report["cells"])
    imports = sum(seconds for name, seconds in report["timings"].items() if name.startswith("import:"))
    return Measured(label, len(loaders), cells, ran.wall_s, ran.cpu_s, imports)


if __name__ == "__main__":
    sys.exit(main())
