"""Measures blame and bisect on two known breaks, beside the least that they could cost.

    python -m benchmarks.search [CELL…] [--cold]

For each cell: seconds, environments built and cells run, and what can't be avoided: for blame both ends and one
environment between them, for bisect both ends and a halving of the releases between, each once. Ends are tried twice
(a flaky one is refused), which the least does not count. With `--cold` environments are built anew, of packages that
are in uv's cache; nothing is remembered in either case. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from harness.core import data

CELLS = ("lokr-alpha-differs@v061:current[cpu]", "lora-bias-all@v061:current[cpu]")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", metavar="CELL", default=CELLS, help=f"default: {' '.join(CELLS)}")
    parser.add_argument("--cold", action="store_true", help="build every environment anew")
    arguments = parser.parse_args()
    head = ("", "seconds", "environments built", "least", "cells run", "least")
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory(dir=data.cache() if arguments.cold else None, prefix="bench-") as folder:
        environ = dict(os.environ)
        if arguments.cold:
            environ |= {"PEFT_REGRESS_CACHE": folder, "UV_CACHE_DIR": str(data.cache() / "uv")}
        for cell in arguments.cells:
            rows.append(_row("blame", cell, folder, environ))
            rows.append(_row("bisect", cell, folder, environ))
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(part.ljust(width) if i == 0 else part.rjust(width)
                        for i, (part, width) in enumerate(zip(row, widths, strict=True))))  # fmt: skip
    return 0


def _row(command: str, cell: str, folder: str, environ: dict[str, str]) -> tuple[str, ...]:
    started = time.perf_counter()
    words = [sys.executable, "-m", "harness", command, cell, "--json", "-q", "--anew", "--reports", f"{folder}/reports"]
    words += ["--no-pin"] if command == "blame" else []
    done = subprocess.run(words, cwd=data.root(), env=environ, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{command} {cell} failed\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    spent = found["spent"]
    between = 1 if command == "blame" else math.ceil(math.log2(max(1, found["releases"] - 1)))
    print(f"{command} {cell}: {found['sentence']}", file=sys.stderr)
    return (
        f"{command} {cell}", f"{seconds:.1f}", str(spent["environments_built"]), str(between),
        str(spent["cells"]), str(between + 2),
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
