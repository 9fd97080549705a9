"""Does in a worker what `harness/worker/observe/cell.py` does there, with the fake library in place of torch and PEFT.

An adapter's arguments may hold `fault`: what the replay then does to its process, or to the numbers. `MINI_GPU` (JSON)
gives the machine a GPU: its facts, `drift` (how far its numbers are from the CPU's, as a share), `spread` (how far two
runs are apart), `fails` (what every probe says there).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

_ours = importlib.import_module("peft_regress_worker.observe.recorder")
_capture = importlib.import_module("peft_regress_worker.observe.capture")
minipeft: Any = None

PRECISIONS = ("float32", "float64")


def preload(request: dict[str, Any]) -> dict[str, Any]:
    """Imports the fake library, once for all cells."""
    global minipeft
    gpu = gpu_of(request)
    started = time.perf_counter()
    trace(f"start {os.getpid()}")
    minipeft = importlib.import_module("minipeft")
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {
        "import_s": round(time.perf_counter() - started, 3),
        "versions": found,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": "a fake one",
        "threads": 1,
        "cuda": bool(gpu and gpu["usable"]),
        **({"gpu": gpu} if gpu else {}),
    }


def gpu_of(request: dict[str, Any]) -> dict[str, Any]:
    """The fake GPU's facts; nothing on the CPU. One in MINI_BUSY (by what the process sees) is another's alone."""
    if request.get("device", "cpu") == "cpu":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    trace(f"sees {visible} {os.getpid()}")
    made = {"kind": "cuda", "usable": False, "why": "no GPU is visible", **json.loads(os.environ.get("MINI_GPU", "{}"))}
    if visible and visible in os.environ.get("MINI_BUSY", "").split(","):
        made.update(usable=False, why="RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable")
    return made


def trace(line: str) -> None:
    """Tells the test what is done, where it wants to know."""
    if os.environ.get("MINI_TRACE"):
        with Path(os.environ["MINI_TRACE"]).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def handle(request: dict[str, Any]) -> None:
    """Creates or replays, in the scratch folder."""
    os.chdir(request["scratch"])
    if request["kind"] == "identify":
        identify(request)
        return
    scenario = request["scenario"]
    trace(f"{request['kind']} {scenario['name']} {os.getpid()}")
    if request["kind"] == "create" and request.get("stored"):
        observe_stored(scenario, request)
    elif request["kind"] == "create":
        create(scenario)
    else:
        replay(scenario, request)


def identify(request: dict[str, Any]) -> None:
    """Says what the fake library makes of each configuration: `identities.json`."""
    found = {}
    for name in request["adapters"]:
        saved = json.loads(Path("adapters", name, "adapter", "adapter_config.json").read_text())
        with _capture.attempt("config") as tried:
            value = vars(minipeft.LowRankConfig.from_dict(saved))
        found[name] = repr((value, tried.warnings, tried.error))
    Path("identities.json").write_text(json.dumps(found | dict.fromkeys(request["bases"], "base")))


def create(scenario: dict[str, Any]) -> None:
    """Makes `base/`, `adapter/` and `golden/`."""
    observation = _ours.Observation(scenario["name"])
    inputs = make_inputs(scenario)
    with _capture.attempt("adapter") as made:
        weights = build(scenario["base"])
        Path("base").mkdir()
        save_file(weights, "base/base.safetensors")
        args = {key: value for key, value in scenario["adapter"]["args"].items() if key != "fault"}
        model = minipeft.get_model(weights, getattr(minipeft, scenario["adapter"]["config"])(**args))
        for name, tensor in model.tensors.items():
            tensor[...] = filled(f"{scenario['name']}/{name}", tensor.shape, scenario["fill"].get("*", [0.0, 1.0]))
        model.save("adapter")
    observation.load["create"] = made.as_dict()
    if made.outcome == "ok":
        layer_inputs: dict[str, Any] = {}
        observe(scenario, observation, inputs, layer_inputs)
        kept(observation, layer_inputs, inputs)
    observation.write("golden")


def kept(observation: Any, layer_inputs: dict[str, Any], inputs: dict[str, Any]) -> None:
    """What a golden holds besides what came out."""
    for name, value in layer_inputs.items():
        observation.array(f"layers/input/{name}", value)
    for name, value in inputs.items():
        observation.array(f"inputs/{name}", value)
    observation.facts["repeat"] = {}


def on_gpu(request: dict[str, Any]) -> Callable[[Any], Any] | None:
    """What the fake GPU makes of an output; None on the CPU."""
    gpu = gpu_of(request)
    if not gpu:
        return None
    if gpu.get("fails"):
        raise RuntimeError(gpu["fails"])
    drift, spread = float(gpu.get("drift", 0.0)), float(gpu.get("spread", 0.0))

    def spoilt(y: Any) -> Any:
        noise = np.random.default_rng().uniform(0.5, 1.0) * spread
        return y * (1 + drift if y.dtype == np.float32 else 1.0) + noise

    return spoilt


def observe_stored(scenario: dict[str, Any], request: dict[str, Any]) -> None:
    """A golden of the device, of the fixture's own files."""
    stored = _ours.read_arrays("golden")
    inputs = {name[len("inputs/") :]: value for name, value in stored.items() if name.startswith("inputs/")}
    observation = _ours.Observation(scenario["name"])
    observation.load["create"] = {"outcome": "ok"}
    layer_inputs: dict[str, Any] = {}
    observe(scenario, observation, inputs, layer_inputs, on_gpu(request))
    kept(observation, layer_inputs, inputs)
    observation.write("golden")


