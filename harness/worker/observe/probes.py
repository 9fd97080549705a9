"""The probes: what is observed of a loaded adapter. Each is a function; an exception is its outcome."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import numpy as np

from ..compat import libraries
from ..model import adapters, bases, fill, quantised, wrappers
from ..shared import NARROW, NOT_LOADED, canonical
from . import accounting, renamed_layers, structure
from .capture import Skip
from .context import Context
from .fresh import fresh

SKETCH_PROJECTIONS = 4

Probe = Callable[[Context], None]


def forward(ctx: Context) -> None:
    """Outputs, and a compact sketch of every adapter layer's and block's activation in execution order."""
    model = ctx.model()
    layers = dict(adapters.adapter_layers(model, ctx.adapter_name))
    blocks = dict(adapters.blocks(ctx.torch, libraries.base_of(model), ctx.adapter_name))
    seen: list[tuple[str, str, Any]] = []
    hooks = [module.register_forward_hook(_watch(ctx, name, "adapter", seen)) for name, module in layers.items()]
    hooks += [module.register_forward_hook(_watch(ctx, name, "block", seen)) for name, module in blocks.items()]
    try:
        ctx.record("forward", ctx.run(model))
    finally:
        for hook in hooks:
            hook.remove()
    if ctx.quantize and ctx.kernels == "own":
        ctx.fact("forward", "kernels", quantised.kernel_facts(model))
    if seen:
        ctx.record("forward", {"sketch": np.stack([sketch for _, _, sketch in seen])})
    ctx.fact("forward", "sketch", [[name, kind] for name, kind, _ in seen])


def _watch(ctx: Context, name: str, kind: str, seen: list[tuple[str, str, Any]]) -> Callable[[Any, Any, Any], None]:
    def hook(module: Any, args: Any, result: Any) -> None:
        tensor = first_tensor(result)
        if tensor is None or any(name == other for other, _, _ in seen):
            return  # the first call of a layer counts (a shared embedding is called twice)
        seen.append((name, kind, sketch(tensor)))
        feedable = kind == "adapter" and len(args) == 1 and hasattr(args[0], "detach")
        if ctx.creating and ctx.precision == "float32" and feedable and not libraries.is_attention_adapter(module):
            # the last row is enough (the declared tokens are in it), and keeps goldens small
            ctx.layer_inputs[name] = args[0][-1:].detach().clone()

    return hook


def first_tensor(result: Any) -> Any:
    """The first tensor of what a module returns; None if there is none."""
    if hasattr(result, "detach"):
        return result
    if isinstance(result, (tuple, list)) and result:
        return first_tensor(result[0])
    return first_tensor(result[0]) if hasattr(result, "to_tuple") else None


def sketch(tensor: Any) -> np.ndarray[Any, Any]:
    """[mean, root mean square, projections on fixed directions]: six float64 that identify an activation."""
    flat = tensor.detach().cpu().double().flatten().numpy()
    directions = fill.uniform("sketch", str(flat.size), flat.size * SKETCH_PROJECTIONS).reshape(SKETCH_PROJECTIONS, -1)
    # a plain sum in NumPy's fixed order: a BLAS would add its own rounding
    projections = [float(np.sum(flat * direction)) / max(1.0, flat.size**0.5) for direction in directions]
    mean, rms = (float(np.mean(flat)), float(np.sqrt(np.mean(flat * flat)))) if flat.size else (0.0, 0.0)
    return np.array([mean, rms, *projections])


def layers(ctx: Context) -> None:
    """Each adapter layer's own effect on its input of the golden run; for prompt learning the prompt.

    Models are not linear: if the base moved, the adapter's effect on the logits moves too, though the adapter is sound.
    Fed the golden's own inputs, a layer differs only if it changed itself.
    """
    model = ctx.model()
    if libraries.is_prompt_learning(model):
        batch = next(iter(ctx.inputs.values())).shape[0]
        with ctx.torch.no_grad():
            ctx.record("layers", libraries.prompt_tensors(model, batch, ctx.inputs.get("task_ids")))
        return
    found = dict(adapters.adapter_layers(model, ctx.adapter_name))
    ctx.fact("layers", "names", sorted(found))
    if not ctx.layer_inputs:
        raise Skip("no adapter layer is called with a single tensor")
    called = {name: name for name in ctx.layer_inputs if name in found}
    called.update(_called_otherwise(ctx, found))
    ctx.fact("layers", "missing", [name for name in ctx.layer_inputs if name not in called])
    inputs = {name: fed(ctx, value, found[called[name]]) for name, value in ctx.layer_inputs.items() if name in called}
    with ctx.torch.no_grad():
        for name, effect in effects(model, {name: (found[called[name]], value) for name, value in inputs.items()}):
            ctx.record("layers", {name: effect})


def _called_otherwise(ctx: Context, found: dict[str, Any]) -> dict[str, str]:
    """Layers of the golden that have other names here, by the base's weights; recorded at replay only."""
    missing = [name for name in ctx.layer_inputs if name not in found]
    if not missing:
        return {}
    stored = libraries.load_base_tensors(bases.BASE_FOLDER)
    renamed = renamed_layers.layers(stored, ctx.base(), missing, set(found) - set(ctx.layer_inputs))
    if renamed:
        ctx.fact("layers", "renamed", renamed)
    return renamed


