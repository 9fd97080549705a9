"""Builds, saves and loads the tiny base models, and their inputs.

A base is built and filled once, by the creator. Every later step, the creator's own golden included, uses the files
that the library's `save_pretrained` wrote, read by `from_pretrained`: so a model's conversion runs as it does for
users.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
from typing import Any, Iterator, Mapping

import numpy as np

from ..compat import configurations, libraries, settings
from ..shared import FROM_FILE, NARROW
from . import fill, hub, quantised

BASE_FOLDER = "base"
"""Relative to the working directory, the cell's scratch folder, so that checkpoints contain no path of this machine."""


def build(torch: Any, base: Mapping[str, Any]) -> Any:
    """The base as declared, filled, in the type that it is saved in and in eval mode."""
    torch.manual_seed(0)
    model = _construct(torch, base)
    fill.fill_parameters(torch, model.named_parameters(), "base:" + base["name"], recipes=())
    if base.get("saved_dtype"):
        return model.to(getattr(torch, base["saved_dtype"])).eval()
    narrow = sorted({str(p.dtype)[len("torch.") :] for p in model.parameters()} & set(NARROW))
    if narrow:
        raise TypeError(
            f"the base has parameters in {narrow[0]}; expected float32, or a declared type; "
            f'next: add `dtype = "{narrow[0]}"` to the base'
        )
    return model.eval()


def _construct(torch: Any, base: Mapping[str, Any]) -> Any:
    if base["kind"] == "transformers":
        import transformers

        if base.get("code"):
            return configurations.model_with_code(base)
        if base["config"] == FROM_FILE:
            config = configurations.model_config(base["args"], base["model"])
        else:
            config = getattr(transformers, base["config"])(**base["args"])
        kind = getattr(transformers, base["model"])
        return kind.from_config(config) if base["model"].startswith("Auto") else kind(config)
    if base["kind"] == "modules":
        return _sequence(torch, base["modules"])
    return _from_source(base)


def _sequence(torch: Any, modules: Any) -> Any:
    class PlainModel(torch.nn.Module):  # type: ignore[misc]
        """Named modules in sequence: the simplest base for PEFT."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = [step["name"] for step in modules]
            for step in modules:
                kind = libraries.module_class(torch, step["type"])
                setattr(self, step["name"], kind(*step["args"], **step["kwargs"]))

        def forward(self, x: Any) -> Any:
            for name in self.steps:
                x = getattr(self, name)(x)
            return x

    # PEFT writes this name into adapter_config.json (`parent_library`): it is part of the stored fixtures.
    PlainModel.__module__ = "peft_regress_worker.bases"
    return PlainModel()


def _from_source(base: Mapping[str, Any]) -> Any:
    namespace: dict[str, Any] = {"__name__": "scenario_base", "__file__": base["file"]}
    exec(compile(base["source"], base["file"], "exec"), namespace)
    if "build" not in namespace:
        raise TypeError(f"{base['file']} has no function build() that returns the base model")
    return namespace["build"]()


def save(model: Any, folder: str = BASE_FOLDER) -> None:
    """Write the base as its own library does; a plain module's state dict as safetensors."""
    os.makedirs(folder, exist_ok=True)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return
    from safetensors.torch import save_model

    save_model(model, os.path.join(folder, "model.safetensors"))


def load_quantised(
    torch: Any,
    base: Mapping[str, Any],
    folder: str = BASE_FOLDER,
    *,
    device: str = "cpu",
    dtype: str = "float32",
) -> Any:
    """Read a base that declares `quantize`: see `quantised.load`."""

    def make(read: bool) -> Any:
        if read:
            return load(torch, {name: value for name, value in base.items() if name != "quantize"}, folder)
        torch.manual_seed(0)
        return _construct(torch, base)

    return quantised.load(torch, base, folder, make, device, dtype)


def store_quantised(torch: Any, base: Mapping[str, Any], folder: str = BASE_FOLDER) -> None:
    """Replace the weights in the folder by bitsandbytes' files of the quantised model."""
    spec = {**base["quantize"], "from": "weights"}
    model = load_quantised(torch, {**base, "quantize": spec}, folder)
    shutil.rmtree(folder)
    quantised.save(model, folder, spec)


