"""Looks closer at layers whose own effect is not the golden's: what a sound replay need not pay for.

`updates/…`: what a layer does to each unit vector: its update as a matrix, if it is linear. It shows whose update a
layer has, and whether it acts transposed.
`restored/…`: the effect once more, with the stored weights in the layers of the base. An effect that contains the
base's own weights (DoRA's norm, a saved module) moves with them; then this one agrees with the golden.
`restored_forward/…`: the model's output with all stored weights in the base.
`effects.PROBE/…`: the layers' effects in the model of a probe whose output is not that of `forward`.
`sensitivity`: for a quantised base, whose stored weights are not what it computes with: how far each effect moves ÷
how far the base's output moves, if the base's weights move a little.
"""

from __future__ import annotations

import contextlib
from typing import Any, Mapping

import numpy as np

from ..compat import libraries
from ..model import adapters, bases, fill
from ..shared import EQUALS, LOAD_PATH, canonical
from . import probes, probes_declared, renamed_layers
from .context import Context
from .recorder import Observation

_FAR = 1e-5
"""Difference ÷ root mean square from which on a layer is looked at: less is rounding."""
_WIDEST = 512
"""Most input features of a layer whose update is recorded."""
_NUDGE = 1e-3
"""How far the weights of a quantised base are moved, relative to their own size."""


def observe(ctx: Context, golden: Mapping[str, Any]) -> None:
    """Look closer at what differs from the golden, if anything does.

    Args:
        golden: its arrays.
    """
    if ctx.layer_inputs:  # prompt learning has none
        _layers(ctx, golden)
        _probes(ctx, golden)


def _layers(ctx: Context, golden: Mapping[str, Any]) -> None:
    now = ctx.observation.arrays()
    differing = [name for name in ctx.layer_inputs if _differ(golden, now, f"layers/{ctx.precision}/{name}")]
    if not differing:
        return
    renamed = ctx.observation.facts.get("layers", {}).get("renamed", {})
    called = {name: renamed.get(name, name) for name in differing}
    _updates(ctx, called)
    if not any(_differ(golden, now, name) for name in golden if name.startswith(f"base/{ctx.precision}/")):
        return
    if not ctx.quantize:
        _restored(ctx, called)
    elif ctx.precision == "float64":
        ctx.observation.facts["closer"] = {"sensitivity": _sensitivity(ctx, called)}


_CONTINUES = {"unmerged": "merged", "merged_saved": "merge_and_unload"}
"""Probe → the one whose model it continues with."""


def _probes(ctx: Context, golden: Mapping[str, Any]) -> None:
    """Run probes again whose output is not that of `forward`, nor what it is in the golden."""
    merged_or_loaded = [probe for probe in EQUALS if probe != "unloaded"]
    for probe in [*merged_or_loaded, *(name for name in ctx.observation.probes if name.startswith(LOAD_PATH))]:
        now = ctx.observation.arrays()
        own = [name for name in now if name.startswith(f"{probe}/{ctx.precision}/") and _differ(golden, now, name)]
        twin = EQUALS[probe].probe if probe in EQUALS else "forward"
        twins = {name: now[other] for name in own if (other := name.replace(f"{probe}/", f"{twin}/", 1)) in now}
        if any(_differ(twins, now, name) for name in twins):
            ctx.record(f"effects.{probe}", _watched(ctx, probe))


def _watched(ctx: Context, probe: str) -> dict[str, Any]:
    """The layers' effects in the model of a probe; those seen until it raised."""
    watching, all_probes = Watching(ctx), {**probes.PROBES, **dict(probes_declared.of(ctx.scenario))}
    with contextlib.suppress(Exception):
        for name in (_CONTINUES.get(probe), probe):
            if name is not None:
                all_probes[name](watching)
    return watching.effects


class Watching(Context):
    """A context whose probes leave no record but the layers' effects in the model that ran last."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(
            ctx.torch, ctx.scenario, Observation(ctx.scenario["name"]), ctx.precision, {}, ctx.layer_inputs, ctx.device
        )
        self.inputs = ctx.inputs
        self.effects: dict[str, Any] = {}
        self._plain = _modules(ctx.base(), ctx.adapter_name)

    def run(self, model: Any, disabled: bool = False) -> dict[str, Any]:
        """The model's outputs; notes what its layers add to the base's."""
        with self.torch.no_grad():
            modules = _modules(model, self.adapter_name)
            for name, value in self.layer_inputs.items():
                if name in modules and name in self._plain:
                    given = probes.fed(self, value, modules[name])
                    self.effects[name] = probes.first_tensor(modules[name](given)) - probes.first_tensor(
                        self._plain[name](given)
                    )
        return super().run(model, disabled)


def _modules(model: Any, adapter_name: str) -> dict[str, Any]:
    """Canonical name → module; of a layer and the one that it wraps, the outer one."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found.setdefault(canonical(name, (adapter_name, "another_name", "default")), module)
    return found


