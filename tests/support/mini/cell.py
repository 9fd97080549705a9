"""A handler for the worker: its own steps (`harness/worker/observe/cell.py`), with minipeft in place of torch and PEFT.

Adapter arguments may hold `fault`: what a replay does to its process, or to its numbers. `MINI_GPU` (JSON) gives the
machine a GPU: its facts, `drift` (how far its numbers are from the CPU's, as a share), `spread` (how far two runs
differ), `fails` (the error of every probe).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file


def _worker(name: str) -> Any:
    return importlib.import_module(f"peft_regress_worker.{name}")


_capture, _cell, _fill = (_worker(name) for name in ("observe.capture", "observe.cell", "model.fill"))
_Asked: Any = _worker("observe.settings").Asked
minipeft: Any = None

NARROWED = ("forward", "base", "layers", "merged", "merge_and_unload")
STORED = "adapter/adapter_model.safetensors"


def note(line: str) -> None:
    """Tell the test what the worker does, if it asks."""
    if os.environ.get("MINI_TRACE"):
        with Path(os.environ["MINI_TRACE"]).open("a", encoding="utf-8") as file:
            file.write(f"{line} {os.getpid()}\n")


def gpu_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The fake GPU's facts; empty on the CPU. A GPU in MINI_BUSY is in use by another process."""
    if request.get("device", "cpu") == "cpu":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    note(f"sees {visible}")
    made = {"kind": "cuda", "usable": False, "why": "no GPU is visible", **json.loads(os.environ.get("MINI_GPU", "{}"))}
    if visible and visible in os.environ.get("MINI_BUSY", "").split(","):
        made.update(usable=False, why="RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable")
    return made


