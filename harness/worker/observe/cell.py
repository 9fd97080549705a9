"""The steps of one request: create a fixture's files, replay a fixture, or identify configurations.

What the steps need of the libraries is in `library.py`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from typing import Any, Callable, Collection, Mapping, Type

from ..compat import libraries
from ..model import adapters, bases, wrappers
from ..serve import apart, numerics
from ..shared import INPUTS, LAYER_INPUTS, PRECISIONS, Hello, Request
from . import kernel_cost, probes, trace
from .capture import attempt
from .context import WORK_FOLDER, Context
from .library import Library
from .recorder import Observation, read_arrays

_MADE = os.path.join(WORK_FOLDER, "made")

warm_up: Callable[[], None] = Library.warm_up
is_sound: Callable[[str], bool] = Library.is_sound


def preload(request: Hello, kind: Type[Library] = Library) -> dict[str, Any]:
    """Import the libraries once for all cells; returns facts of the process.

    Args:
        request: `preload`: names of classes of `transformers` whose modules the cells will use.
    """
    started = time.perf_counter()
    found = kind.preload(request)
    gpu = found.get("gpu")
    return {
        "import_s": round(time.perf_counter() - started, 3),
        "versions": libraries.versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _processor(),
        "threads": found["threads"],
        "cuda": bool(gpu and gpu["usable"]),
        **({"gpu": gpu} if gpu else {}),
        "numerics": numerics.facts(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("model name")]
        return lines[0].split(":", 1)[1].strip() if lines else platform.processor()
    except OSError:
        return platform.processor()


def handle(request: Request, kind: Type[Library] = Library) -> None:
    """Serve the request in its scratch folder, which becomes the working directory."""
    os.chdir(request["scratch"])
    if request["kind"] == "identify":
        kind.identify(request)
        return
    library = kind(request)
    library.begin()
    try:
        if request["kind"] != "create":
            replay(library, request, trace.PROBES if request["kind"] == "trace" else ())
        elif request.get("stored"):
            create_of_stored(library)
        else:
            create(library)
    finally:
        shutil.rmtree(WORK_FOLDER, ignore_errors=True)
    library.end()


def create(library: Library) -> None:
    """Make base and adapter, save both, reload them and observe them twice: `base/`, `adapter/`, `golden/`.

    The golden is observed of the *reloaded* adapter, by the same code as at replay: what differs later is due to the
    loader. What the adapter computed before it was saved is recorded too, as `created`: it is the standard where a
    library cannot read back what it wrote. An adapter that is given lies in `adapter/` already, and has no `created`.
    """
    scenario = library.scenario
    specs = {**scenario["inputs"], **scenario.get("adapter_inputs", {})}
    inputs = bases.make_inputs(specs, scenario["base"]["name"])
    apart.run(lambda: _make(library, inputs))
    observation = _made(scenario["name"])
    if observation.load["create"]["outcome"] == "ok":
        _observe_twice(library, observation, inputs)
        if observation.load["float32"]["outcome"] != "ok":
            _observe_without_reload(library, observation, inputs)
        elif wrappers.differ(scenario):
            observation.facts["wrap"] = _wrapped_otherwise(library, inputs)
    observation.write("golden")


def create_of_stored(library: Library) -> None:
    """Replace the CPU's golden by one of the cell's device; `base/` and `adapter/` are there already."""
    inputs = _under(INPUTS, read_arrays("golden"))
    shutil.rmtree("golden")
    observation = Observation(library.scenario["name"])
    observation.load["create"] = {"outcome": "ok"}
    _observe_twice(library, observation, inputs)
    observation.timings.update(library.peak_mb())
    observation.write("golden")


def _observe_twice(library: Library, observation: Observation, inputs: Mapping[str, Any]) -> None:
    layer_inputs: dict[str, Any] = {}
    observe(library, library.scenario, observation, inputs, layer_inputs, creating=True)
    for name, value in layer_inputs.items():
        observation.array(LAYER_INPUTS + name, value)
    for name, value in inputs.items():
        observation.array(INPUTS + name, value)
    observation.facts["repeat"] = _repeated(library, library.scenario, observation, inputs, {}, creating=True)
    library.as_saved(observation, inputs)
    if library.scenario["base"].get("quantize"):
        observation.facts["kernel_spread"] = _kernel_spread(library, observation, inputs)


def _observe_without_reload(library: Library, observation: Observation, inputs: Mapping[str, Any]) -> None:
    """The library cannot load what it saved: people have such files, so what can be observed of it is kept."""
    for precision in PRECISIONS:
        context = library.context(library.scenario, observation, precision, inputs, {}, creating=True)
        with context.in_precision():
            _run_probe(context, "base", probes.without_reload)


def _wrapped_otherwise(library: Library, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Where the checkpoint's tensors are under the creator's own library, in the model that it will be loaded into."""
    context = library.context(library.scenario, Observation(library.scenario["name"]), "float32", inputs, {})
    with attempt("adapter") as tried:
        probes.account(context)
    return {**tried.as_dict(), "tensors": context.observation.facts.get("accounting", {}).get("tensors", {})}


