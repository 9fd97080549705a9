"""The doors: every way in which a saved adapter gets into a model. The same output must come out of each.

A door is a function that gives the loaded model; what it raises is its outcome. The first of them, which all probes go
through, is `PeftModel.from_pretrained`, in `adapters.load`.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from typing import Any, Callable

from ..compat import doors, libraries
from ..model import adapters, bases, fill
from . import accounting
from .capture import Skip
from .context import Context

PREFIX = "door."
"""What stands before a door's name where it is a probe among others."""

Door = Callable[[Context], Any]


def walk_through(ctx: Context, name: str) -> None:
    """Load the adapter through a door; record what it computes, and where the checkpoint's tensors went."""
    probe = PREFIX + name
    with bases.precision(ctx.torch, "float32"):
        model = DOORS[name](ctx)
    model.eval()
    bases.realign(model)
    model = ctx.cast(model)
    ctx.record(probe, ctx.run(model))
    if ctx.precision == "float32":
        stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
        ctx.fact(probe, "tensors", accounting.account(ctx.torch, stored, model, ctx.adapter_name))


def auto(ctx: Context) -> Any:
    """`AutoPeftModelFor….from_pretrained`: it finds the base by the path in the checkpoint's own configuration."""
    import peft

    config = _config()
    _unless(doors.why_no_auto(config, ctx.base()))
    kind = getattr(peft, doors.auto_class_name(config))
    return kind.from_pretrained(_with_base(ctx), adapter_name=ctx.adapter_name, **ctx.scenario["base"]["load_with"])


def transformers_load(ctx: Context) -> Any:
    """Transformers' own `model.load_adapter(folder)`."""
    model = ctx.base()
    _unless(doors.why_no_load_adapter(_config(), model))
    model.load_adapter(adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name)
    return model


def transformers_auto(ctx: Context) -> Any:
    """Transformers' `AutoModelFor….from_pretrained(folder of the adapter)`."""
    base = ctx.base()
    _unless(doors.why_no_load_adapter(_config(), base))
    kind = doors.auto_class(base)
    return kind.from_pretrained(_with_base(ctx), **ctx.scenario["base"]["load_with"])


def inject(ctx: Context) -> Any:
    """`inject_adapter_in_model`, then `set_peft_model_state_dict`: what libraries do that bring no PeftModel."""
    import peft

    config = _config()
    _unless(doors.why_no_inject(config))
    model = peft.inject_adapter_in_model(config, ctx.base(), adapter_name=ctx.adapter_name)
    stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
    # the keys are those of a PeftModel; who injects has none, and takes its prefix off
    state = {_without(key, "base_model.model."): value for key, value in stored.items()}
    peft.set_peft_model_state_dict(model, state, adapter_name=ctx.adapter_name)
    return model


def low_cpu_mem(ctx: Context) -> Any:
    """`PeftModel.from_pretrained(…, low_cpu_mem_usage=True)`: parameters are made empty and put in from the file."""
    import peft

    _unless(doors.why_no_low_cpu_mem())
    return peft.PeftModel.from_pretrained(
        ctx.base(), adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name, low_cpu_mem_usage=True
    )


def load_adapter(ctx: Context) -> Any:
    """`PeftModel.load_adapter`, into a model that has another adapter already, and switched to."""
    model = _with_another(ctx, "default")  # up to 0.3 the first one can't be called otherwise
    model.load_adapter(adapters.ADAPTER_FOLDER, "second_in")
    model.set_adapter("second_in")
    return model


def weighted_linear(ctx: Context) -> Any:
    """Loaded twice, combined with `add_weighted_adapter` of kind `linear`, so that the mixture is the adapter again."""
    return _weighted(ctx, "linear")


def weighted_svd(ctx: Context) -> Any:
    """As above, of kind `svd`."""
    return _weighted(ctx, "svd")


def weighted_cat(ctx: Context) -> Any:
    """As above, of kind `cat`."""
    return _weighted(ctx, "cat")


def hotswap(ctx: Context) -> Any:
    """`hotswap_adapter`: put in the place of another adapter of the same configuration, in place."""
    return _hotswapped(ctx, prepared=False)


def hotswap_prepared(ctx: Context) -> Any:
    """As above, in a model that was prepared to be compiled: ranks are padded, scalings are tensors."""
    return _hotswapped(ctx, prepared=True)


def mixed(ctx: Context) -> Any:
    """`PeftMixedModel.from_pretrained`: the model that takes adapters of several methods."""
    import peft

    _unless(doors.why_no_mixed(_config()))
    return peft.PeftMixedModel.from_pretrained(ctx.base(), adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name)


def _weighted(ctx: Context, kind: str) -> Any:
    model = ctx.load(adapter_name="one")
    _unless(doors.why_no_combination(model, kind))
    model.load_adapter(adapters.ADAPTER_FOLDER, "two")
    doors.combine(model, ["one", "two"], kind, "mixture")
    model.set_adapter("mixture")
    return model


def _hotswapped(ctx: Context, prepared: bool) -> Any:
    config = _config()
    _unless(doors.why_no_hotswap(config, prepared))
    functions = doors.module("peft.utils.hotswap")
    model = _with_another(ctx, ctx.adapter_name)
    if prepared:
        ranks = [config.r, *(getattr(config, "rank_pattern", None) or {}).values()]
        functions.prepare_model_for_compiled_hotswap(model, target_rank=max(ranks) + 2, config=model.peft_config)
    functions.hotswap_adapter(model, adapters.ADAPTER_FOLDER, adapter_name=ctx.adapter_name, torch_device=ctx.device)
    return model


def _with_another(ctx: Context, name: str) -> Any:
    """A PeftModel with an adapter of the checkpoint's configuration and values of its own."""
    config = copy.deepcopy(_config())
    config.inference_mode = False
    model = libraries.new_adapter(ctx.base(), config, name)
    fill.fill_parameters(ctx.torch, adapters.trainable(model, name), f"adapter:{ctx.scenario['name']}:another")
    return model


def _config() -> Any:
    import peft

    return peft.PeftConfig.from_pretrained(adapters.ADAPTER_FOLDER)


def _unless(reason: str) -> None:
    if reason:
        raise Skip(reason)


def _without(text: str, prefix: str) -> str:
    return text[len(prefix) :] if text.startswith(prefix) else text


def _with_base(ctx: Context) -> str:
    """A copy of the checkpoint whose configuration says where the base is here; the fixture holds no path."""
    folder = ctx.folder("door")
    shutil.copytree(adapters.ADAPTER_FOLDER, os.path.join(folder, "adapter"))
    base = bases.BASE_FOLDER
    if ctx.scenario["base"].get("resize_to"):  # on disk it has fewer tokens than the adapter was made for
        base = os.path.join(folder, "base")
        bases.save(bases.load(ctx.torch, ctx.scenario["base"]), base)
    path = os.path.join(folder, "adapter", "adapter_config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["base_model_name_or_path"] = base
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return os.path.join(folder, "adapter")


DOORS: dict[str, Door] = {
    "auto": auto,
    "transformers": transformers_load,
    "transformers-auto": transformers_auto,
    "inject": inject,
    "low-cpu-mem": low_cpu_mem,
    "load-adapter": load_adapter,
    "weighted-linear": weighted_linear,
    "weighted-svd": weighted_svd,
    "weighted-cat": weighted_cat,
    "hotswap": hotswap,
    "hotswap-prepared": hotswap_prepared,
    "mixed": mixed,
}
"""In the order in which they are tried."""