def replay(scenario: dict[str, Any], request: dict[str, Any]) -> None:
    """Loads `base/` and `adapter/` and observes them: `now/`."""
    fault = scenario["adapter"]["args"].get("fault", "")
    if fault in FAULTS:
        FAULTS[fault]()
    golden = _ours.read_arrays("golden")
    inputs = {name[len("inputs/") :]: value for name, value in golden.items() if name.startswith("inputs/")}
    prefix = "layers/input/"
    layer_inputs = {name[len(prefix) :]: value for name, value in golden.items() if name.startswith(prefix)}
    observation = _ours.Observation(scenario["name"])
    gpu = gpu_of(request)
    if gpu.get("fails"):
        observe(scenario, observation, inputs, layer_inputs, _raising(str(gpu["fails"])))
    else:
        observe(scenario, observation, inputs, layer_inputs, on_gpu(request) or SPOILS.get(fault))
    if gpu:
        observation.timings["gpu_peak_mb"] = 12.5
        again = _ours.Observation(scenario["name"])
        observe(
            scenario,
            again,
            inputs,
            layer_inputs,
            on_gpu({**request, "device": "cuda"}) if not gpu.get("fails") else None,
        )
        before, after = observation.arrays(), again.arrays()
        apart = {name: float(np.abs(before[name] - after[name]).max()) for name in before if name in after}
        observation.facts["repeat"] = {name: value for name, value in apart.items() if value}
    if request["kind"] == "trace":
        traced(observation, inputs["x"])
    if request.get("settings"):
        narrowed(observation, request["settings"])
    if fault == "converts":  # no fault at all: a library that converts names on loading
        observation.facts["conversion"] = {"views": CONVERSIONS}
    observation.write("now")


NARROWED = ("forward", "base", "layers", "merged", "merge_and_unload")


def narrowed(observation: Any, asked: dict[str, str]) -> None:
    """What it computes in a narrower type: its own numbers, rounded. MINI_NARROW is the share that they are off by."""
    if asked.get("attention"):
        observation.load["settings"] = {"outcome": "unsupported", "reason": "minipeft's bases have no attention"}
        return
    dtype, off, cost = asked["dtype"], float(os.environ.get("MINI_NARROW", 0.0)), {}
    for name, array in observation.arrays().items():
        probe, precision, rest = name.split("/", 2) if name.count("/") > 1 else (name, "", "")
        if probe in NARROWED and precision == "float64":
            observation.array(f"{probe}/{dtype}/{rest}", (array * (1 + off)).astype(np.float16).astype(np.float32))
            observation.probes[probe][dtype] = {"outcome": "ok"}
            cost[f"{probe}/{rest}"] = float(np.abs(array).max()) * 2.0**-11
    measured = {"reference": "float64", "cost": {"nearest": cost, "truncated": cost}, "unmeasured": []}
    observation.facts["settings"] = {
        "asked": asked, "dtype": dtype, "base": {"outcome": "ok"}, "overflows": [], **measured
    }  # fmt: skip