class Library:
    """What the worker's steps need, done by minipeft; see `harness/worker/observe/library.py`."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.scenario = request["scenario"]
        self.device = request.get("device", "cpu")
        self.gpu = gpu_of(request)
        self.fault = self.scenario["adapter"]["args"].get("fault", "") if request["kind"] != "create" else ""
        note(f"{request['kind']} {self.scenario['name']}")

    @staticmethod
    def preload(request: dict[str, Any]) -> dict[str, Any]:
        """Import the fake library."""
        global minipeft
        gpu = gpu_of(request)
        note("start")
        minipeft = importlib.import_module("minipeft")
        return {"threads": 1, **({"gpu": gpu} if gpu else {})}

    @staticmethod
    def identify(request: dict[str, Any]) -> None:
        """Write what the fake library reads of each configuration."""
        found = {}
        for name in request["adapters"]:
            saved = json.loads(Path("adapters", name, "adapter", "adapter_config.json").read_text())
            with _capture.attempt("config") as tried:
                value = vars(minipeft.LowRankConfig.from_dict(saved))
            found[name] = repr((value, tried.warnings, tried.error))
        Path("identities.json").write_text(json.dumps(found | dict.fromkeys(request["bases"], "base")))

    def begin(self) -> None:
        """Break down here, if the scenario asks for it."""
        if self.fault in FAULTS:
            FAULTS[self.fault]()

    def seed(self) -> None:
        """Nothing is drawn."""

    def end(self) -> None:
        """Nothing is kept."""

    def peak_mb(self) -> dict[str, float]:
        """As a GPU would say."""
        return {"gpu_peak_mb": 12.5} if self.gpu else {}

    def make_base(self) -> None:
        """The weights of a Python file's `build()`, or of linear layers as declared."""
        base = self.scenario["base"]
        names: dict[str, Any] = {}
        if base["kind"] == "python":
            exec(compile(base["source"], base["file"], "exec"), names)
            weights = dict(names["build"]())
        else:
            layers = {module["name"]: tuple(reversed(module["args"])) for module in base["modules"]}
            weights = {name: _drawn(f"base:{base['name']}", name, shape) for name, shape in layers.items()}
        Path("base").mkdir()
        save_file(weights, "base/base.safetensors")

    def make_adapter(self, inputs: dict[str, Any], observation: Any) -> None:
        """A new adapter, filled and saved."""
        declared = self.scenario["adapter"]
        args = {key: value for key, value in declared["args"].items() if key != "fault"}
        model = minipeft.get_model(load_file("base/base.safetensors"), getattr(minipeft, declared["config"])(**args))
        for name, tensor in model.tensors.items():
            tensor[...] = _drawn(f"adapter:{self.scenario['name']}", name, tensor.shape, self.scenario["fill"])
        observation.array("created/float32/output", model.forward(inputs["x"]))
        observation.facts["created"] = {"filled": sorted(model.tensors)}
        model.save("adapter")

    def context(self, scenario: Any, observation: Any, precision: str, inputs: Any, layer_inputs: Any,
                creating: bool = False, **_: Any) -> Context:  # fmt: skip
        """The scenario in one precision."""
        return Context(scenario, observation, precision, inputs["x"], layer_inputs, creating, self.spoil)

    def spoil(self, y: Any) -> Any:
        """What becomes of an output on this machine."""
        if self.gpu.get("fails"):
            raise RuntimeError(self.gpu["fails"])
        if not self.gpu:
            return SPOILS.get(self.fault, lambda sound: sound)(y)
        noise = np.random.default_rng().uniform(0.5, 1.0) * float(self.gpu.get("spread", 0.0))
        return y * (1 + float(self.gpu.get("drift", 0.0)) if y.dtype == np.float32 else 1.0) + noise

    def probes(self, scenario: Any) -> list[tuple[str, Callable[[Context], None]]]:
        """Those below, and the load paths that the scenario declares."""
        paths = [(f"door.{name}", functools.partial(load_by, path=name)) for name in scenario.get("doors", [])]
        return [*PROBES.items(), *paths]

    def conversion(self, context: Context) -> None:
        """A library that converts names on loading; that is no fault at all."""
        if self.fault == "converts":
            context.observation.facts["conversion"] = {"views": CONVERSIONS}

    def look_closer(self, context: Context, golden: Any) -> None:
        """The fake library has nothing more to show."""

    def as_saved(self, observation: Any, inputs: Mapping[str, Any]) -> None:
        """No base here is saved in a narrow type."""

    def trace(self, context: Context) -> None:
        """Each layer's input, and where its parameters come from."""
        if context.observation.load["float32"]["outcome"] != "ok":
            return
        model, stored, layers = context.model(), load_file(STORED), {}
        model.forward(context.x)
        for name, given, _ in model.seen:
            if name in model.config.targets:
                context.observation.array(f"trace/input/{name}", given)
                rows = [_row(key, value, stored) for key, value in model.tensors.items() if name in key]
                layers[name] = {"class": "Model", "scalars": {"scaling": float(model.scaling)}, "parameters": rows}
        context.observation.facts["trace"] = {"layers": layers, "order": list(layers)}

    def settings(self, asked: dict[str, str]) -> Any:
        """The precision that a replay is asked for."""
        return Asked(None, self.scenario, asked, self.device)


class Asked(_Asked):  # type: ignore[misc]
    """Its numbers in a narrower type: the wide ones, rounded. MINI_NARROW is the share by which they are off."""

    def observe(self, observation: Any, *_: Any) -> None:
        """Only what is asked for."""
        if not self.dtype:
            return
        off, cost = float(os.environ.get("MINI_NARROW", 0.0)), {}
        for name, array in observation.arrays().items():
            probe, precision, rest = name.split("/", 2) if name.count("/") > 1 else (name, "", "")
            if probe in NARROWED and precision == "float64":
                narrow = (array * (1 + off)).astype(np.float16).astype(np.float32)
                observation.array(f"{probe}/{self.dtype}/{rest}", narrow)
                observation.probes[probe][self.dtype] = {"outcome": "ok"}
                cost[f"{probe}/{rest}"] = float(np.abs(array).max()) * 2.0**-11
        observation.facts["settings"] = {
            "asked": {"dtype": self.dtype}, "dtype": self.dtype, "base": {"outcome": "ok"}, "overflows": [],
            "reference": "float64", "cost": {"nearest": cost, "truncated": cost}, "unmeasured": [],
        }  # fmt: skip


preload = functools.partial(_cell.preload, kind=Library)
handle = functools.partial(_cell.handle, kind=Library)


