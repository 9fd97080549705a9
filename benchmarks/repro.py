"""How many deviating cells of a run can be shown outside of this project: `python -m benchmarks.repro RUN [--every N]`.

For each, `repro` writes a folder and runs its scripts in both environments. Counts what shows, and lists what does not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cli import main as cli
from harness.core import run_file
from harness.core.run import Cell


def cells(run: Path, every: int = 1) -> list[Cell]:
    """The deviating cells of a run, expected or not, of which every so many-th."""
    return [cell for cell in run_file.load(run).cells if cell.verdict.is_deviation][::every]


def tried(run: Path, chosen: Sequence[Cell], more: Sequence[str] = ()) -> Iterator[tuple[Cell, bool, str]]:
    """Each cell, whether its deviation shows in the scripts, and what was said."""
    with tempfile.TemporaryDirectory(prefix="peft-regress-") as folder:
        for place, cell in enumerate(chosen):
            out, err = io.StringIO(), io.StringIO()
            words = ["repro", cell.id, "--run", str(run), "--output", f"{folder}/{place}", "--json", *more]
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.main(words)
            said = json.loads(out.getvalue()) if out.getvalue().startswith("{") else {}
            yield cell, code == 0 and bool(said.get("shown")), said.get("why_not") or err.getvalue().strip()


def main() -> int:
    """Try them all; the exit code is 1 where one does not show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every so many-th deviating cell")
    parser.add_argument("-k", dest="keyword", default="", help="only cells whose id holds this")
    given = parser.parse_args()
    chosen = [cell for cell in cells(given.run, given.every) if given.keyword in cell.id]
    shown, begun = 0, time.monotonic()
    for cell, shows, said in tried(given.run, chosen):
        shown += shows
        word = "shows" if shows else f"DOES NOT SHOW ({said})"
        print(f"{cell.verdict}  {cell.id}  {word}", flush=True)
    print(f"{shown} of {len(chosen)} deviating cells show in the scripts; {time.monotonic() - begun:.0f} s")
    return 0 if shown == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
