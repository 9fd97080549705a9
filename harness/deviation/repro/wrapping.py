"""Wrappers around the base or the adapted model, as Python (pure). The worker's `wrappers` describes each."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.deviation.repro.python_text import arguments
from harness.deviation.repro.subject import Side


@dataclass(frozen=True)
class Wrapping:
    """The wrappers between base and adapter, with the imports and helpers of all wrappers."""

    kinds: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    helpers: dict[str, tuple[str, ...]] = field(default_factory=dict)


def parts(side: Side) -> Wrapping:
    """The wrappers between base and adapter, with what all wrappers of the side need."""
    beneath, around = side.wrappers()
    found = Wrapping(tuple(beneath))
    for declared in (*beneath, *around):
        kind, _, name = declared.partition(":")
        found.helpers.update(_helpers(kind, name, side))
        found = Wrapping(found.kinds, (*found.imports, *_imports(kind, name, side)), found.helpers)
    return found


def expression(declared: str, inner: str) -> str:
    """The expression that puts a wrapper around the expression `inner`."""
    kind, _, name = declared.partition(":")
    return {
        "attribute": f"{_class(name)}({inner}).eval()",
        "delegating": f"{_class(name)}({inner}).eval()",
        "compile": f'torch.compile({inner}, backend="eager")',
        "data-parallel": f"torch.nn.DataParallel({inner})",
        "accelerate": f"hooked({inner})",
        "value-head": f"AutoModelForCausalLMWithValueHead.from_pretrained({inner}).eval()",
        "adapter": f"with_adapter_{name}({inner})",
    }[kind]


def _class(name: str) -> str:
    return f"Has{name.title().replace('_', '')}"


def _imports(kind: str, name: str, side: Side) -> tuple[str, ...]:
    if kind == "value-head":
        return (f"from {side.release.value_head_module} import AutoModelForCausalLMWithValueHead",)
    if kind == "accelerate":
        return ("from accelerate.hooks import AlignDevicesHook, add_hook_to_module, attach_execution_device_hook",)
    if kind == "adapter":
        return (f"from peft import get_peft_model, {side.scenario['wrap']['adapters'][name]['config']}",)
    return ("import torch",)


def _helpers(kind: str, name: str, side: Side) -> dict[str, tuple[str, ...]]:
    if kind in ("attribute", "delegating"):
        return {_class(name): _holder(name, kind == "delegating")}
    if kind == "accelerate":
        return {
            "hooked": (
                "def hooked(model):",
                '    attach_execution_device_hook(model, "cpu")',
                '    return add_hook_to_module(model, AlignDevicesHook("cpu", io_same_device=True), append=True)',
            )
        }
    if kind == "adapter":
        declared = side.scenario["wrap"]["adapters"][name]
        return {
            f"with_adapter_{name}": (
                f"def with_adapter_{name}(base):",
                f"    config = {declared['config']}({arguments(declared['args'])})",
                f'    model = get_peft_model(base, config, adapter_name="{name}")',
                "    for parameter in model.parameters():",
                "        if parameter.requires_grad:",
                "            values = torch.linspace(-0.5, 0.5, parameter.numel())",
                "            parameter.data.copy_(values.view_as(parameter))",
                "            parameter.requires_grad_(False)",
                "    return model",
            )
        }
    return {}


def _holder(name: str, delegates: bool) -> tuple[str, ...]:
    lines = [
        f"class {_class(name)}(torch.nn.Module):",
        "    def __init__(self, model):",
        "        super().__init__()",
        f"        self.{name} = model",
        "",
        "    def forward(self, *args, **kwargs):",
        f"        return self.{name}(*args, **kwargs)",
    ]
    if delegates:
        lines += [
            "",
            "    def __getattr__(self, wanted):",
            "        try:",
            "            return super().__getattr__(wanted)",
            "        except AttributeError:",
            f'            if wanted == "{name}":',
            "                raise",
            f'            return getattr(super().__getattr__("{name}"), wanted)',
        ]
    return tuple(lines)