def is_sound(_device: str) -> bool:
    """False if the test says that every cell leaves the device in a bad state."""
    return not os.environ.get("MINI_POISON")


def _drawn(space: str, name: str, shape: Any, *own: Any) -> Any:
    return _fill.values(space, name, shape, *own).astype(np.float32)


def _row(name: str, value: Any, stored: dict[str, Any]) -> dict[str, Any]:
    gap = float(np.abs(value.astype(np.float64) - stored[name]).max())
    row = {"name": name, "dtype": str(value.dtype), "shape": list(value.shape), "key": name, "max_abs": gap}
    return {**row, "found": "by value" if np.array_equal(value, stored[name]) else "by name"}


class Context:
    """One scenario in one precision."""

    def __init__(self, scenario: Any, observation: Any, precision: str, x: Any, layer_inputs: Any, creating: bool,
                 spoil: Callable[[Any], Any]) -> None:  # fmt: skip
        self.scenario, self.observation, self.precision, self.creating = scenario, observation, precision, creating
        self.layer_inputs, self.spoil, self.dtype = layer_inputs, spoil, np.dtype(precision)
        self.x = x.astype(self.dtype)
        self.model = functools.cache(self.load)

    def in_precision(self) -> contextlib.AbstractContextManager[None]:
        """NumPy has no default dtype."""
        return contextlib.nullcontext()

    def drop_model(self) -> None:
        """No probe changes the shared model."""

    def base(self) -> Any:
        """The base's weights in this precision."""
        return self.cast(load_file("base/base.safetensors"))

    def load(self, folder: str = "adapter") -> Any:
        """A loaded adapter in this precision."""
        model = minipeft.load_adapter(self.base(), folder)
        model.tensors = self.cast(model.tensors)
        return model

    def cast(self, tensors: Any) -> Any:
        """The tensors in this precision."""
        return {name: tensor.astype(self.dtype) for name, tensor in tensors.items()}

    def record(self, probe: str, name: str, value: Any) -> None:
        """Keep an array."""
        self.observation.array(f"{probe}/{self.precision}/{name}", value.astype(self.dtype))

    def fact(self, probe: str, key: str, value: Any) -> None:
        """Keep a fact of the pass in float32."""
        if self.precision == "float32":
            self.observation.facts.setdefault(probe, {})[key] = value


def load_by(context: Context, path: str) -> None:
    """The output by a load path, and where each tensor of the checkpoint is."""
    if path != "low-cpu-mem":
        raise _capture.Skip(f"minipeft has no {path}")
    model = minipeft.load_sparingly(context.base(), "adapter")
    model.tensors = context.cast(model.tensors)
    context.record(f"door.{path}", "output", context.spoil(model.forward(context.x)))
    context.fact(f"door.{path}", "tensors", found_in(model, context))


def forward(context: Context) -> None:
    """The output, and what each layer gave."""
    model = context.model()
    context.record("forward", "output", context.spoil(model.forward(context.x)))
    context.record("forward", "sketch", np.stack([np.resize(y, 6) for _, _, y in model.seen]))
    adapted = model.config.targets
    context.fact("forward", "sketch", [[n, "adapter" if n in adapted else "block"] for n, _, _ in model.seen])
    if context.creating and context.precision == "float32":
        context.layer_inputs.update({name: x for name, x, _ in model.seen if name in adapted})


def layers(context: Context) -> None:
    """What the adapter adds in each layer, fed the golden's own input."""
    model = context.model()
    for name in model.config.targets:
        context.record("layers", name, model.effect(name, context.layer_inputs[name].astype(context.dtype)))
    context.fact("layers", "names", list(model.config.targets))
    context.fact("layers", "missing", [])


def base(context: Context) -> None:
    """The base alone, and the adapter switched off."""
    for name in ("output", "disabled.output"):
        context.record("base", name, context.model().forward(context.x, enabled=False))


def found_in(model: Any, context: Context) -> dict[str, Any]:
    """Key of the checkpoint → where its values are."""
    here = {tensor.tobytes(): name for name, tensor in model.tensors.items()}
    found = {}
    for key, tensor in context.cast(load_file(STORED)).items():
        at = here.get(tensor.tobytes())
        found[key] = {"found": "whole" if at else "nowhere", "at": [at] if at else []}
    return found


