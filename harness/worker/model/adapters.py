"""Creates, saves and loads adapters with the libraries' public functions."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping

from ..compat import libraries
from ..shared import canonical
from . import bases, fill

ADAPTER_FOLDER = "adapter"
EXPERTS_FOLDER = "adapter/experts"
"""For the adapters that the scenario's own consists of; inside the checkpoint, which cannot be loaded without them."""
_INITIAL_FOLDER = os.path.join("work", "initial")


def make_config(adapter: Mapping[str, Any]) -> Any:
    """The adapter's configuration object: from the class's name and its arguments, or read from the given files."""
    import peft

    if adapter.get("given"):
        config = peft.PeftConfig.from_pretrained(ADAPTER_FOLDER)
        config.inference_mode = False  # as it was when the adapter was trained
        return config
    return getattr(peft, adapter["config"])(**adapter["args"])


def wrap(base: Any, adapter: Mapping[str, Any]) -> Any:
    """A new adapter on a base model."""
    return libraries.new_adapter(base, make_config(adapter), adapter["name"])


def save_experts(torch: Any, scenario: Mapping[str, Any]) -> None:
    """Make and save the adapters that the scenario's own names by path, each with its own values."""
    for name, expert in scenario["adapter"].get("experts", {}).items():
        model = wrap(bases.load(torch, scenario["base"]), {**expert, "name": "default"})
        fill.fill_parameters(torch, trainable(model, "default"), f"adapter:{scenario['name']}:{name}")
        save(model, f"{EXPERTS_FOLDER}/{name}", "default")


def create(
    torch: Any, base: Any, scenario: Mapping[str, Any], look: Callable[[Any], None] | None = None
) -> tuple[Any, list[str]]:
    """The scenario's adapter on a base, filled and active, beside the one that `beside` declares.

    Args:
        look: gets the model in eval mode before another adapter is put beside it; not called if there is none.

    Returns:
        the model in eval mode and the canonical names of the parameters that were filled.
    """
    adapter = scenario["adapter"]
    model = wrap(base, adapter)
    if adapter.get("convert"):
        libraries.save_initial(model, _INITIAL_FOLDER, adapter["name"])
    filled = fill_adapter(torch, model, scenario, adapter["name"])
    if scenario.get("beside"):
        if look is not None:
            training = model.training
            look(model.eval())
            model.train(training)
        put_beside(torch, model, scenario, make_config(scenario["beside"]))
        model.set_adapter(adapter["name"])
    return model.eval(), filled


def put_beside(torch: Any, model: Any, scenario: Mapping[str, Any], config: Any, other: str = "beside") -> None:
    """Add another adapter, with values of its own, and make it the active one."""
    before = {id(parameter) for parameter in model.parameters()}
    model.add_adapter(other, config)
    model.set_adapter(other)
    # a part of the base may have the adapter's name, so the name alone does not tell what was added
    added = [(name, p) for name, p in model.named_parameters() if id(p) not in before and other in name.split(".")]
    names = [(canonical(name, (other,)), p) for name, p in added]
    fill.fill_parameters(torch, names, f"adapter:{scenario['name']}:{other}", scenario["fill"])


def restore_tables(torch: Any, model: Any) -> None:
    """Give a base the embedding and the head that a given adapter's file has of it, beside what was trained.

    PEFT saves them if they are targets, or if tokens were added, and old releases load them over the base's. So the
    user's base had these.
    """
    own, saved = dict(model.named_parameters()), libraries.load_adapter_tensors(ADAPTER_FOLDER)
    adapted = {key.rpartition(".lora_")[0] + ".weight" for key in saved if ".lora_" in key}
    with torch.no_grad():
        for key, value in saved.items():
            table = own.get(canonical(key).replace(".original_module.", "."))
            of_base = ".original_module." in key or ".base_layer." in key or key in adapted
            if of_base and key.endswith(".weight") and table is not None and table.shape == value.shape:
                table.copy_(value)


def trainable(model: Any, adapter_name: str) -> list[tuple[str, Any]]:
    """The parameters that training would change, by canonical name."""
    names = (adapter_name,)
    return [(canonical(name, names), p) for name, p in model.named_parameters() if p.requires_grad]


def fill_adapter(torch: Any, model: Any, scenario: Mapping[str, Any], adapter_name: str) -> list[str]:
    """Give every trainable parameter of the adapter its value; returns the canonical names.

    The base keeps its values, trainable or not: a head may be tied to them, and the adapter is loaded on the stored
    base.
    """
    parameters = [(name, p) for name, p in trainable(model, adapter_name) if not libraries.is_of_base(name)]
    return fill.fill_parameters(torch, parameters, f"adapter:{scenario['name']}", scenario["fill"])


def save(model: Any, folder: str, adapter_name: str, convert: bool = False) -> None:
    """Write the adapter as `save_pretrained` does by default, into `folder` for any adapter name.

    Args:
        convert: as plain LoRA, from the adapter that was saved before it was filled.
    """
    arguments: dict[str, Any] = {}
    if len(getattr(model, "peft_config", None) or ()) > 1:
        arguments["selected_adapters"] = [adapter_name]
    if convert:
        arguments["path_initial_model_for_weight_conversion"] = _INITIAL_FOLDER
    with libraries.without_hub():
        model.save_pretrained(folder, **arguments)
    nested = os.path.join(folder, adapter_name)
    if adapter_name != "default" and os.path.isdir(nested):
        for name in os.listdir(nested):
            os.replace(os.path.join(nested, name), os.path.join(folder, name))
        os.rmdir(nested)


def load(base: Any, adapter_name: str, folder: str = ADAPTER_FOLDER, is_trainable: bool = False) -> Any:
    """A saved adapter on a base model, through `PeftModel.from_pretrained`, in eval mode.

    The configuration is read first, so that an error in it is distinct.
    """
    import peft

    peft.PeftConfig.from_pretrained(folder)
    model = peft.PeftModel.from_pretrained(base, folder, adapter_name=adapter_name, is_trainable=is_trainable)
    model.eval()
    bases.realign(model)
    return model


def adapter_layers(model: Any, adapter_name: str) -> list[tuple[str, Any]]:
    """Every layer with an adapter, by canonical name, without layers inside it."""
    found: list[tuple[str, Any]] = []
    inside: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(prefix) for prefix in inside):
            continue
        if libraries.is_adapter_layer(module):
            found.append((canonical(name, (adapter_name,)), module))
            inside.append(name + ".")
    return found


def blocks(torch: Any, model: Any, adapter_name: str) -> list[tuple[str, Any]]:
    """The base's repeated blocks (members of a ModuleList), by canonical name."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList):
            for index, block in enumerate(module):
                found.append((canonical(f"{name}.{index}", (adapter_name,)), block))
    return found
