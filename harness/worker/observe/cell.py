"""Does the work of one request: create a fixture's files, replay a fixture, or say what configurations amount to."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from typing import Any, Collection, Mapping

from ..compat import libraries, trl
from ..model import adapters, bases, wrappers
from ..serve import apart, devices, numerics
from ..shared import INPUTS, LAYER_INPUTS, NARROW, PRECISIONS, TRAINER, VISIBLE_GPUS
from . import identify, kernel_cost, key_conversion, probes, probes_declared, settings, sft, trace, warmup
from .capture import attempt
from .context import WORK_FOLDER, Context
from .recorder import Observation, read_arrays

_MADE = os.path.join(WORK_FOLDER, "made")


def preload(request: Mapping[str, Any]) -> dict[str, Any]:
    """Import the libraries, once for all cells, and what the cells' models need besides; returns facts of the process.

    Args:
        request: `preload`: names of classes of `transformers` whose modules the cells will use.
    """
    started = time.perf_counter()
    device = request.get("device", "cpu")
    if device == "cpu":
        os.environ[VISIBLE_GPUS] = ""  # libraries put tensors on a GPU that they see, asked or not
    import torch

    numerics.after_import(torch)
    import peft  # noqa: F401 - imported for all the cells that are to come
    import transformers

    for name in request.get("preload", ()):
        getattr(transformers, name, None)
    if TRAINER in request.get("preload", ()):
        trl.preload()
    gpu = devices.describe(torch, device) if device != "cpu" else None
    return {
        "import_s": round(time.perf_counter() - started, 3),
        "versions": libraries.versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _processor(),
        "threads": torch.get_num_threads(),
        "cuda": bool(gpu and gpu["usable"]),
        **({"gpu": gpu} if gpu else {}),
        "numerics": numerics.facts(),
    }


def warm_up() -> None:
    """Do once what each cell's process would do at first use; nothing where the libraries are not imported."""
    torch = sys.modules.get("torch")
    if torch is not None and "peft" in sys.modules:
        print("warmed up:", ", ".join(warmup.run(torch)) or "nothing")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("model name")]
        return lines[0].split(":", 1)[1].strip() if lines else platform.processor()
    except OSError:
        return platform.processor()


def handle(request: Mapping[str, Any]) -> None:
    """Do what is asked for in the request's scratch folder, which becomes the working directory."""
    import torch

    os.chdir(request["scratch"])
    if request["kind"] == "identify":
        identify.identify(request)
        return
    if request["scenario"]["base"].get("quantize"):
        numerics.exact_integers(torch)
    device = request.get("device", "cpu")
    devices.begin(torch, device)
    try:
        if request["kind"] == "create":
            create(torch, request)
        else:
            replay(torch, request, trace.PROBES if request["kind"] == "trace" else ())
    finally:
        shutil.rmtree(WORK_FOLDER, ignore_errors=True)
    devices.end(torch, device)


def is_sound(device: str) -> bool:
    """True where the process can go on with another cell: on the CPU always, as each has a process of its own."""
    torch = sys.modules.get("torch")
    return torch is None or devices.is_sound(torch, device)


def create(torch: Any, request: Mapping[str, Any]) -> None:
    """Make base and adapter, save both, reload them and observe them twice: `base/`, `adapter/`, `golden/`.

    The golden is observed of the *reloaded* adapter, by the same code as at replay: what differs later is the loader's.
    What the adapter computed before it was saved is kept beside it, so that a library that can't read back what it
    wrote is found out here.

    Args:
        request: with `stored`, `base/`, `adapter/` and the CPU's `golden/` are there already, and only observed: on
            another device, as a rule. What is made is made on the CPU, so that its bytes hang on no device.
    """
    if request.get("stored"):
        _create_of_stored(torch, request)
        return
    scenario = request["scenario"]
    specs = {**scenario["inputs"], **scenario.get("adapter_inputs", {})}
    inputs = bases.make_inputs(specs, scenario["base"]["name"])
    apart.run(lambda: _make(torch, scenario, inputs))
    observation = _made(scenario["name"])
    if observation.load["create"]["outcome"] == "ok":
        _observe_twice(torch, scenario, observation, inputs, "cpu")
        if wrappers.differ(scenario):
            observation.facts["wrap"] = _wrapped_otherwise(torch, scenario, inputs)
    observation.write("golden")


def _create_of_stored(torch: Any, request: Mapping[str, Any]) -> None:
    """The golden of a further device class, in the place of the CPU's."""
    scenario, device = request["scenario"], request.get("device", "cpu")
    stored = read_arrays("golden")
    inputs = _under(INPUTS, stored)
    shutil.rmtree("golden")
    observation = Observation(scenario["name"])
    observation.load["create"] = {"outcome": "ok"}
    _observe_twice(torch, scenario, observation, inputs, device)
    observation.timings.update(devices.peak_mb(torch, device))
    observation.write("golden")