def save_mark(base: Mapping[str, Any], folder: str = BASE_FOLDER) -> None:
    """Write the name of the hub's model instead of its weights."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, hub.MARK), "w", encoding="utf-8") as file:
        json.dump({"repo": base["repo"], "revision": base["revision"]}, file, sort_keys=True)
        file.write("\n")


def load(torch: Any, base: Mapping[str, Any], folder: str = BASE_FOLDER) -> Any:
    """Read the base from what `save` wrote, in eval mode, on the CPU.

    In float32 and with its release's own attention, unless the base says `dtype` or `attention`: settings of a replay.
    One that is saved in a narrower type is read as users do, without a type, if it says `as_saved`.
    """
    if base.get("saved_dtype") and not base.get("dtype") and not base.get("as_saved"):
        base = {**base, "dtype": "float32"}
    if base.get("quantize"):
        return load_quantised(torch, base, folder)
    if os.path.isfile(os.path.join(folder, hub.MARK)):
        model = hub.load(base, os.environ, settings.loading(torch, base))
    elif base["kind"] in ("transformers", "hub"):  # a real model that was merged and saved is in a folder too
        import transformers

        configurations.keep_modules_here(base)
        how = {**base["load_with"], **settings.loading(torch, base)}
        model = getattr(transformers, base["model"]).from_pretrained(folder, **how)
    else:
        from safetensors.torch import load_file

        model = _construct(torch, base)
        if hasattr(model, "save_pretrained"):
            model = type(model).from_pretrained(folder)
        else:
            state = load_file(os.path.join(folder, "model.safetensors"))
            missing, unexpected = model.load_state_dict(state, strict=False)
            tied = {name for name in missing if _is_tied(model, name, state)}
            if unexpected or set(missing) - tied:
                raise ValueError(f"base checkpoint does not fit: missing {missing}, unexpected {unexpected}")
            if base.get("as_saved"):  # a user's own code makes such a model in the type of its weights
                model = model.to(getattr(torch, base["saved_dtype"]))
        model = model.to(getattr(torch, base["dtype"])) if base.get("dtype") else model
    if base.get("resize_to"):
        _add_tokens(torch, model, base["name"], base["resize_to"])
    model.eval()
    realign(model)
    return model


def _add_tokens(torch: Any, model: Any, name: str, size: int) -> None:
    """Enlarge the vocabulary as a user does before new tokens are trained; the new rows get their own values."""
    before = int(model.get_input_embeddings().weight.shape[0])
    if before >= size:
        return  # a model that was merged and saved has them already
    libraries.resize_vocabulary(model, size)
    for what, layer in (("input", model.get_input_embeddings()), ("output", model.get_output_embeddings())):
        if layer is not None:
            drawn = fill.values("base:" + name, f"added.{what}", tuple(layer.weight.shape))
            with torch.no_grad():
                layer.weight[before:] = torch.from_numpy(np.array(drawn)).to(layer.weight.dtype)[before:]


def _is_tied(model: Any, name: str, state: Mapping[str, Any]) -> bool:
    own = dict(model.named_parameters(remove_duplicate=False))
    twin = own.get(name)
    return twin is not None and any(own.get(other) is twin for other in state)


def realign(model: Any) -> None:
    """Move parameters out of memory-mapped, unaligned storage; shared storage stays shared.

    `safetensors.load_file` returns views into a mapped file. On unaligned addresses the kernels take other paths, which
    changed outputs by 3e-8; after a clone they are equal to the bit.
    """
    tensors = [t for t in [*model.parameters(), *model.buffers()] if t.device.type == "cpu" and t.numel()]
    shapes: dict[int, set[Any]] = {}
    for tensor in tensors:
        shapes.setdefault(tensor.data_ptr(), set()).add(tensor.shape)
    moved: dict[int, Any] = {}
    for tensor in tensors:
        address = tensor.data_ptr()
        # by address, views of one storage in different shapes look like ties: they stay
        if address % 64 and len(shapes[address]) == 1:
            moved.setdefault(address, tensor.data.clone())
            tensor.data = moved[address]


@contextlib.contextmanager
def precision(torch: Any, name: str) -> Iterator[None]:
    """Make `float32` or `float64` the default dtype inside; masks of old Transformers use it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make_inputs(specs: Mapping[str, Mapping[str, Any]], base_name: str) -> dict[str, np.ndarray[Any, Any]]:
    """The declared inputs as arrays: int64, or float32."""
    masks = [_array(f"{base_name}.{name}", spec) for name, spec in specs.items() if spec["kind"] == "mask"]
    first_mask = masks[0] if masks else None
    made = {}
    for name, spec in specs.items():
        array = _array(f"{base_name}.{name}", spec)
        made[name] = _with_tokens(array, spec.get("contain") or [], first_mask)
    return made


