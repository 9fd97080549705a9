"""What the steps of a cell (`cell.py`) need of torch, Transformers and PEFT. Tests of the steps replace it."""

from __future__ import annotations

import os
import sys
from typing import Any, Mapping

from ..compat import configurations, trl
from ..model import adapters, bases, tokenizer, wrappers
from ..process import VISIBLE_GPUS
from ..serve import devices, numerics
from ..shared import TRAINER, Hello, Request
from . import closer, further, identify, key_conversion, probes, probes_declared, settings, sft, trace, types, warmup
from .context import Context
from .recorder import Observation


class Library:
    """The libraries in one cell.

    Args:
        request: its `scenario` is made or loaded, and observed on its `device`. What is made is observed on the CPU.
    """

    def __init__(self, request: Request) -> None:
        import torch

        self.torch: Any = torch
        self.scenario: Mapping[str, Any] = request["scenario"]
        self.further = bool(request.get("further"))
        makes = request["kind"] == "create" and not request.get("stored")
        self.device: str = "cpu" if makes else request.get("device", "cpu")

    @staticmethod
    def preload(request: Hello) -> dict[str, Any]:
        """Import what all cells share; returns the number of threads, and the GPU if one is asked for."""
        device = request.get("device", "cpu")
        if device == "cpu":
            os.environ[VISIBLE_GPUS] = ""  # libraries put tensors on any GPU that they see
        import torch

        numerics.after_import(torch)
        import peft  # noqa: F401 - imported for all cells
        import transformers

        for name in request.get("preload", ()):
            getattr(transformers, name, None)
        if TRAINER in request.get("preload", ()):
            trl.preload()
        gpu = {"gpu": devices.describe(torch, device)} if device != "cpu" else {}
        return {"threads": torch.get_num_threads(), **gpu}

    @staticmethod
    def warm_up() -> None:
        """Do once what each cell's process would do at first use; nothing if the libraries are not imported."""
        torch = sys.modules.get("torch")
        if torch is not None and "peft" in sys.modules:
            print("warmed up:", ", ".join(warmup.run(torch)) or "nothing")

    @staticmethod
    def is_sound(device: str) -> bool:
        """True if the process can run another cell: always on the CPU, where each cell has its own process."""
        torch = sys.modules.get("torch")
        return torch is None or devices.is_sound(torch, device)

    @staticmethod
    def identify(request: Request) -> None:
        """Write `identities.json`."""
        identify.identify(request)

    def begin(self) -> None:
        """Prepare the device."""
        if self.scenario["base"].get("quantize"):
            numerics.exact_integers(self.torch)
        devices.begin(self.torch, self.device)

    def seed(self) -> None:
        """Draw the same numbers in each process, where a load draws a tensor at random.

        The seed is none that a fixture was made with: a tensor that is lost must not be drawn as it was.
        """
        self.torch.manual_seed(20261130)

    def end(self) -> None:
        """Release what the cell took of the device."""
        devices.end(self.torch, self.device)

    def peak_mb(self) -> dict[str, float]:
        """The device's greatest use of memory, for the timings."""
        return devices.peak_mb(self.torch, self.device)

    def make_base(self) -> None:
        """Make the base and save it: `base/`."""
        base = self.scenario["base"]
        if base["kind"] == "hub":
            bases.save_mark(base)
            bases.load(self.torch, base)  # a model that is not in the cache fails here
        else:
            model = bases.build(self.torch, base)
            if self.scenario["adapter"].get("given"):
                adapters.restore_tables(self.torch, model)
            bases.save(model)
            configurations.write_code(base, bases.BASE_FOLDER)
            if base.get("tokenizer"):
                tokenizer.write(bases.BASE_FOLDER, model.config.vocab_size)
        if base.get("quantize", {}).get("from") == "quantised":
            bases.store_quantised(self.torch, base)

    def make_adapter(self, inputs: Mapping[str, Any], observation: Observation) -> None:
        """Make the adapter on the saved base, record what it computes, and save it: `adapter/`.

        One that is given is there already. What it computed when it was saved is not known.
        """
        torch, scenario = self.torch, self.scenario
        if scenario["adapter"].get("given"):
            return
        torch.manual_seed(0)
        adapters.save_experts(torch, scenario)
        base = wrappers.beneath(torch, bases.load(torch, scenario["base"]), scenario, "saved")
        context = Context(torch, scenario, observation, "float32", inputs, {}, creating=True)
        if scenario.get("sft"):
            model, computes, filled = sft.create(context)
        else:
            # recorded before another adapter is put beside it: switching back from that may fail
            model, filled = adapters.create(
                torch, base, scenario, lambda alone: context.record("created", context.run(alone))
            )
            computes = model
        if not scenario.get("beside"):
            context.record("created", context.run(computes))
        observation.facts["created"] = {"filled": filled}
        wrapped = wrappers.around(torch, model, scenario, "saved")
        if wrapped is not model:
            os.makedirs(adapters.ADAPTER_FOLDER, exist_ok=True)  # TRL writes into it before PEFT makes it
        saves = wrappers.what_saves(wrapped, model)
        convert = scenario["adapter"].get("convert", False)
        adapters.save(saves, adapters.ADAPTER_FOLDER, scenario["adapter"]["name"], convert)

    def context(
        self,
        scenario: Mapping[str, Any],
        observation: Observation,
        precision: str,
        inputs: Mapping[str, Any],
        layer_inputs: dict[str, Any],
        creating: bool = False,
        kernels: str = "own",
    ) -> Context:
        """The scenario in one precision, on the cell's device."""
        return Context(
            self.torch, scenario, observation, precision, inputs, layer_inputs, self.device, creating, kernels
        )

    def probes(self, scenario: Mapping[str, Any]) -> list[tuple[str, probes.Probe]]:
        """Every probe, then those that the scenario declares, then the further ones if they are asked for."""
        asked = further.PROBES.items() if self.further else ()
        return [*probes.PROBES.items(), *probes_declared.of(scenario), *asked]

    def conversion(self, context: Context) -> None:
        """Record how the loader converts names."""
        key_conversion.observe(context)

    def look_closer(self, context: Context, golden: Mapping[str, Any]) -> None:
        """Record more of the layers that differ from the golden's."""
        closer.observe(context, golden)

    def as_saved(self, observation: Observation, inputs: Mapping[str, Any]) -> None:
        """Record the types of a base that is saved in a narrow type and loaded without one."""
        if self.scenario["base"].get("saved_dtype"):
            device, scenario = self.device, self.scenario
            types.observe_as_saved(
                Context(self.torch, scenario, observation, "float32", inputs, {}, device, creating=True, as_saved=True)
            )

    def trace(self, context: Context) -> None:
        """Record where each layer's input and parameters come from."""
        trace.observe(context)

    def settings(self, asked: Mapping[str, str]) -> settings.Asked:
        """The precision and attention that a replay is asked for."""
        return settings.Asked(self.torch, self.scenario, asked, self.device)