def _observe_twice(torch: Any, scenario: Mapping[str, Any], observation: Observation, inputs: Any, device: str) -> None:
    layer_inputs: dict[str, Any] = {}
    observe(torch, scenario, observation, inputs, layer_inputs, device, creating=True)
    for name, value in layer_inputs.items():
        observation.array(LAYER_INPUTS + name, value)
    for name, value in inputs.items():
        observation.array(INPUTS + name, value)
    observation.facts["repeat"] = _repeated(torch, scenario, observation, inputs, {}, device, creating=True)
    if scenario["base"].get("quantize"):
        observation.facts["kernel_spread"] = _kernel_spread(torch, scenario, observation, inputs, device)


def _wrapped_otherwise(torch: Any, scenario: Mapping[str, Any], inputs: Any) -> dict[str, Any]:
    """What becomes of the checkpoint under the creator's own library in what it is to be loaded into."""
    context = Context(torch, scenario, Observation(scenario["name"]), "float32", inputs, {})
    with attempt("adapter") as tried:
        probes.account(context)
    return {**tried.as_dict(), "tensors": context.observation.facts.get("accounting", {}).get("tensors", {})}


def _make(torch: Any, scenario: Mapping[str, Any], inputs: Any) -> None:
    """Make and save base and adapter, and leave what was seen of it in a folder."""
    observation = Observation(scenario["name"])
    with attempt("base") as made:
        if scenario["base"]["kind"] == "hub":
            bases.save_mark(scenario["base"])
            bases.load(torch, scenario["base"])  # so that one that is not there is told here
        else:
            bases.save(bases.build(torch, scenario["base"]))
        if scenario["base"].get("quantize", {}).get("from") == "quantised":
            bases.store_quantised(torch, scenario["base"])
    if made.outcome == "ok":
        with attempt("adapter") as made:
            _save_adapter(torch, scenario, inputs, observation)
    observation.load["create"] = made.as_dict()
    observation.write(_MADE)


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays whose names begin with the prefix, without it."""
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def _made(name: str) -> Observation:
    """What `_make` saw, to be gone on with."""
    observation = Observation(name)
    with open(os.path.join(_MADE, "observation.json"), encoding="utf-8") as file:
        said = json.load(file)
    observation.load, observation.facts = said["load"], said["facts"]
    for array, value in read_arrays(_MADE).items():
        observation.array(array, value)
    return observation


def _save_adapter(torch: Any, scenario: Mapping[str, Any], inputs: Any, observation: Observation) -> None:
    torch.manual_seed(0)
    adapter_name = scenario["adapter"]["name"]
    adapters.save_experts(torch, scenario)
    base = wrappers.beneath(torch, bases.load(torch, scenario["base"]), scenario, "saved")
    context = Context(torch, scenario, observation, "float32", inputs, {}, creating=True)
    if scenario.get("sft"):
        model, computes, filled = sft.create(context)
    else:
        model, filled = adapters.create(torch, base, scenario)
        computes = model
    context.record("created", context.run(computes))
    observation.facts["created"] = {"filled": filled}
    wrapped = wrappers.around(torch, model, scenario, "saved")
    if wrapped is not model:
        os.makedirs(adapters.ADAPTER_FOLDER, exist_ok=True)  # TRL writes into it before PEFT makes it
    adapters.save(
        wrappers.what_saves(wrapped, model),
        adapters.ADAPTER_FOLDER,
        adapter_name,
        scenario["adapter"].get("convert", False),
    )
    _check_portable(adapters.ADAPTER_FOLDER)


def _check_portable(folder: str) -> None:
    here = os.getcwd()
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            with open(os.path.join(parent, name), "rb") as file:
                if here.encode() in file.read():
                    raise RuntimeError(f"{name} of the checkpoint holds a path of this machine ({here})")


def _repeated(
    torch: Any,
    scenario: Mapping[str, Any],
    first: Observation,
    inputs: Any,
    layer_inputs: dict[str, Any],
    device: str,
    creating: bool,
) -> dict[str, float]:
    """Run every probe again: array → greatest difference, for those that came out otherwise."""
    again = Observation(scenario["name"])
    observe(torch, scenario, again, inputs, layer_inputs, device, creating=creating)
    before, after = first.arrays(), again.arrays()
    observed = {name for name, _ in _probes_of(scenario)}
    return {
        name: _spread(before[name], after.get(name))
        for name in sorted(before)
        if name.split("/")[0] in observed and not name.startswith(LAYER_INPUTS)
        if _spread(before[name], after.get(name)) != 0.0
    }


def _spread(a: Any, b: Any) -> float:
    if b is None or a.shape != b.shape:
        return float("inf")
    if a.tobytes() == b.tobytes():
        return 0.0
    return float(abs(a.astype("float64") - b.astype("float64")).max())


def replay(torch: Any, request: Mapping[str, Any], only: Collection[str] = ()) -> None:
    """Load `base/` and `adapter/` and observe them: `now/`. Inputs are the golden's own.

    On a GPU twice: how far two runs are apart there is a part of what a replay may differ by.

    Args:
        only: these probes, and where each layer's input and parameters come from (`trace`).
    """
    scenario = request["scenario"]
    golden = read_arrays("golden")
    inputs = _under(INPUTS, golden)
    layer_inputs = _under(LAYER_INPUTS, golden)
    observation = Observation(scenario["name"])
    device = request.get("device", "cpu")
    asked = settings.Asked(torch, scenario, request.get("settings") or {}, device)
    if not asked.possible(observation):
        observation.write("now")
        return
    scenario = asked.scenario
    observe(torch, scenario, observation, inputs, layer_inputs, device, only=only)
    if not only:
        asked.observe(observation, inputs, layer_inputs, _observe_in)
    if only:
        trace.observe(Context(torch, scenario, observation, "float32", inputs, layer_inputs, device))
    elif device != "cpu":
        observation.timings.update(devices.peak_mb(torch, device))
        spread = _repeated(torch, scenario, observation, inputs, layer_inputs, device, creating=False)
        observation.facts["repeat"] = spread
    observation.write("now")


def observe(
    torch: Any,
    scenario: Mapping[str, Any],
    observation: Observation,
    inputs: Mapping[str, Any],
    layer_inputs: dict[str, Any],
    device: str = "cpu",
    creating: bool = False,
    only: Collection[str] = (),
) -> None:
    """Run every probe, or some, in both precisions; what can't be loaded in float64 in float32 alone, and says so."""
    for precision in PRECISIONS:
        _observe_in(Context(torch, scenario, observation, precision, inputs, layer_inputs, device, creating), only)