def traced(observation: Any, x: Any) -> None:
    """What each layer is given, and where its parameters come from."""
    if observation.load["float32"]["outcome"] != "ok":
        return
    context = Context(observation, "float32", x, {}, None)
    context.model.forward(context.x)
    stored = load_file("adapter/adapter_model.safetensors")
    layers: dict[str, Any] = {}
    for name, given, _ in context.model.seen:
        if name in context.model.config.targets:
            observation.array(f"trace/input/{name}", given)
            layers[name] = {
                "class": "Model",
                "scalars": {"scaling": float(context.model.scaling)},
                "parameters": [_row(key, value, stored) for key, value in context.model.tensors.items() if name in key],
            }
    observation.facts["trace"] = {"layers": layers, "order": list(layers)}


def _row(name: str, value: Any, stored: dict[str, Any]) -> dict[str, Any]:
    same = np.array_equal(value, stored[name])
    gap = float(np.abs(value.astype(np.float64) - stored[name]).max())
    found = "by value" if same else "by name"
    shape = list(value.shape)
    return {"name": name, "dtype": str(value.dtype), "shape": shape, "key": name, "max_abs": gap, "found": found}


def _raising(message: str) -> Callable[[Any], Any]:
    def spoilt(_y: Any) -> Any:
        raise RuntimeError(message)

    return spoilt


def is_sound(_device: str) -> bool:
    """False where the test says that every cell leaves the device in a bad state."""
    return not os.environ.get("MINI_POISON")


def build(base: dict[str, Any]) -> dict[str, Any]:
    """The base's weights: of a Python file's `build()`, or linear layers as declared."""
    if base["kind"] == "python":
        names: dict[str, Any] = {}
        exec(compile(base["source"], base["file"], "exec"), names)
        return dict(names["build"]())
    layers = {module["name"]: tuple(reversed(module["args"])) for module in base["modules"]}
    return {name: filled(f"{base['name']}/{name}", shape, [0.0, 0.8]) for name, shape in layers.items()}


def make_inputs(scenario: dict[str, Any]) -> dict[str, Any]:
    """The inputs as declared."""
    return {
        name: filled(f"{scenario['base']['name']}/inputs/{name}", spec["shape"], [0.0, 1.0])
        for name, spec in scenario["inputs"].items()
    }


def filled(name: str, shape: Any, recipe: list[float]) -> Any:
    """Numbers that belong to a name: around a centre, spread so far."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    centre, spread = recipe
    return (centre + spread * np.random.default_rng(seed).uniform(-1, 1, tuple(shape))).astype(np.float32)


class Context:
    """One scenario in one precision."""

    def __init__(self, observation: Any, precision: str, x: Any, layer_inputs: dict[str, Any], spoil: Any) -> None:
        self.observation, self.precision, self.layer_inputs = observation, precision, layer_inputs
        self.dtype = np.dtype(precision)
        self.x = x.astype(self.dtype)
        self.spoil = spoil or (lambda y: y)
        self.model = self.load()

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
        """Keeps an array."""
        self.observation.array(f"{probe}/{self.precision}/{name}", value.astype(self.dtype))

    def fact(self, probe: str, key: str, value: Any) -> None:
        """Keeps a fact of the pass in float32."""
        if self.precision == "float32":
            self.observation.facts.setdefault(probe, {})[key] = value


def observe(scenario: Any, observation: Any, inputs: Any, layer_inputs: dict[str, Any], spoil: Any = None) -> None:
    """Runs every probe in both precisions."""
    for precision in PRECISIONS:
        with _capture.attempt("adapter") as tried:
            context = Context(observation, precision, inputs["x"], layer_inputs, spoil)
        observation.load[precision] = tried.as_dict()
        if tried.outcome != "ok":
            continue
        for name, probe in PROBES.items():
            if name in scenario["skip"]:
                said = {"outcome": "skipped", "reason": scenario["skip"][name]}
            else:
                with _capture.attempt(name) as tried:
                    probe(context)
                said = tried.as_dict()
            observation.probes.setdefault(name, {})[precision] = said
        for name in scenario.get("doors", []):
            with _capture.attempt(f"door.{name}") as tried:
                through(context, name)
            observation.probes.setdefault(f"door.{name}", {})[precision] = tried.as_dict()


def through(context: Context, door: str) -> None:
    """What comes through a door: the output, and where each tensor of the checkpoint is."""
    if door not in DOORS:
        raise _capture.Skip(f"minipeft has no {door}")
    model = DOORS[door](context.base(), "adapter")
    model.tensors = context.cast(model.tensors)
    context.record(f"door.{door}", "output", context.spoil(model.forward(context.x)))
    context.fact(f"door.{door}", "tensors", found_in(model, context))


DOORS: dict[str, Callable[[Any, str], Any]] = {"low-cpu-mem": lambda *given: minipeft.load_sparingly(*given)}


def forward(context: Context) -> None:
    """The output, and what each layer gave."""
    context.record("forward", "output", context.spoil(context.model.forward(context.x)))
    context.record("forward", "sketch", np.stack([np.resize(y, 6) for _, _, y in context.model.seen]))
    kinds = [[n, "adapter" if n in context.model.config.targets else "block"] for n, _, _ in context.model.seen]
    context.fact("forward", "sketch", kinds)
    for name, x, _ in context.model.seen:
        if name in context.model.config.targets:
            context.layer_inputs.setdefault(name, x)


def layers(context: Context) -> None:
    """What the adapter adds in each layer, fed the golden's own input."""
    names = list(context.model.config.targets)
    for name in names:
        context.record("layers", name, context.model.effect(name, context.layer_inputs[name].astype(context.dtype)))
    context.fact("layers", "names", names)
    context.fact("layers", "missing", [])


