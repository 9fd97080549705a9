"""The played GPU under the name `cuda`, so that the whole command line can use it: a handler for the worker."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from peft_regress_worker.observe import cell  # type: ignore[import-not-found]


def _played() -> Any:
    spec = importlib.util.spec_from_file_location("played_gpu", Path(__file__).with_name("played_gpu.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


played = _played()


def preload(request: dict[str, Any]) -> dict[str, Any]:
    """Import the libraries; on `cuda` say what the played GPU is."""
    if request["device"] == "cpu":
        return dict(cell.preload(request))
    facts = dict(played.preload({**request, "device": played.NAME}))
    gpu = {**facts["gpu"], "kind": "cuda", **({"free_mb": 300} if os.environ.get("PLAYED_SMALL") else {})}
    return {**facts, "gpu": gpu}


def handle(request: dict[str, Any]) -> Any:
    """Run a cell on the played GPU, or on the CPU."""
    return cell.handle(request) if request["device"] == "cpu" else played.handle({**request, "device": played.NAME})


def is_sound(device: str) -> Any:
    """True if the process may go on."""
    return cell.is_sound(device) if device == "cpu" else played.is_sound(played.NAME)
