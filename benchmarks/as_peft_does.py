"""Loads adapters and compares outputs in one process, as PEFT's own regression tests do. Runs in a loader's Python.

Each argument is a folder with `base`, `adapter` and `golden` and the class of the base: FOLDER:CLASS. Prints the
seconds of each, as JSON. What an adapter computes is compared once, with one tolerance for all.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file


def seconds(folder: Path, model: str) -> float | None:
    """Seconds to load and compare one adapter; None if that raises."""
    started = time.perf_counter()
    try:
        base = getattr(transformers, model).from_pretrained(folder / "base")
        adapted = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
        golden = load_file(folder / "golden" / "arrays.safetensors")
        inputs = {name.partition("/")[2]: value for name, value in golden.items() if name.startswith("inputs/")}
        with torch.inference_mode():
            found = adapted(**inputs)
        expected = golden.get("forward/float32/logits", golden.get("created/float32/logits"))
        if expected is not None:
            torch.allclose(found.logits, expected, atol=1e-4, rtol=1e-4)
    except Exception:  # noqa: BLE001 - an adapter that cannot be loaded has no cost to compare
        return None
    return time.perf_counter() - started


if __name__ == "__main__":
    places = [argument.rpartition(":") for argument in sys.argv[1:]]
    print(json.dumps([seconds(Path(folder), model) for folder, _, model in places]))