def _observe_in(context: Context, only: Collection[str] = ()) -> None:
    """Run the probes, or some of them, in one precision."""
    with bases.precision(context.torch, "float32" if context.precision in NARROW else context.precision):
        loads = _loads(context)
        if context.precision == "float32" and not context.creating and not only:
            key_conversion.observe(context)
        if loads:
            for name, probe in _probes_of(context.scenario):
                if not only or name in only:
                    _run_probe(context, name, probe)


def _kernel_spread(
    torch: Any, scenario: Mapping[str, Any], first: Observation, inputs: Any, device: str
) -> dict[str, Any]:
    """What other arithmetic costs a quantised base: the allowance of those who replay it."""
    fed = _under(LAYER_INPUTS, first.arrays())

    def context(observation: Observation, kinds: str) -> Context:
        return Context(torch, scenario, observation, "float32", inputs, fed, device, kernels=kinds)

    return kernel_cost.spreads(lambda made: _observe_in(made, kernel_cost.PROBES), context, first)


def _probes_of(scenario: Mapping[str, Any]) -> list[tuple[str, probes.Probe]]:
    """Every probe, then those that the scenario declares."""
    return [*probes.PROBES.items(), *probes_declared.of(scenario)]


def _loads(context: Context) -> bool:
    with attempt("base") as tried:
        context.base()
    if tried.outcome == "ok":
        with attempt("adapter") as tried_adapter:
            context.model()
        tried_adapter.duration_s += tried.duration_s
        tried_adapter.warnings[:0] = [w for w in tried.warnings if w not in tried_adapter.warnings]
        tried = tried_adapter
    context.observation.load[context.precision] = tried.as_dict()
    context.observation.timings[f"load/{context.precision}"] = round(tried.duration_s, 5)
    return tried.outcome == "ok"


def _run_probe(context: Context, name: str, probe: probes.Probe) -> None:
    skipped = context.scenario["skip"].get(name)
    if skipped:
        context.observation.probes.setdefault(name, {})[context.precision] = {"outcome": "skipped", "reason": skipped}
        return
    with attempt(name) as tried:
        probe(context)
    if tried.outcome == "error":
        context.drop_model()
    context.observation.probes.setdefault(name, {})[context.precision] = tried.as_dict()
    context.observation.timings[f"{name}/{context.precision}"] = round(tried.duration_s, 5)