def base(context: Context) -> None:
    """The base alone, and the adapter switched off."""
    for name in ("output", "disabled.output"):
        context.record("base", name, context.model.forward(context.x, enabled=False))


def accounting(context: Context) -> None:
    """Where each tensor of the checkpoint is in the loaded model."""
    context.fact("accounting", "tensors", found_in(context.model, context))


def found_in(model: Any, context: Context) -> dict[str, Any]:
    """Key of the checkpoint → where its values are."""
    here = {tensor.tobytes(): name for name, tensor in model.tensors.items()}
    found = {}
    for key, tensor in context.cast(load_file("adapter/adapter_model.safetensors")).items():
        at = here.get(tensor.tobytes())
        found[key] = {"found": "whole" if at else "nowhere", "at": [at] if at else []}
    return found


def structure(context: Context) -> None:
    """Names, shapes and types."""
    tensors = context.model.tensors
    context.fact("structure", "inference", {n: [list(t.shape), str(t.dtype), False] for n, t in tensors.items()})
    context.fact("structure", "trainable", sorted(tensors))


def merged(context: Context) -> None:
    """The output with the adapter in the base's weights."""
    weights = context.model.merged()
    plain = minipeft.Model(weights, context.model.config, context.model.tensors)
    context.record("merged", "output", context.spoil(plain.forward(context.x, enabled=False)))


def roundtrip(context: Context) -> None:
    """Saved again: the same keys, tensors, config and output?"""
    model = minipeft.load_adapter(context.base(), "adapter")
    model.save("saved")
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
    "accounting": accounting,
    "structure": structure,
    "merged": merged,
    "roundtrip": roundtrip,
}


# -- what a replay may do to itself ------------------------------------------------------------------------------------


def _loop() -> None:
    while True:
        pass


def _chatter() -> None:
    line = b"x" * (1 << 20)
    for _ in range(100):
        os.write(1, line)


def _garbage() -> None:
    for descriptor in range(3, 200):
        try:
            os.write(descriptor, b"Loading checkpoint shards\n")
        except OSError:
            continue


def _forge() -> None:
    """Writes what is no reply into every pipe that its parent holds."""
    folder = Path(f"/proc/{os.getppid()}/fd")
    for descriptor in folder.iterdir():
        if str(descriptor.readlink()).startswith("pipe:"):
            try:
                writer = os.open(descriptor, os.O_WRONLY | os.O_NONBLOCK)
                os.write(writer, b"Loading checkpoint shards\n")
            except OSError:
                continue
    time.sleep(60)


def _kill_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def _wait() -> None:
    """Until the test opens the gate."""
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
    "flaky": lambda y: y + np.random.default_rng().uniform(0.1, 1.0),
}
CONVERSIONS = [
    {"of": "base", "given": "Model", "keys": 2, "changed": 2, "examples": [["old.layer1", "layer1"]], "kept": [],
     "conversions": [["Renaming", ["^old"], [""], ""]]},
    {"of": "PEFT model", "given": "PeftModel", "keys": 2, "changed": 0, "examples": [], "kept": ["old.layer1"],
     "conversions": [["Renaming", ["^old"], [""], "base_model.model"]]},
    {"of": "wrapper", "given": "Wrapper", "keys": 2, "error": "AttributeError: base_model_prefix"},
]  # fmt: skip
