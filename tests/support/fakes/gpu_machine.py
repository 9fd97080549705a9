#!/usr/bin/env python3
"""An interpreter and a peft-regress that only take their time: what `tools/gpu` starts, without any library.

FAKE_GPU is JSON: `gpu` is what the worker says of its GPU, or `hangs`, or `raises`; `packages` the installed ones;
`seconds` what each step takes; `codes` the exit code of a step; `cells` the reports' cells.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

SAID: dict[str, Any] = json.loads(os.environ.get("FAKE_GPU", "{}"))
GPU = {"usable": True, "name": "NVIDIA Fake", "capability": "9.0", "free_mb": 9000, "total_mb": 10000}


def main(argv: list[str]) -> int:
    """Answer as the interpreter (`-c`, the worker) or as peft-regress."""
    if argv[0] == "-c":
        print(json.dumps(SAID.get("packages", {"torch": "2.11.0", "bitsandbytes": "0.50.2"})))
        return 0
    if "--serve" in argv:
        return hello(SAID.get("gpu", {}))
    if argv[0] == "list":
        fixtures = [("lora-linear", "lora", ["v0100", "v061"]), ("vera-linear", "vera", ["v0200", "v0111"])]
        print(json.dumps([{"name": name, "family": family, "fixtures": stored} for name, family, stored in fixtures]))
        return 0
    return step(argv)


def hello(gpu: Any) -> int:
    """The worker's reply to its first request."""
    if gpu == "hangs":
        time.sleep(600)
    if gpu == "raises":
        print(json.dumps({"id": "hello", "outcome": "error", "detail": "…\nImportError: no torch"}))
    elif gpu != "dies":
        print(json.dumps({"id": "hello", "outcome": "done", "facts": {"gpu": {**GPU, **gpu}}}))
    return 0


def step(argv: list[str]) -> int:
    """One command: takes its seconds, then leaves a report with one cell."""
    name = Path(argv[argv.index("--reports") + 1]).name if "--reports" in argv else "create"
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    time.sleep(SAID.get("seconds", {}).get(name, 0.0))
    print(f"{name} is done")
    if "--reports" in argv:
        folder = Path(argv[argv.index("--reports") + 1]) / "run"
        folder.mkdir(parents=True)
        cell = {
            "id": f"lora-linear@v061:here[{name}]", "scenario": "lora-linear", "verdict": "close", "worst_ratio": 0.25,
            "gpu_peak_mb": 3.5, "compute_s": 0.5, "probes": {"forward": {"figures": [{"max_abs": 1e-7}]}},
            **SAID.get("cells", {}).get(name, {}),
        }  # fmt: skip
        report = {"sentence": f"NO NEW BREAKS in {name}.", "cells": [cell]}
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "report.html").write_bytes(os.urandom(SAID.get("bytes", 10)))
    else:
        Path(argv[argv.index("--fixtures") + 1]).mkdir(exist_ok=True)
    return int(SAID.get("codes", {}).get(name, 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
