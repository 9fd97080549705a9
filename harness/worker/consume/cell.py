"""Serves the cells of a consumer: has its driver read base and adapter, and records what it computes and refuses.

`now/` gets log-probabilities of the next token after prompts from the golden's own inputs: `consumer/base` and
`consumer/adapter`, each (prompts, vocabulary). A prompt is the beginning of a row without padding.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Mapping

import numpy as np
from safetensors.numpy import load_file

from ..files import read_json
from ..observe.capture import attempt, normalise
from ..observe.recorder import Observation, read_arrays
from ..serve import numerics
from ..shared import CONSUMER, INPUTS, Hello, Request
from . import Refused, stage_of_error

PROMPTS = 8
"""Prompts of a cell, if its golden has that many positions."""
_WORK = "consumer-work"
_COPY = ".base_layer."
_SHOWN = 2000
_driver: list[Any] = []


def preload(request: Hello) -> dict[str, Any]:
    """Import the driver and what it needs; returns facts of the process.

    Args:
        request: `preload` is the driver: a module of this folder, or the path of a file.
    """
    started = time.perf_counter()
    driver = _imported(request["preload"][0])
    driver.preload()
    _driver[:] = [driver]
    return {
        "import_s": round(time.perf_counter() - started, 3),
        "versions": driver.versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cuda": False,
        "numerics": numerics.facts(),
    }


def _imported(name: str) -> Any:
    if not name.endswith(".py"):
        return importlib.import_module("." + name, __package__)
    spec = importlib.util.spec_from_file_location(__package__ + ".own_driver", name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def handle(request: Request) -> None:
    """Serve the request in its scratch folder, which becomes the working directory."""
    os.chdir(request["scratch"])
    if request["kind"] != "replay":
        raise ValueError(f"a consumer cannot {request['kind']}")
    observation = Observation(request["scenario"]["name"])
    try:
        _observe(_driver[0], observation, read_arrays("golden"))
    finally:
        shutil.rmtree(_WORK, ignore_errors=True)
    observation.write("now")


def _observe(driver: Any, observation: Observation, golden: Mapping[str, Any]) -> None:
    facts: dict[str, Any] = {"named": _named()}
    observation.facts[CONSUMER] = facts
    places = positions(golden, _end_tokens())
    facts["positions"] = [list(place) for place in places]
    ids = golden.get(INPUTS + "input_ids")
    prompts = [[int(token) for token in ids[row, : end + 1]] for row, end in places] if ids is not None else []
    if not prompts:
        return
    for name, adapter in (("base", None), ("adapter", os.path.abspath("adapter"))):
        work = os.path.abspath(os.path.join(_WORK, name))
        os.makedirs(work)
        if not _computed(driver, observation, name, (os.path.abspath("base"), adapter, prompts, work)):
            return
    with attempt("accounting") as tried:
        facts["accounted"] = driver.accounted(os.path.abspath("adapter"), work)
    observation.probes["accounting"] = {"float32": tried.as_dict()}


def _computed(driver: Any, observation: Observation, name: str, arguments: Any) -> bool:
    """Record what the driver computes; False if it refuses or fails."""
    facts = observation.facts[CONSUMER]
    with attempt(name) as tried:
        try:
            found = np.asarray(driver.log_probabilities(*arguments))
            observation.array(f"{CONSUMER}/{name}", found)
        except Refused as refusal:
            facts["refused"] = {"what": name, "stage": stage_of_error(), "text": _clean(str(refusal))}
    if tried.error is not None:
        tried.error["stage"] = stage_of_error() or name
    said = tried.as_dict()
    facts.setdefault("said", {})[name] = said.pop("warnings", [])
    observation.load["float32"] = said
    return tried.outcome == "ok" and "refused" not in facts


def _clean(text: str) -> str:
    return "\n".join(normalise(line) for line in text.splitlines() if line.strip())[:_SHOWN]


def positions(golden: Mapping[str, Any], ends: set[int], most: int = PROMPTS) -> list[tuple[int, int]]:
    """Rows with the index of their prompt's last token, where base and adapter both expect a token that is no end.

    Late positions come first, and each row has as many as the others. Rows with padding at their beginning have none.
    """
    ids, mask = golden.get(INPUTS + "input_ids"), golden.get(INPUTS + "attention_mask")
    logits = [golden[name] for name in ("forward/float32/logits", "base/float32/logits") if name in golden]
    if ids is None or ids.ndim != 2 or len(logits) < 2 or any(one.shape[:2] != ids.shape for one in logits):
        return []
    likeliest = [one.argmax(-1) for one in logits]
    found: list[tuple[int, int]] = []
    for back in range(ids.shape[1]):
        for row in range(ids.shape[0]):
            length = ids.shape[1] if mask is None else int((np.cumprod(mask[row]) != 0).sum())
            end = length - 1 - back
            if end >= 0 and not any(int(one[row, end]) in ends for one in likeliest) and len(found) < most:
                found.append((row, end))
    return found


def _end_tokens() -> set[int]:
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        value = _json(os.path.join("base", name)).get("eos_token_id")
        found.update(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int))
    return found


def _named() -> dict[str, Any]:
    """What a refusal can name: the adapter's tensors, its options and method, and the base's classes."""
    adapter, base = _json(os.path.join("adapter", "adapter_config.json")), _json(os.path.join("base", "config.json"))
    unset: tuple[Any, ...] = (None, False, "", "none", [], {})
    return {
        "tensors": _tensors("adapter", "base"),
        "options": sorted(name for name, value in adapter.items() if value not in unset),
        "method": str(adapter.get("peft_type", "")),
        "base": [str(one) for one in (*(base.get("architectures") or []), base.get("model_type", "")) if one],
    }


def _json(path: str) -> dict[str, Any]:
    try:
        found = read_json(Path(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tensors(adapter: str, base: str) -> list[str]:
    """The names of the adapter's tensors, without copies of the base's, which PEFT saves beside an embedding's adapter.

    None for a checkpoint that is not in the safetensors format.
    """
    path = os.path.join(adapter, "adapter_model.safetensors")
    own = load_file(path) if os.path.exists(path) else {}
    if any(_COPY in name for name in own):
        files = sorted(name for name in os.listdir(base) if name.endswith(".safetensors"))
        there = [tensor for name in files for tensor in load_file(os.path.join(base, name)).values()]
        return sorted(n for n, tensor in own.items() if _COPY not in n or not any(_equal(tensor, t) for t in there))
    return sorted(own)


def _equal(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape and (one == other).all())
