"""Breaks the real PEFT for one cell each: a handler for the worker (`--worker-handler`).

A cell runs in a forked child, so a break stays in it, and all of them share one import of the libraries. The variable
PEFT_REGRESS_MUTANTS holds JSON: `scenario@creator` → one of the functions of `sitecustomize.py` beside this file. A
creator that reloads its own fixture is never broken: it is what a trace compares with. `scenario@creator:LOADER` breaks
the cell under loaders whose names begin so, which is one side of a check of a change.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

_cell = importlib.import_module("peft_regress_worker.observe.cell")
_breaks: dict[str, str] = json.loads(os.environ["PEFT_REGRESS_MUTANTS"])

preload = _cell.preload
warm_up = _cell.warm_up
is_sound = _cell.is_sound


def handle(request: dict[str, Any]) -> None:
    """Break PEFT where this cell wants it, then do what the worker does."""
    cell = next((part for part in Path(request["scratch"]).parts if "@" in part), "")
    fixture, _, loader = cell.partition("[")[0].partition(":")
    name = _breaks.get(fixture) or next((_breaks[key] for key in _breaks if cell.startswith(key) and ":" in key), None)
    if name is not None and loader != fixture.partition("@")[2]:
        getattr(_mutants(), name)(importlib.import_module("peft"))
    _cell.handle(request)


def _mutants() -> Any:
    spec = importlib.util.spec_from_file_location("mutants", Path(__file__).with_name("sitecustomize.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
