"""Wrappers around a model when its adapter is made or loaded; each puts a prefix into every parameter's name.

The list is from inside out. `peft` in it marks where the adapter is put: what comes after wraps the PeftModel.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ..compat import libraries
from ..shared import ADAPTER_PLACE, canonical
from . import fill

_RECORDED_MODULE = "peft_regress_worker.wrappers"
"""The module's name in fixtures: PEFT writes it into adapter_config.json (`parent_library`)."""

Wrapper = Callable[[Any, Any, str, Mapping[str, Any]], Any]


def beneath(torch: Any, base: Any, scenario: Mapping[str, Any], when: str) -> Any:
    """The base in the wrappers between it and its adapter.

    Args:
        when: `saved` or `loaded`.
    """
    return _put(torch, base, _split(scenario, when)[0], scenario)


def around(torch: Any, model: Any, scenario: Mapping[str, Any], when: str) -> Any:
    """The PeftModel in its wrappers; the model itself if there are none."""
    return _put(torch, model, _split(scenario, when)[1], scenario)


def is_wrapped(scenario: Mapping[str, Any], when: str = "") -> bool:
    """True if base or PeftModel is wrapped, `when` saved or loaded; at either time if `when` is empty."""
    return any(any(_split(scenario, time)) for time in ([when] if when else ["saved", "loaded"]))


def differ(scenario: Mapping[str, Any]) -> bool:
    """True if the adapter is loaded into other wrappers than it was made in."""
    return _split(scenario, "saved") != _split(scenario, "loaded")


def what_saves(wrapped: Any, model: Any) -> Any:
    """The model whose `save_pretrained` a user calls: the outermost that has it, else the PeftModel."""
    return wrapped if hasattr(wrapped, "save_pretrained") else model


def _split(scenario: Mapping[str, Any], when: str) -> tuple[list[str], list[str]]:
    kinds = list(scenario.get("wrap", {}).get(when, []))
    at = kinds.index(ADAPTER_PLACE) if ADAPTER_PLACE in kinds else len(kinds)
    return kinds[:at], kinds[at + 1 :]


def _put(torch: Any, model: Any, kinds: Sequence[str], scenario: Mapping[str, Any]) -> Any:
    for declared in kinds:
        kind, _, name = declared.partition(":")
        model = WRAPPERS[kind](torch, model, name, scenario)
    return model.eval() if kinds else model


def _attribute(torch: Any, model: Any, name: str, _: Mapping[str, Any]) -> Any:
    class Holder(torch.nn.Module):  # type: ignore[misc]
        """A plain module that has the model as an attribute and passes every call to it."""

        def __init__(self) -> None:
            super().__init__()
            setattr(self, name, model)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(self, name)(*args, **kwargs)

    Holder.__module__ = _RECORDED_MODULE
    return Holder()


def _delegating(torch: Any, model: Any, name: str, scenario: Mapping[str, Any]) -> Any:
    kind = type(_attribute(torch, model, name, scenario))

    class Delegate(kind):  # type: ignore[misc, valid-type]
        """Like Holder, and takes attributes that it lacks from the model: `config`, `generate`, …"""

        def __getattr__(self, wanted: str) -> Any:
            try:
                return super().__getattr__(wanted)
            except AttributeError:
                if wanted == name:
                    raise
                return getattr(super().__getattr__(name), wanted)

    Delegate.__module__ = _RECORDED_MODULE
    return Delegate()


def _compiled(torch: Any, model: Any, _: str, __: Mapping[str, Any]) -> Any:
    return libraries.compiled(torch, model)


def _data_parallel(torch: Any, model: Any, _: str, __: Mapping[str, Any]) -> Any:
    return torch.nn.DataParallel(model)


def _hooked(_: Any, model: Any, __: str, ___: Mapping[str, Any]) -> Any:
    """A model as `device_map` leaves it on one device: hooks replace its functions, names stay.

    The hooks are attached here, since `dispatch_model` warns of offloading if the only device is the CPU.
    """
    from accelerate import hooks

    device = next(model.parameters()).device
    hooks.attach_execution_device_hook(model, device)
    top = hooks.AlignDevicesHook(device, io_same_device=True)
    return hooks.add_hook_to_module(model, top, append=True)


def _value_head(_: Any, model: Any, __: str, ___: Mapping[str, Any]) -> Any:
    return libraries.value_head_class().from_pretrained(model)


def _adapter(torch: Any, model: Any, name: str, scenario: Mapping[str, Any]) -> Any:
    """A PeftModel of another adapter. It is not stored: its values follow from its names."""
    import peft

    declared = scenario["wrap"]["adapters"][name]
    wrapped = libraries.new_adapter(model, getattr(peft, declared["config"])(**declared["args"]), name)
    parameters = [(canonical(key, (name,)), p) for key, p in wrapped.named_parameters() if p.requires_grad]
    fill.fill_parameters(torch, parameters, f"wrap:{scenario['name']}:{name}")
    for _, parameter in parameters:
        parameter.requires_grad_(False)  # it is part of the base of the adapter under test
    return wrapped


WRAPPERS: dict[str, Wrapper] = {
    "attribute": _attribute,
    "delegating": _delegating,
    "compile": _compiled,
    "data-parallel": _data_parallel,
    "accelerate": _hooked,
    "value-head": _value_head,
    "adapter": _adapter,
}
