"""Measures the main job, side by side in one run.

    python benchmarks/regress.py [--runs N] [--sample N]

Prints the whole of `regress-v061` with warm environments; the loader's import alone; the sum of the scenarios' own
compute; the ratio of the whole to what can't be avoided (one import + compute ÷ cores); and, on a sample, the naive
way: a process a cell, each of which imports the libraries again; and the whole once more, with every observation
remembered. Figures are medians of the runs; nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.core import data
from harness.envs.environments import Environments
from harness.runner.request import cores

_CREATOR, _LOADER = "v061", "current"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--sample", type=int, default=4, help="cells of the naive way (default: 4)")
    arguments = parser.parse_args()
    loader = Environments(data.matrices()).build(_LOADER)
    _check([])  # warm: byte code, file cache
    wholes, computes, imports, cells = [], [], [], 0
    for _ in range(arguments.runs):
        seconds, report = _check([])
        wholes.append(seconds)
        computes.append(sum(cell.get("compute_s", 0.0) for cell in report["cells"]))
        cells = sum(cell.get("compute_s", 0.0) > 0 for cell in report["cells"])
        imports.append(_import(loader.python))
    ids = [cell["id"] for cell in report["cells"] if cell.get("compute_s")][:: max(1, cells // arguments.sample)]
    naive = [_check([f"--cell={one}"])[0] for one in ids[: arguments.sample]]
    again = [_check([], "--audit=0")[0] for _ in range(arguments.runs)]
    _print(cells, wholes, imports, computes, naive, again)
    return 0


def _print(
    cells: int, wholes: list[float], imports: list[float], computes: list[float], naive: list[float],
    again: list[float],
) -> None:  # fmt: skip
    whole, one_import, compute = (statistics.median(x) for x in (wholes, imports, computes))
    floor = one_import + compute / cores()
    each = statistics.median(naive)
    rows = [
        (f"whole of regress-v061, {cells} cells, warm environments", f"{whole:8.1f} s"),
        (f"import of {_LOADER} alone (torch, transformers, peft)", f"{one_import:8.1f} s"),
        ("compute of all scenarios, summed over the processes", f"{compute:8.1f} s"),
        (f"one import + compute / {cores()} cores", f"{floor:8.1f} s"),
        ("whole / (one import + compute / cores)", f"{whole / floor:8.2f}"),
        (f"a process a cell, median of {len(naive)}", f"{each:8.1f} s a cell"),
        (f"… so for {cells} cells on {cores()} cores, at best", f"{each * cells / cores():8.1f} s"),
        ("naive / whole", f"{each * cells / cores() / whole:8.1f}"),
        ("the same, remembered", f"{statistics.median(again):8.1f} s"),
        ("remembered / whole", f"{statistics.median(again) / whole:8.2f}"),
    ]
    width = max(len(label) for label, _ in rows)
    for label, figure in rows:
        print(f"{label:{width}}  {figure}")
    print(f"runs: {', '.join(f'{x:.1f}' for x in wholes)} s")


def _check(more: list[str], memory: str = "--fresh") -> tuple[float, dict[str, Any]]:
    """Run the main job; returns (seconds of the whole process, its report)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "harness", "check", "--creator", _CREATOR, "--loader", _LOADER, "-q", memory]
        started = time.perf_counter()
        done = subprocess.run([*command, "--reports", folder, *more], cwd=data.root(), capture_output=True, text=True)
        seconds = time.perf_counter() - started
        found = list(Path(folder).glob("*/report.json"))
        if not found:
            raise SystemExit(f"the check wrote no report\n{done.stderr[-2000:]}")
        report: dict[str, Any] = json.loads(found[0].read_text())
        return seconds, report


def _import(python: Path) -> float:
    started = time.perf_counter()
    subprocess.run([str(python), "-c", "import torch, transformers, peft"], check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
