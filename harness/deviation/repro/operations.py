"""Operations on a loaded adapter before its outputs are compared: merging, saving again, … (pure).

Each function returns lines that start from `model` and assign `model`. They call only public functions of the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.deviation.repro import bases
from harness.deviation.repro.loading import Loading
from harness.deviation.repro.python_text import Part, joined, part

Operation = Callable[[Loading], Part]
FILL = (
    "def fill(model):",
    "    for parameter in model.parameters():",
    "        if parameter.requires_grad:",
    "            values = torch.linspace(-0.5, 0.5, parameter.numel())",
    "            parameter.data.copy_(values.view_as(parameter))",
    "    return model",
)
"""Values for trainable parameters that are the same on both sides, whatever a library initialises them to."""


def _lines(*lines: str) -> Operation:
    return lambda _: part(*lines)


def merged_saved(loading: Loading) -> Part:
    """Merge, save as a model and load again; `reference` has the outputs before saving."""
    start = part("model = model.merge_and_unload().eval()", "reference = outputs(model)")
    if not loading.of_library:
        save = part('os.makedirs("merged", exist_ok=True)', 'save_model(model, "merged/model.safetensors")',
                    imports=["import os", "from safetensors.torch import save_model"])  # fmt: skip
    else:
        save = part('model.save_pretrained("merged")')
    if loading.side.quantize:
        read = loading.read("merged", stored=True)
    else:
        read = bases.unquantised(loading.side, loading.subject, "merged")
    return joined([start, save, read, part("model = base.eval()")])


def merged_after_run(loading: Loading) -> Part:
    """Run, then merge; `reference` has the outputs when merged without a run before."""
    return joined([
        part("model.merge_adapter()", "reference = outputs(model)"),
        loading.load(),
        part("outputs(model)  # running it first must change nothing", "model.merge_adapter()"),
    ])  # fmt: skip


def roundtrip(loading: Loading) -> Part:
    """Save the adapter again, and load that."""
    return joined([loading.save("again"), loading.load(folder=loading.saved_in("again"))])


def renamed(loading: Loading) -> Part:
    """Load under another adapter name."""
    return loading.load(name="another_name")


def second(loading: Loading) -> Part:
    """Add a second adapter, switch to it, and back."""
    declared = loading.side.scenario.get("beside")
    name = loading.side.adapter_name
    if declared:
        config = loading.config(declared)
    else:
        config = part(f'config = copy.deepcopy(model.peft_config["{name}"])', "config.inference_mode = False",
                      imports=["import copy"])  # fmt: skip
    body = part(
        'model.add_adapter("other", config)', 'model.set_adapter("other")', "fill(model).eval()",
        f'model.set_adapter("{name}")',
    )  # fmt: skip
    return config.then(Part(body.lines, ("import torch",), {"fill": FILL}))


def fresh(loading: Loading) -> Part:
    """Create a new adapter with the same configuration."""
    named = loading.side.named if loading.side.release.names_first_adapter else ""
    body = part(f"model = fill(get_peft_model(load_base(), config{named})).eval()",
                imports=["from peft import get_peft_model", "import torch"])  # fmt: skip
    cast = part("model = model.double()") if loading.double else Part()
    return joined([loading.config(loading.side.scenario["adapter"]), body, cast, Part(helpers={"fill": FILL})])


OPERATIONS: Mapping[str, Operation] = {
    "merged": _lines("model.merge_adapter()"),
    "unmerged": _lines("model.merge_adapter()", "model.unmerge_adapter()"),
    "safe_merged": _lines("model = model.merge_and_unload(safe_merge=True).eval()"),
    "merge_and_unload": _lines("model = model.merge_and_unload().eval()"),
    "merged_saved": merged_saved,
    "merged_after_run": merged_after_run,
    "unloaded": _lines("model = model.unload().eval()"),
    "roundtrip": roundtrip,
    "renamed": renamed,
    "second": second,
    "fresh": fresh,
}
"""Probe → the operation that it observes."""