def _array(name: str, spec: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    kind = spec["kind"]
    if kind == "values":
        default = (
            "int64" if all(isinstance(v, int) for v in np.ravel(np.array(spec["values"], dtype=object))) else "float32"
        )
        return np.array(spec["values"], dtype=spec.get("dtype") or default)
    shape = tuple(spec["shape"])
    count = int(np.prod(shape))
    if kind == "tokens":
        return fill.integers("input", name, count, int(spec["low"]), int(spec["high"])).reshape(shape)
    if kind == "uniform":
        unit = (fill.uniform("input", name, count) + 1.0) / 2.0
        return np.asarray((spec["low"] + unit * (spec["high"] - spec["low"])).astype(np.float32).reshape(shape))
    return _mask(shape, spec)


def _mask(shape: tuple[int, ...], spec: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    mask = np.ones(shape, dtype=np.int64)
    for row, padded in enumerate(spec.get("pad_left") or []):
        mask[row, :padded] = 0
    for row, padded in enumerate(spec.get("pad_right") or []):
        mask[row, shape[1] - padded :] = 0
    return mask


def _with_tokens(array: np.ndarray[Any, Any], contain: list[int], mask: Any) -> np.ndarray[Any, Any]:
    """Put the tokens that must occur into the unpadded part of the last row."""
    if not contain:
        return array
    array = array.copy()
    open_places = np.arange(array.shape[-1])
    if mask is not None and mask.shape == array.shape:
        open_places = np.flatnonzero(mask[-1])
    if len(open_places) < len(contain):
        raise ValueError(f"{len(contain)} tokens must occur, the last row has room for {len(open_places)}")
    array[-1, open_places[: len(contain)]] = contain
    return array


def to_tensors(torch: Any, inputs: Mapping[str, Any], dtype: str, device: str) -> dict[str, Any]:
    """Inputs as tensors, floating-point ones in the precision of the run."""
    made = {}
    for name, array in inputs.items():
        tensor = torch.from_numpy(np.array(array))
        if tensor.is_floating_point():
            tensor = tensor.to(getattr(torch, dtype))
        made[name] = tensor.to(device)
    return made


def call(model: Any, base_model: Any, inputs: Mapping[str, Any]) -> Any:
    """Run the model on its inputs: by name if the base's forward has the names, else in order."""
    parameters = inspect.signature(base_model.forward).parameters
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())  # a wrapper
    by_name = hands_on or all(name in parameters for name in inputs) or hasattr(base_model, "config")
    return model(**inputs) if by_name else model(*inputs.values())


def outputs(result: Any, wanted: list[str]) -> dict[str, Any]:
    """The tensors of a model's result that are compared, by name."""
    if hasattr(result, "detach"):
        return {"output": result}
    if wanted and isinstance(result, tuple) and wanted == ["logits"]:  # a wrapper that returns them first
        return {"logits": result[0]}
    if wanted:
        return {name: result[name] for name in wanted}
    if isinstance(result, Mapping):
        found = next((name for name in ("logits", "last_hidden_state") if name in result), None)
        if found:
            return {found: result[found]}
    if isinstance(result, (tuple, list)) and hasattr(result[0], "detach"):
        return {"output": result[0]}
    raise TypeError(f"cannot tell what to compare of a {type(result).__name__}; name it under `outputs`")