def fed(ctx: Context, value: Any, layer: Any) -> Any:
    """An input of a layer on the device, in the precision that the layer takes."""
    value = ctx.torch.as_tensor(value).to(ctx.device)
    weight: Any = getattr(libraries.beneath(layer), "weight", None) if ctx.precision in NARROW else None
    # some layers of a narrow model stay in float32 (T5's), with inputs in float32
    dtype = weight.dtype if weight is not None and weight.is_floating_point() else getattr(ctx.torch, ctx.precision)
    return value.to(dtype) if value.is_floating_point() else value


def effects(model: Any, fed: dict[str, tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    """What each layer adds to its base layer's output.

    All layers run with the adapter first, then all without: some releases walk the whole model each time the adapter is
    disabled. If one fails, they run one by one, so that those before it are recorded.
    """
    try:
        with_adapter = {name: first_tensor(layer(value)) for name, (layer, value) in fed.items()}
        with libraries.disabled(model):
            without = {name: first_tensor(libraries.beneath(layer)(value)) for name, (layer, value) in fed.items()}
        found = {name: with_adapter[name] - without[name] for name in fed}
    except Exception:  # noqa: BLE001 - the layer that fails raises it again
        yield from ((name, _effect(model, layer, value)) for name, (layer, value) in fed.items())
        return
    yield from found.items()


def _effect(model: Any, layer: Any, value: Any) -> Any:
    with_adapter = first_tensor(layer(value))
    with libraries.disabled(model):
        without = first_tensor(libraries.beneath(layer)(value))
    return with_adapter - without


def base(ctx: Context) -> None:
    """The base alone, and with the adapter disabled; the two must agree."""
    ctx.record("base", ctx.run(ctx.base()))
    # up to 0.6 prompt learning is broken after being disabled, so it gets its own model
    model = ctx.own_model() if libraries.is_prompt_learning(ctx.model()) else ctx.model()
    with libraries.disabled(model):
        ctx.record("base", ctx.run(model, disabled=True), "disabled.")


def account(ctx: Context) -> None:
    """Where each tensor of the checkpoint is in the loaded model, by value; and base weights that loading changed."""
    ctx.only_in_float32("values are looked for in float32")
    model = ctx.untouched()
    stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
    ctx.fact("accounting", "tensors", accounting.account(ctx.torch, stored, model, ctx.adapter_name))
    _describe(ctx, stored)
    ctx.fact("accounting", "base_changed", structure.changed_base_weights(ctx.base(), model, ctx.adapter_name, stored))
    if libraries.is_prompt_learning(model):
        # the prompt may be computed from the tensor: the layers probe compares it
        ctx.fact("accounting", "computed", sorted(stored))


def _describe(ctx: Context, stored: dict[str, Any]) -> None:
    """Shapes, dtypes and digests of the checkpoint's tensors."""
    ctx.fact("accounting", "shapes", {key: list(value.shape) for key, value in sorted(stored.items())})
    ctx.fact("accounting", "dtypes", {key: str(value.dtype)[len("torch.") :] for key, value in sorted(stored.items())})
    ctx.fact("accounting", "digests", {key: accounting.digest(value) for key, value in sorted(stored.items())})


def without_reload(ctx: Context) -> None:
    """What can be observed of a checkpoint that its own creator cannot load: its tensors, and the base alone."""
    ctx.record("base", ctx.run(ctx.base()))
    stored = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
    ctx.fact("accounting", "tensors", {key: {"found": NOT_LOADED, "at": []} for key in sorted(stored)})
    _describe(ctx, stored)


def structure_of(ctx: Context) -> None:
    """Names, shapes, dtypes, trainability, module classes and ties, loaded for inference and for training."""
    ctx.only_in_float32("the structure is that of the float32 model")
    model = ctx.untouched()
    ctx.fact("structure", "inference", structure.describe(model, ctx.adapter_name))
    ctx.fact("structure", "classes", structure.adapter_classes(model, ctx.adapter_name))
    ctx.fact("structure", "ties_before", structure.ties(ctx.base(), ()))
    ctx.fact("structure", "ties", structure.ties(model, (ctx.adapter_name,)))
    if not libraries.is_prompt_learning(model):
        trained = ctx.load_for_training()
        ctx.fact("structure", "trainable", sorted(name for name, _ in adapters.trainable(trained, ctx.adapter_name)))


def train(ctx: Context) -> None:
    """Train mode, dropout under a fixed seed."""
    ctx.only_in_float32("dropout draws other numbers in float64")
    model = ctx.load_for_training()
    model.train()
    ctx.torch.manual_seed(20231114)
    ctx.record("train", ctx.run(model))


def gradients(ctx: Context) -> None:
    """A sketch of each trainable parameter's gradient, for a fixed weighting of the outputs, without dropout."""
    model = ctx.load_for_training()
    model.eval()
    parameters = adapters.trainable(model, ctx.adapter_name)
    if not parameters:
        raise Skip("nothing is trainable after loading with is_trainable=True")
    total = 0.0
    for name, tensor in sorted(ctx.run_with_gradients(model).items()):
        if tensor.is_floating_point():
            weights = fill.uniform("loss", name, tensor.numel()).reshape(tuple(tensor.shape))
            total = total + (tensor * ctx.torch.from_numpy(weights).to(tensor)).sum()
    total.backward()  # type: ignore[attr-defined]
    ctx.record("gradients", {name: sketch(p.grad) for name, p in parameters if p.grad is not None})
    ctx.fact("gradients", "without", sorted(name for name, p in parameters if p.grad is None))


def merged(ctx: Context) -> None:
    """Merged in place: the output must stay."""
    if reason := libraries.why_not_mergeable_in_place(ctx.model()):
        raise Skip(reason)
    model = ctx.own_model()
    model.merge_adapter()
    ctx.record("merged", ctx.run(model))
    ctx.fact("merged", "ties", structure.ties(model, (ctx.adapter_name,)))
    ctx.keep("merged in place", model)


def unmerged(ctx: Context) -> None:
    """Merged in place and unmerged again."""
    ctx.only_in_float32()
    model = ctx.take("merged in place")
    model.unmerge_adapter()
    ctx.record("unmerged", ctx.run(model))
    ctx.fact("unmerged", "ties", structure.ties(model, (ctx.adapter_name,)))


def safe_merged(ctx: Context) -> None:
    """Merged with the check for values that are not finite."""
    ctx.only_in_float32()
    if reason := libraries.why_no_safe_merge(ctx.model()):
        raise Skip(reason)
    plain = libraries.safe_merge(ctx.own_model())
    ctx.record("safe_merged", ctx.run(plain))
    ctx.fact("safe_merged", "ties", structure.ties(plain, ()))


def unloaded(ctx: Context) -> None:
    """The adapter unloaded: the base's weights must be restored to the bit."""
    ctx.only_in_float32()
    if libraries.is_prompt_learning(ctx.model()) or not hasattr(ctx.model().base_model, "unload"):
        raise Skip("this method has nothing to unload")
    plain = ctx.own_model().unload()
    plain.eval()
    changed = structure.changed_base_weights(ctx.base(), plain, ctx.adapter_name, {})
    if not ctx.creating:  # goldens have it only where the unloaded model runs
        ctx.fact("unloaded", "base_changed", changed)
    ctx.record("unloaded", ctx.run(plain))
    ctx.fact("unloaded", "base_changed", changed)
    ctx.fact("unloaded", "ties", structure.ties(plain, ()))
    if not ctx.creating:
        ctx.fact("unloaded", "left", structure.left_behind(ctx.base(), plain))


def merge_and_unload(ctx: Context) -> None:
    """The merged base, without PEFT around it."""
    if reason := libraries.why_not_mergeable(ctx.model()):
        raise Skip(reason)
    plain = ctx.own_model().merge_and_unload()
    plain.eval()
    ctx.record("merge_and_unload", ctx.run(plain))
    ctx.fact("merge_and_unload", "ties", structure.ties(plain, ()))
    if not ctx.creating and ctx.precision == "float32":
        ctx.fact("merge_and_unload", "left", structure.left_behind(ctx.base(), plain))
    ctx.keep("merged and unloaded", plain)


def merged_saved(ctx: Context) -> None:
    """Merged, saved and read again, as when publishing a merged model."""
    ctx.only_in_float32()
    if wrappers.is_wrapped(ctx.scenario):
        raise Skip("the model is wrapped, and a wrapper is not saved as a model")
    plain = ctx.take("merged and unloaded")
    folder = ctx.folder("merged")
    ctx.save_merged(plain, folder)
    again = ctx.read_merged(folder)
    ctx.record("merged_saved", ctx.run(again))
    ctx.fact("merged_saved", "ties", structure.ties(again, ()))


def roundtrip(ctx: Context) -> None:
    """Saved again (keys, tensors, config), and loaded from there (outputs)."""
    ctx.only_in_float32()
    before = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER)
    folder = ctx.folder("again")
    adapters.save(ctx.model(), folder, ctx.adapter_name)
    ctx.fact("roundtrip", "ties", structure.ties(ctx.model(), (ctx.adapter_name,)))
    after = libraries.load_adapter_tensors(folder)
    ctx.fact("roundtrip", "lost", sorted(set(before) - set(after)))
    ctx.fact("roundtrip", "added", sorted(set(after) - set(before)))
    shared = sorted(set(before) & set(after))
    if not ctx.creating:
        ctx.fact("roundtrip", "renamed", _saved_otherwise(ctx, before, after))
    ctx.fact("roundtrip", "changed", [key for key in shared if not _same(ctx.torch, before[key], after[key])])
    ctx.fact("roundtrip", "config", structure.read_config(folder))
    ctx.fact("roundtrip", "config_before", structure.read_config(adapters.ADAPTER_FOLDER))
    again = ctx.load(folder=folder)
    ctx.record("roundtrip", ctx.run(again))
    ctx.keep("saved and loaded", again)


def _saved_otherwise(ctx: Context, before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """Missing key → key with its values, for layers that have other names in the loaded model."""
    lost = sorted(set(before) - set(after))
    if not lost:
        return {}
    added = {accounting.fingerprint(after[key]): key for key in sorted(set(after) - set(before))}
    names = (ctx.adapter_name,)
    present = {canonical(name, names) for name, _ in ctx.model().named_parameters()}
    moved = [key for key in lost if canonical(key, names) not in present]
    return {key: added[mark] for key in moved if (mark := accounting.fingerprint(before[key])) in added}


def _same(torch: Any, a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))


def renamed(ctx: Context) -> None:
    """Loaded under another adapter name."""
    ctx.only_in_float32()
    model = ctx.load(adapter_name="another_name")
    ctx.record("renamed", ctx.run(model))


def second(ctx: Context) -> None:
    """Beside another adapter, of the same configuration or as declared: switch to it and back."""
    ctx.only_in_float32()
    model = ctx.own_model()
    first_name = ctx.adapter_name
    declared = ctx.scenario.get("beside")
    config = adapters.make_config(declared) if declared else libraries.adapter_arguments(model, first_name)
    adapters.put_beside(ctx.torch, model, ctx.scenario, config)
    model.eval()
    other = ctx.run(model)
    ctx.fact("second", "trainable_other", _active_trainable(model, first_name))
    model.set_adapter(first_name)
    ctx.fact("second", "trainable_back", _active_trainable(model, first_name))
    again = ctx.run(model)
    ctx.record("second", again)
    ctx.fact("second", "other_differs", any(not ctx.torch.equal(again[name], other[name]) for name in again))
    ctx.keep("put beside another", model)


def _active_trainable(model: Any, first_name: str) -> list[str]:
    """Which of the two adapters has trainable parameters: `first`, `beside`."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    labels = {"first": first_name, "beside": "beside"}
    return [label for label, adapter in labels.items() if any(adapter in name.split(".") for name in names)]


def generate(ctx: Context) -> None:
    """A few tokens from the first row, by the base alone and with the adapter."""
    arguments = ctx.scenario["generate"]
    ctx.only_in_float32()
    if not arguments or not all(hasattr(ctx.base(when), "generate") for when in ("saved", "loaded")):
        raise Skip("the base does not generate")
    inputs = {name: value[:1] for name, value in ctx.inputs.items() if not name.startswith("decoder_")}
    if "attention_mask" in inputs and not bool(inputs["attention_mask"].all()):
        raise Skip("the first row is padded, and releases differ in what they generate from a padded prompt")
    with ctx.torch.no_grad():
        of_base = {name: value for name, value in inputs.items() if name in ctx.inputs_of_base()}
        ctx.record("generate", {"base.tokens": ctx.base().generate(**of_base, **arguments)})
        ctx.record("generate", {"tokens": ctx.model().generate(**inputs, **arguments)})


PROBES: dict[str, Probe] = {
    "forward": forward,
    "layers": layers,
    "base": base,
    "accounting": account,
    "structure": structure_of,
    "train": train,
    "gradients": gradients,
    "merged": merged,
    "unmerged": unmerged,
    "safe_merged": safe_merged,
    "unloaded": unloaded,
    "merge_and_unload": merge_and_unload,
    "merged_saved": merged_saved,
    "roundtrip": roundtrip,
    "renamed": renamed,
    "second": second,
    "generate": generate,
    "fresh": fresh,
}
"""In the order in which they run."""
