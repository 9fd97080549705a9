"""The context of a probe: the scenario, with its base and adapter loaded as often as the probe needs."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any, Callable, ContextManager, Mapping

from ..compat import libraries, settings
from ..model import adapters, bases, draws, quantised, wrappers
from ..model.copies import Copier, Snapshot
from ..shared import NARROW
from .capture import Overheard, Skip
from .recorder import Observation

WORK_FOLDER = "work"
"""For files that probes write and read again; removed when the cell is done."""


class Context:
    """One scenario in one precision.

    Attributes:
        precision: `float32` or `float64`; one of `NARROW` if a replay is asked for it.
        inputs: the inputs as tensors in that precision.
        layer_inputs: canonical layer name → the layer's input (float32) in the golden run; filled by the forward probe
            at creation, read from the golden at replay.
        kernels: which arithmetic a quantised base computes with: `own`; `arithmetic`, `truncated` or `scales` in
            bfloat16; `plain` (dequantised).
        as_saved: the base is loaded without a type, as users load one that is saved in a narrower type.
    """

    def __init__(
        self,
        torch: Any,
        scenario: Mapping[str, Any],
        observation: Observation,
        precision: str,
        inputs: Mapping[str, Any],
        layer_inputs: dict[str, Any],
        device: str = "cpu",
        creating: bool = False,
        kernels: str = "own",
        as_saved: bool = False,
    ) -> None:
        self.torch = torch
        self.scenario = scenario
        self.observation = observation
        self.precision = precision
        self.inputs = bases.to_tensors(torch, inputs, precision, device)
        self.layer_inputs = layer_inputs
        self.device = device
        self.creating = creating
        self.as_saved = as_saved
        self.quantize: Mapping[str, Any] = scenario["base"].get("quantize") or {}
        # float64 is dequantised: bitsandbytes has no kernel that computes in it
        self.kernels = "plain" if precision == "float64" else kernels
        # a golden is observed in the wrappers that the adapter was made in; those for loading may lose it
        self.wrapped = "saved" if creating else "loaded"
        self.adapter_name: str = scenario["adapter"]["name"]
        self._pristine: Any = None  # copies the base
        self._shared: Any = None
        self._loaded: Snapshot | None = None  # what `load` makes, as long as loading it again would make the same
        self._said = self._said_in_training = Overheard()
        self._drawn = 0
        self._is_proven = False
        self._trained: Any = None
        self._kept: dict[str, Any] = {}

    def base(self, when: str = "") -> Any:
        """A separate copy of the base as stored, in this precision and in the scenario's wrappers.

        Args:
            when: the wrappers for `saved` or `loaded`; the context's own if empty.
        """
        when = when or self.wrapped
        if self._pristine is None:
            self._pristine = Copier(self._loaded_base(), self.torch.Tensor)
        model = self._pristine.copy()
        if self.quantize:
            quantised.own(model)
            self._narrow(model)
        if not wrappers.is_wrapped(self.scenario, when):
            return model
        return self.cast(wrappers.beneath(self.torch, model, self.scenario, when))

    def _loaded_base(self) -> Any:
        if not self.quantize:
            return self.cast(bases.load(self.torch, {**self.scenario["base"], **self._dtype()}))
        # quantised layers are read, and dequantised, in the default dtype that every user has
        with bases.precision(self.torch, "float32"):
            model = bases.load_quantised(self.torch, self.scenario["base"], device=self.device)
            if self.kernels == "plain":
                model = quantised.dequantise(self.torch, model, self.quantize, self.precision)
        return model

    def _dtype(self) -> dict[str, Any]:
        """A narrow model is loaded in that type, as users do: what a library keeps in float32 stays in float32."""
        if self.as_saved:
            return {"as_saved": True}
        if self.precision in NARROW:
            return {"dtype": self.precision}
        return {"dtype": "float32"} if self.scenario["base"].get("saved_dtype") else {}

    def loading(self) -> dict[str, Any]:
        """The arguments that a user gives where a library loads the base itself."""
        base = self.scenario["base"]
        return {**base["load_with"], **settings.loading(self.torch, self._dtype())}

    def _narrow(self, model: Any) -> Any:
        if self.quantize and self.kernels not in ("own", "plain"):
            quantised.narrow(self.torch, model, self.kernels)
        return model

    def in_precision(self) -> ContextManager[None]:
        """Make its precision torch's default dtype inside; float32 for a narrow one."""
        return bases.precision(self.torch, "float32" if self.precision in NARROW else self.precision)

    def untouched(self) -> Any:
        """A loaded adapter that has not run: running a quantised layer may rearrange its weight."""
        return self.load() if self.quantize else self.model()

    def model(self) -> Any:
        """The loaded adapter, shared by probes that change nothing."""
        if self._shared is None:
            self._said, self._is_proven = Overheard(), False
            self._shared, drawn = draws.counted(self.torch, lambda: self._said.of(self.load))
            self._loaded, self._drawn = None, drawn or 0
            # on a GPU a load may draw from the device's generator, and running a quantised layer changes it
            is_plain = self.device == "cpu" and not self.quantize
            is_plain = is_plain and not wrappers.is_wrapped(self.scenario, self.wrapped)
            if is_plain and drawn is not None and self._said.is_all:
                with contextlib.suppress(Exception):  # what cannot be kept is loaded each time
                    self._loaded = Snapshot(self._shared, self.torch.Tensor)
        return self._shared

    def own_model(self) -> Any:
        """A loaded adapter for one probe, which may change it: a copy of what `load` made first, or loaded anew.

        It is a copy if two loads, for inference and for training, said the same and made the same tensors, though they
        drew other random numbers. The copy says the same too, and leaves the generator as a load does.
        """
        model = None
        if self._loaded is not None and self._trained is not None:
            with contextlib.suppress(Exception):  # a copy that fails is no result of the cell
                model = self._loaded.copy()
        if model is not None and not self._is_proven:
            said_alike = self._said.texts == self._said_in_training.texts
            self._is_proven = said_alike and _tensors_equal(self.torch, model, self._trained)
        if model is None or not self._is_proven:
            self._loaded = None if self._trained is not None else self._loaded
            return self.load()
        self._said.again()
        draws.draw(self.torch, self._drawn)
        bases.realign(model)
        return model

    def drop_model(self) -> None:
        """Forget the shared models after a probe raised: their state is unknown."""
        self._shared = self._trained = None

    def keep(self, what: str, model: Any) -> None:
        """Keep a model that a probe changed, for the probe that continues with it."""
        self._kept[what] = model

    def take(self, what: str, make: Callable[[], Any] | None = None) -> Any:
        """The kept model, once.

        Args:
            make: makes one if none is kept, since the probe before did not come that far.

        Raises:
            Skip: none is kept, and `make` is not given.
        """
        if what in self._kept:
            return self._kept.pop(what)
        if make is None:
            raise Skip(f"there is no model that was {what}")
        return make()

    def load(
        self,
        adapter_name: str | None = None,
        is_trainable: bool = False,
        folder: str = adapters.ADAPTER_FOLDER,
        base: Any = None,
    ) -> Any:
        """A freshly loaded adapter on a base; on a fresh one if none is given."""
        name = adapter_name or self.adapter_name
        base = self.base() if base is None else base
        # Random tensors of a method (VeRA's projections, say) are drawn in the default dtype, and float64 gives other
        # numbers for the same seed: both precisions take those of float32.
        with bases.precision(self.torch, "float32"):
            model = adapters.load(base, name, folder, is_trainable)
        return self._narrow(self.cast(model))  # up to PEFT 0.6 IA³ replaces the base's layers

    def load_for_training(self) -> Any:
        """An adapter whose parameters train, shared by the probes that only run it.

        Raises:
            Skip: prompt learning, which no release loads for training.
        """
        if libraries.is_prompt_learning(self.model()):
            raise Skip("PEFT does not load prompt learning adapters for training")
        if self._trained is None:
            self._said_in_training = Overheard()
            self._trained = self._said_in_training.of(lambda: self.load(is_trainable=True))
        return self._trained

    def cast(self, model: Any) -> Any:
        """The model in this precision, on the device."""
        if self.quantize and self.kernels != "plain":
            return model  # it is on the device, and moving a quantised model may quantise it again
        if self.precision == "float64":
            model = model.double()
        # not if it is there already: Accelerate warns about each move of a model with its hooks
        return model if self.device == "cpu" else model.to(self.device)

    def run(self, model: Any, disabled: bool = False) -> dict[str, Any]:
        """The model's compared outputs, without gradients.

        Args:
            disabled: its adapter is disabled, so that it takes the base's inputs.
        """
        with self.torch.no_grad():
            return self.run_with_gradients(model, disabled)

    def run_with_gradients(self, model: Any, disabled: bool = False) -> dict[str, Any]:
        """The model's compared outputs."""
        inputs = self.inputs_of_base() if disabled or not libraries.is_peft_model(model) else self.inputs
        called = model
        if libraries.is_peft_model(model) and wrappers.is_wrapped(self.scenario, self.wrapped):
            called = wrappers.around(self.torch, model, self.scenario, self.wrapped)
        return bases.outputs(bases.call(called, libraries.base_of(model), inputs), self.scenario["outputs"])

    def inputs_of_base(self) -> dict[str, Any]:
        """The inputs without those that only the adapter takes."""
        own = self.scenario.get("adapter_inputs", {})
        return {name: value for name, value in self.inputs.items() if name not in own}

    def folder(self, name: str) -> str:
        """A new, empty folder in the working directory; its name is fixed, since error messages quote it."""
        path = os.path.join(WORK_FOLDER, name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        return path

    def save_merged(self, plain: Any, folder: str) -> None:
        """Write a merged model."""
        if self.quantize and self.kernels != "plain":
            quantised.save(plain, folder, self.quantize)
        else:
            bases.save(plain, folder)

    def read_merged(self, folder: str) -> Any:
        """Read a merged model again; a quantised one as it was stored."""
        base = self.scenario["base"]
        if not self.quantize:
            return bases.load(self.torch, base, folder).to(self.device)
        if self.kernels == "plain":
            raise Skip("what is dequantised has no quantised form to be saved in")
        base = {**base, "quantize": {**self.quantize, "from": "quantised"}}
        return self._narrow(bases.load_quantised(self.torch, base, folder, device=self.device))

    def record(self, probe: str, tensors: Mapping[str, Any], prefix: str = "") -> None:
        """Record tensors under `probe/precision/`."""
        for name, tensor in tensors.items():
            self.observation.array(f"{probe}/{self.precision}/{prefix}{name}", tensor)

    def only_in_float32(self, why: str = "one precision says it") -> None:
        """Skip the probe in another precision."""
        if self.precision != "float32":
            raise Skip(why)

    def fact(self, probe: str, key: str, value: Any) -> None:
        """Record a fact of a probe (those of the float32 pass count)."""
        if self.precision == "float32":
            self.observation.facts.setdefault(probe, {})[key] = value


def _tensors_equal(torch: Any, one: Any, other: Any) -> bool:
    """True where two models have parameters and buffers of the same names, types and values."""

    def named(model: Any) -> dict[str, Any]:
        return dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])

    first, second = named(one), named(other)
    return set(first) == set(second) and all(
        value.dtype == second[name].dtype and torch.equal(value, second[name]) for name, value in first.items()
    )