def _differ(golden: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    before, after = golden.get(name), now.get(name)
    if before is None or after is None or before.shape != after.shape or not before.size:
        return (before is None) != (after is None)
    scale = float(np.sqrt(np.mean(np.square(before.astype(np.float64)))))
    return not bool(np.abs(after.astype(np.float64) - before).max() <= _FAR * scale)


def _updates(ctx: Context, called: Mapping[str, str]) -> None:
    model = ctx.model()
    found = dict(adapters.adapter_layers(model, ctx.adapter_name))
    fed = {}
    for name, now in called.items():
        given = ctx.torch.as_tensor(ctx.layer_inputs[name])
        width = given.shape[-1] if given.is_floating_point() and given.dim() in (2, 3) else 0
        if now in found and 0 < width <= _WIDEST:
            unit = ctx.torch.eye(width).reshape((1,) * (given.dim() - 2) + (width, width))
            fed[name] = (found[now], probes.fed(ctx, unit, found[now]))
    for name, effect in _each(model, fed):
        ctx.record("updates", {name: effect.reshape(-1, effect.shape[-1])})


def _each(model: Any, fed: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The effects of the layers that take such an input; one that does not is left out."""
    done = []
    for name, (layer, value) in fed.items():
        try:
            done += list(probes.effects(model, {name: (layer, value)}))
        except Exception:  # noqa: BLE001 - a convolution, a layer that wants whole blocks of tokens
            continue
    return done


def _restored(ctx: Context, called: Mapping[str, str]) -> None:
    base = ctx.base()
    changed = _put_back(ctx, base, called)
    ctx.fact("closer", "base_weights", sorted(changed))
    if changed:
        for name, effect in _effects_on(ctx, base, called).items():
            ctx.record("restored", {name: effect})
        ctx.record("restored_forward", ctx.run(ctx.load(base=_all_put_back(ctx))))


def _all_put_back(ctx: Context) -> Any:
    """A base with every stored weight that has a parameter of its name."""
    base, stored = ctx.base(), libraries.load_adapter_tensors(bases.BASE_FOLDER)
    for name, parameter in base.named_parameters():
        if name in stored and stored[name].shape == parameter.shape:
            parameter.data.copy_(stored[name].to(parameter))
    return base


def _put_back(ctx: Context, base: Any, called: Mapping[str, str]) -> list[str]:
    """Give the layers of a base their stored weights; returns the layers that had others."""
    stored = libraries.load_adapter_tensors(bases.BASE_FOLDER)
    modules = {canonical(name): module for name, module in base.named_modules()}
    changed = []
    for layer, now in called.items():
        for rest, value in renamed_layers.weights(stored, layer):
            parameter = dict(modules[now].named_parameters()).get(rest) if now in modules else None
            if parameter is None or parameter.shape != value.shape:
                continue
            value = value.to(parameter)
            if not ctx.torch.equal(parameter.detach(), value):
                parameter.data.copy_(value)
                changed.append(layer)
    return sorted(set(changed))


def _effects_on(ctx: Context, base: Any, called: Mapping[str, str]) -> dict[str, Any]:
    """The effects of the layers, of the adapter loaded on another base."""
    model = ctx.load(base=base)
    found = dict(adapters.adapter_layers(model, ctx.adapter_name))
    fed = {
        name: (found[now], probes.fed(ctx, ctx.layer_inputs[name], found[now]))
        for name, now in called.items()
        if now in found
    }
    with ctx.torch.no_grad():
        return dict(probes.effects(model, fed))


def _sensitivity(ctx: Context, called: Mapping[str, str]) -> dict[str, float]:
    """How far each layer's effect moves ÷ how far the base's output does, if the weights of that layer alone move.

    Of three ways of moving them the one counts that moves the effect furthest. That the layer alone moved is the most
    that can explain its effect.
    """
    output, effects = ctx.run(ctx.base()), _effects_on(ctx, ctx.base(), called)
    found: dict[str, float] = {}
    for way in ("at random", "all alike", "one"):
        nudged = ctx.base()
        for name in called.values():
            _nudge(ctx, nudged, name, way)
        for name, effect in _effects_on(ctx, nudged, called).items():
            alone = ctx.base()
            _nudge(ctx, alone, called[name], way)
            moved = max(float((value - output[key]).abs().max()) for key, value in ctx.run(alone).items())
            ratio = float((effect - effects[name]).abs().max()) / moved if moved > 0 else 0.0
            found[name] = max(found.get(name, 0.0), ratio)
    return found


def _nudge(ctx: Context, base: Any, layer: str, way: str) -> None:
    """Move the weights of a layer of a dequantised base."""
    weight = _modules(base, ctx.adapter_name)[layer].weight.data
    if way == "all alike":
        weight *= 1 + _NUDGE
    elif way == "one":  # as when a value is quantised to the next code
        weight.view(-1)[weight.abs().argmax()] *= 1 + 100 * _NUDGE
    else:
        draw = fill.uniform("nudge", layer, weight.numel()).reshape(tuple(weight.shape))
        weight *= 1 + _NUDGE * ctx.torch.from_numpy(draw).to(weight)
