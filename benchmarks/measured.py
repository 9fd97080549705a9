"""Runs a command of peft-regress and measures it: what the benchmarks share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import data


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it and its processes needed."""

    code: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    """Of its largest process."""
    said: str


def harness(*arguments: str) -> Ran:
    """Run a command of peft-regress."""
    return command([sys.executable, "-m", "harness", *arguments])


def command(words: list[str]) -> Ran:
    """Run any command, in the checkout."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(words, cwd=data.root(), stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        out.seek(0)
        said = out.read()
    return Ran(process.returncode, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said)


def check(*arguments: str) -> tuple[Ran, dict[str, Any]]:
    """Run a check; also returns its report.

    Raises:
        SystemExit: it wrote none.
    """
    with tempfile.TemporaryDirectory() as folder:
        ran = harness("check", "-q", f"--reports={folder}", *arguments)
        found = list(Path(folder).glob("*/report.json"))
        if not found:
            raise SystemExit(f"the check wrote no report\n{ran.said[-2000:]}")
        report: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8"))
    return ran, report
