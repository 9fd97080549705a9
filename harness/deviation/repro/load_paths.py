"""Load paths other than `PeftModel.from_pretrained`, as Python (pure). Each one assigns the loaded `model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.deviation.repro.loading import Loading
from harness.deviation.repro.operations import FILL
from harness.deviation.repro.python_text import Part, joined, part
from harness.worker.shared import AUTO_BY_TASK

LoadPath = Callable[[Loading, str], Part]
"""(a side's loading, the task in the adapter's configuration) → lines."""

_CONFIG = part('config = PeftConfig.from_pretrained("adapter")', imports=["from peft import PeftConfig"])


def _with_base(loading: Loading) -> Part:
    """A copy of the adapter whose configuration contains the path of the base."""
    lines = [
        'shutil.copytree("adapter", "with_base", dirs_exist_ok=True)',
        'config = json.load(open("adapter/adapter_config.json"))',
        'config["base_model_name_or_path"] = "base"',
        'json.dump(config, open("with_base/adapter_config.json", "w"))',
    ]
    if loading.side.base.get("resize_to"):
        lines[2:3] = ['load_base().save_pretrained("resized")', lines[2].replace('"base"', '"resized"')]
    return part(*lines, imports=["import json", "import shutil"])


def _auto(loading: Loading, task: str) -> Part:
    kind = AUTO_BY_TASK.get(task, "AutoPeftModel")
    name = loading.side.adapter_name
    line = f'model = {kind}.from_pretrained("with_base", adapter_name="{name}").eval()'
    return _with_base(loading).then(part(line, imports=[f"from peft import {kind}"]))


def _transformers(loading: Loading, _: str) -> Part:
    name = loading.side.adapter_name
    return part("model = load_base()", f'model.load_adapter("adapter", adapter_name="{name}")', "model.eval()")


def _transformers_auto(loading: Loading, _: str) -> Part:
    kind = loading.side.base["model"]
    return joined([_with_base(loading), part(
        f'model = {kind}.from_pretrained("with_base").eval()', imports=[f"from transformers import {kind}"],
    )])  # fmt: skip


def _inject(loading: Loading, _: str) -> Part:
    name = loading.side.adapter_name
    return joined([_CONFIG, tensors(), part(
        f'model = inject_adapter_in_model(config, load_base(), adapter_name="{name}")',
        'state = {key.removeprefix("base_model.model."): value for key, value in tensors("adapter").items()}',
        f'set_peft_model_state_dict(model, state, adapter_name="{name}")',
        "model.eval()",
        imports=["from peft import inject_adapter_in_model, set_peft_model_state_dict"],
    )])  # fmt: skip


def _low_cpu_mem(loading: Loading, _: str) -> Part:
    return loading.load(low_cpu_mem_usage=True)


def _beside(named: str) -> Part:
    body = part(
        "config.inference_mode = False",
        f"model = fill(get_peft_model(load_base(), config{named}))",
        imports=["from peft import get_peft_model", "import torch"],
    )
    return joined([_CONFIG, body, Part(helpers={"fill": FILL})])


def _load_adapter(_: Loading, __: str) -> Part:
    return _beside("").then(
        part('model.load_adapter("adapter", "second_in")', 'model.set_adapter("second_in")', "model.eval()")
    )


def _weighted(kind: str) -> LoadPath:
    def made(loading: Loading, _: str) -> Part:
        one_way = not loading.side.release.combines_in_many_ways
        weights = "[0.25, 0.25]" if kind == "linear" and not one_way else "[0.25, 0.75]"
        more = "" if one_way else f', combination_type="{kind}"'
        return loading.load(name="one").then(part(
            'model.load_adapter("adapter", "two")',
            f'model.add_weighted_adapter(["one", "two"], {weights}, "mixture"{more})',
            'model.set_adapter("mixture")',
        ))  # fmt: skip

    return made


def _hotswap(prepared: bool) -> LoadPath:
    def made(loading: Loading, _: str) -> Part:
        name = loading.side.adapter_name
        lines, names = [], "hotswap_adapter"
        if prepared:
            lines = [
                "rank = max([config.r, *(config.rank_pattern or {}).values()]) + 2",
                "prepare_model_for_compiled_hotswap(model, target_rank=rank, config=model.peft_config)",
            ]
            names += ", prepare_model_for_compiled_hotswap"
        lines += [f'hotswap_adapter(model, "adapter", adapter_name="{name}", torch_device="cpu")', "model.eval()"]
        return _beside(loading.side.named).then(part(*lines, imports=[f"from peft.utils.hotswap import {names}"]))

    return made


def _mixed(loading: Loading, _: str) -> Part:
    return part(f'model = PeftMixedModel.from_pretrained(load_base(), "adapter"{loading.side.named}).eval()',
                imports=["from peft import PeftMixedModel"])  # fmt: skip


def tensors() -> Part:
    """The function `tensors(folder)`, which reads a saved adapter in either format."""
    lines = (
        "def tensors(folder):",
        '    path = os.path.join(folder, "adapter_model.safetensors")',
        "    if os.path.exists(path):",
        "        return load_file(path)",
        '    return torch.load(os.path.join(folder, "adapter_model.bin"), weights_only=True)',
    )
    imports = ("import os", "import torch", "from safetensors.torch import load_file")
    return Part(imports=imports, helpers={"tensors": lines})


CALLS: Mapping[str, LoadPath] = {
    "auto": _auto,
    "transformers": _transformers,
    "transformers-auto": _transformers_auto,
    "inject": _inject,
    "low-cpu-mem": _low_cpu_mem,
    "load-adapter": _load_adapter,
    "weighted-linear": _weighted("linear"),
    "weighted-svd": _weighted("svd"),
    "weighted-cat": _weighted("cat"),
    "hotswap": _hotswap(prepared=False),
    "hotswap-prepared": _hotswap(prepared=True),
    "mixed": _mixed,
}
"""Name of the load path (`harness.worker.shared.LOAD_PATHS`) → its lines. `repro` refuses a load path without them."""