def _make(library: Library, inputs: Mapping[str, Any]) -> None:
    """Make and save base and adapter; write what was observed meanwhile to a folder of its own."""
    observation = Observation(library.scenario["name"])
    with attempt("base") as made:
        library.make_base()
    if made.outcome == "ok":
        with attempt("adapter") as made:
            library.make_adapter(inputs, observation)
            _check_portable(adapters.ADAPTER_FOLDER)
    observation.load["create"] = made.as_dict()
    observation.write(_MADE)


def _made(name: str) -> Observation:
    """The observation that `_make` began."""
    observation = Observation(name)
    with open(os.path.join(_MADE, "observation.json"), encoding="utf-8") as file:
        said = json.load(file)
    observation.load, observation.facts = said["load"], said["facts"]
    for array, value in read_arrays(_MADE).items():
        observation.array(array, value)
    return observation


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays whose names begin with the prefix, without it."""
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def _check_portable(folder: str) -> None:
    here = os.getcwd()
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            with open(os.path.join(parent, name), "rb") as file:
                if here.encode() in file.read():
                    raise RuntimeError(f"{name} of the checkpoint holds a path of this machine ({here})")


def _repeated(
    library: Library,
    scenario: Mapping[str, Any],
    first: Observation,
    inputs: Mapping[str, Any],
    layer_inputs: dict[str, Any],
    creating: bool,
) -> dict[str, float]:
    """Run every probe again; returns array → greatest difference, for arrays that differ."""
    again = Observation(scenario["name"])
    observe(library, scenario, again, inputs, layer_inputs, creating=creating)
    before, after = first.arrays(), again.arrays()
    observed = {name for name, _ in library.probes(scenario)}
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


def replay(library: Library, request: Request, only: Collection[str] = ()) -> None:
    """Load `base/` and `adapter/` and observe them on the golden's own inputs: `now/`.

    On a GPU twice: the difference between two runs there is part of the allowance.

    Args:
        only: observe these probes, and where each layer's input and parameters come from (`trace`).
    """
    golden = read_arrays("golden")
    inputs, layer_inputs = _under(INPUTS, golden), _under(LAYER_INPUTS, golden)
    observation = Observation(library.scenario["name"])
    asked = library.settings(request.get("settings") or {})
    if not asked.possible(observation):
        observation.write("now")
        return
    scenario = asked.scenario
    library.seed()
    observe(library, scenario, observation, inputs, layer_inputs, only=only)
    if only:
        for precision in PRECISIONS:
            library.trace(library.context(scenario, observation, precision, inputs, layer_inputs))
    else:
        _look_closer(library, scenario, observation, inputs, layer_inputs, golden)
        asked.observe(observation, inputs, layer_inputs, lambda context, some: _observe_in(library, context, some))
        if library.device != "cpu":
            observation.timings.update(library.peak_mb())
            spread = _repeated(library, scenario, observation, inputs, layer_inputs, creating=False)
            observation.facts["repeat"] = spread
    observation.write("now")


def _look_closer(
    library: Library,
    scenario: Mapping[str, Any],
    observation: Observation,
    inputs: Mapping[str, Any],
    layer_inputs: dict[str, Any],
    golden: Mapping[str, Any],
) -> None:
    """Look closer at layers that differ from the golden's. That it fails there is no result of the cell."""
    for precision in PRECISIONS:
        if observation.load.get(precision, {}).get("outcome") != "ok":
            continue
        context = library.context(scenario, observation, precision, inputs, layer_inputs)
        with attempt("closer") as tried, context.in_precision():
            library.look_closer(context, golden)
        if tried.outcome == "error":
            observation.facts.setdefault("closer", {})[f"failed_{precision}"] = tried.as_dict()


def observe(
    library: Library,
    scenario: Mapping[str, Any],
    observation: Observation,
    inputs: Mapping[str, Any],
    layer_inputs: dict[str, Any],
    creating: bool = False,
    only: Collection[str] = (),
) -> None:
    """Run every probe, or some, in both precisions; if float64 does not load, in float32 alone."""
    for precision in PRECISIONS:
        context = library.context(scenario, observation, precision, inputs, layer_inputs, creating)
        _observe_in(library, context, only)


def _observe_in(library: Library, context: Context, only: Collection[str] = ()) -> None:
    """Run the probes, or some of them, in one precision."""
    with context.in_precision():
        loads = _loads(context)
        if context.precision == "float32" and not context.creating and not only:
            library.conversion(context)
        if loads:
            for name, probe in library.probes(context.scenario):
                if not only or name in only:
                    _run_probe(context, name, probe)


def _kernel_spread(library: Library, first: Observation, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What other arithmetic costs a quantised base: the allowance for those who replay it."""
    fed = _under(LAYER_INPUTS, first.arrays())

    def context(observation: Observation, kinds: str) -> Context:
        return library.context(library.scenario, observation, "float32", inputs, fed, kernels=kinds)

    return kernel_cost.spreads(lambda made: _observe_in(library, made, kernel_cost.PROBES), context, first)


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