def structure(context: Context) -> None:
    """Names, shapes and types."""
    named = context.model().tensors.items()
    context.fact("structure", "inference", {name: [list(t.shape), str(t.dtype), False] for name, t in named})
    context.fact("structure", "trainable", sorted(name for name, _ in named))


def merged(context: Context) -> None:
    """The output with the adapter in the base's weights."""
    model = context.model()
    plain = minipeft.Model(model.merged(), model.config, model.tensors)
    context.record("merged", "output", context.spoil(plain.forward(context.x, enabled=False)))


def roundtrip(context: Context) -> None:
    """Saved again: the same keys, tensors, config and output?"""
    minipeft.load_adapter(context.base(), "adapter").save("saved")
    before, after = (load_file(f"{folder}/adapter_model.safetensors") for folder in ("adapter", "saved"))
    changed = [key for key in before if key in after and not np.array_equal(before[key], after[key])]
    context.fact("roundtrip", "lost", sorted(set(before) - set(after)))
    context.fact("roundtrip", "added", sorted(set(after) - set(before)))
    context.fact("roundtrip", "changed", changed)
    for key, folder in (("config_before", "adapter"), ("config", "saved")):
        context.fact("roundtrip", key, json.loads(Path(folder, "adapter_config.json").read_text()))
    context.record("roundtrip", "output", context.spoil(context.load("saved").forward(context.x)))


PROBES: dict[str, Callable[[Context], None]] = {
    "forward": forward,
    "layers": layers,
    "base": base,
    "accounting": lambda context: context.fact("accounting", "tensors", found_in(context.model(), context)),
    "structure": structure,
    "merged": merged,
    "roundtrip": roundtrip,
}


# -- what a replay can do to itself ------------------------------------------------------------------------------------

_NO_REPLY = b"Loading checkpoint shards\n"


def _loop() -> None:
    while True:
        pass


def _chatter() -> None:
    for _ in range(100):
        os.write(1, b"x" * (1 << 20))


def _garbage() -> None:
    for descriptor in range(3, 200):
        with contextlib.suppress(OSError):
            os.write(descriptor, _NO_REPLY)


def _forge() -> None:
    """Write what is no reply into every pipe of the parent."""
    folder = Path(f"/proc/{os.getppid()}/fd")
    for descriptor in folder.iterdir():
        if str(descriptor.readlink()).startswith("pipe:"):
            with contextlib.suppress(OSError):
                os.write(os.open(descriptor, os.O_WRONLY | os.O_NONBLOCK), _NO_REPLY)
    time.sleep(60)


def _kill_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def _wait() -> None:
    """Wait until the test opens the gate."""
    while not Path(os.environ["MINI_GATE"]).exists():
        time.sleep(0.01)


def _raise() -> None:
    raise ValueError("a mistake of the harness")


FAULTS: dict[str, Callable[[], object]] = {
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sigsegv": lambda: ctypes.string_at(0),
    "exit0": lambda: os._exit(0),
    "loop": _loop,
    "chatter": _chatter,
    "garbage": _garbage,
    "forge": _forge,
    "kill-parent": _kill_parent,
    "wait": _wait,
    "raise": _raise,
}
SPOILS: dict[str, Callable[[Any], Any]] = {
    "nan": lambda y: y * np.nan,
    "inf": lambda y: np.where(y > 0, np.inf, y),
    "flaky": lambda y: y + np.random.default_rng().normal(size=y.shape),
}
CONVERSIONS = [
    {"of": "base", "given": "Model", "keys": 2, "changed": 2, "examples": [["old.layer1", "layer1"]], "kept": [],
     "conversions": [["Renaming", ["^old"], [""], ""]]},
    {"of": "PEFT model", "given": "PeftModel", "keys": 2, "changed": 0, "examples": [], "kept": ["old.layer1"],
     "conversions": [["Renaming", ["^old"], [""], "base_model.model"]]},
    {"of": "wrapper", "given": "Wrapper", "keys": 2, "error": "AttributeError: base_model_prefix"},
]  # fmt: skip
