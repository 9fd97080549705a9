"""Shrinks the default configuration of architectures, builds each small model, runs it, and puts a LoRA on it.

Run by the interpreter of an environment, with this repository on its path and the architectures as arguments. Prints a
line of JSON for each: `{"architecture", "step", "said", "bytes"}`; the step is the first that failed, or `ok`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.own import inputs
from harness.own.shrink import GRAINS, Shrunk, shrink
from harness.own.vocabulary import Vocabulary

WORKER = Path(__file__).resolve().parents[3] / "harness" / "worker"
_LIMIT_S = 60
_TASKS = (
    "IMAGE_TEXT_TO_TEXT", "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "MASKED_LM", "IMAGE_CLASSIFICATION",
)  # fmt: skip
_SEQUENCES = ("SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM")


class Failed(Exception):
    """One step failed."""

    def __init__(self, step: str, error: Exception) -> None:
        super().__init__(step, error)
        self.step, self.error = step, error


def model_class(auto: Any, kind: str, config: Mapping[str, Any]) -> str:
    """The name of the class with the most usual task; of two towers side by side, the one with both."""
    towers = "text_config" in config and "vision_config" in config
    for task in (*(_SEQUENCES if config.get("is_encoder_decoder") else ()), *(_TASKS[:1] if towers else _TASKS)):
        found = getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES").get(kind)
        if found:
            return str(found if isinstance(found, str) else found[0])
    found = auto.MODEL_MAPPING_NAMES[kind]
    return str(found if isinstance(found, str) else found[0])


def worker_module(name: str) -> Any:
    """A module of the worker, imported as a worker process imports it."""
    if "worker" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "worker", WORKER / "__init__.py", submodule_search_locations=[str(WORKER)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules["worker"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["worker"])
    return importlib.import_module(f"worker.{name}")


def linear_names(torch: Any, model: Any) -> list[str]:
    """Last parts of names that only linear layers have; at most four, none that PEFT couples or refuses."""
    names: dict[str, set[bool]] = {}
    for one, module in model.named_modules():
        names.setdefault(one.rpartition(".")[2], set()).add(isinstance(module, torch.nn.Linear))
    refused = ("gate", "up_proj", "conv1d", *(["out_proj"] if "mamba" in model.config.model_type else []))
    linear = [one for one, kinds in names.items() if kinds == {True} and not any(word in one for word in refused)]
    return sorted(one for one in linear if not one.isdecimal())[:4]


def built(transformers: Any, kind: str, name: str, full: Mapping[str, Any]) -> tuple[Shrunk, Any]:
    """The small configuration, and its model."""
    first: Exception | None = None
    for grain in GRAINS:
        small = shrink(full, grain=grain)
        entries = {key: value for key, value in small.config.items() if key != "model_type"}
        entries["attn_implementation"] = "eager"
        try:
            return small, getattr(transformers, name)(transformers.AutoConfig.for_model(kind, **entries)).eval()
        except Exception as error:  # noqa: BLE001  # whatever the library raises
            first = first or error
    assert first is not None
    raise Failed("build", first)


def tried(kind: str) -> int:
    """Shrink, build and run one architecture; the bytes of its weights."""
    import peft
    import torch
    import transformers
    from transformers.models.auto import modeling_auto

    default = transformers.AutoConfig.for_model(kind)
    full = {**json.loads(json.dumps(default.to_dict(), default=str)), "model_type": kind}
    name = model_class(modeling_auto, kind, full)
    small, model = built(transformers, kind, name, full)
    size = sum(one.numel() * one.element_size() for one in model.parameters())
    step = "forward"
    try:
        tokens = Vocabulary(small.vocabulary, small.vocabulary)
        specs = inputs.of(small.config, name, tokens, {"peft_type": "LORA"}).specs
        bases = worker_module("model.bases")
        made = bases.to_tensors(torch, bases.make_inputs(specs, "base"), "float32", "cpu")
        with torch.no_grad():
            model(**made)
        step = "lora"
        targets = linear_names(torch, model)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=3, target_modules=targets, init_lora_weights=False))
        with torch.no_grad():
            adapted(**made)
    except Exception as error:
        raise Failed(step, error) from error
    return int(size)


def main(kinds: list[str]) -> None:
    """Try each architecture."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for kind in kinds:
        said: dict[str, Any] = {"architecture": kind, "step": "ok", "said": "", "bytes": 0}
        signal.alarm(_LIMIT_S)
        try:
            said["bytes"] = tried(kind)
        except Failed as failed:
            said |= {"step": failed.step, "said": f"{type(failed.error).__name__}: {failed.error}"[:300]}
        except KeyboardInterrupt:
            said |= {"step": "time", "said": f"more than {_LIMIT_S} s"}
        except Exception as error:  # noqa: BLE001
            said |= {"step": "default", "said": f"{type(error).__name__}: {error}"[:300]}
        signal.alarm(0)
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
