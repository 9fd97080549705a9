"""Hand-made observations: a sound pair, and changes of it that each break one thing.

The model is a causal language model of two layers with an adapter on each, whose numbers obey what the probes promise:
what must equal what does, up to float32's rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.core.observation import Array, Observed
from harness.judge import compare, numbers
from harness.judge.judgement import Judgement
from harness.worker.shared import PRECISIONS

LAYERS = ("layers.0.q_proj", "layers.1.q_proj")
SHAPE = (2, 5, 7)
"""Batch, tokens, vocabulary."""
NOISE = 1e-7
FORWARD = "forward/float32/logits"
KEYS = tuple(f"base_model.model.{layer}.lora_{part}.weight" for layer in LAYERS for part in "AB")
HEAD = "base_model.model.lm_head.modules_to_save.weight"
BIAS = "base_model.model.layers.0.q_proj.bias"
LIKE_FORWARD = (
    "merged",
    "unmerged",
    "safe_merged",
    "merge_and_unload",
    "merged_saved",
    "roundtrip",
    "renamed",
    "second",
)
BOTH_PRECISIONS = ("forward", "base", "layers", "gradients", "merged", "merge_and_unload")
FACTS_ALONE = ("accounting", "structure")

Mutation = Callable[["Pair"], None]


class Side:
    """One observation that can still be changed."""

    def __init__(self, seed: int) -> None:
        self.arrays: dict[str, Array] = {}
        self.facts: dict[str, Any] = _facts()
        self.load: dict[str, Any] = {precision: {"outcome": "ok"} for precision in PRECISIONS}
        self.probes: dict[str, dict[str, Any]] = {}
        self._fill(np.random.default_rng(seed))

    def _fill(self, noise: np.random.Generator) -> None:
        meaning = _meaning()
        for name, wide in meaning.items():
            probe = name.split("/")[0]
            self.probes.setdefault(probe, {})["float32"] = {"outcome": "ok"}
            rest = name.split("/", 1)[1]
            rounded = wide + NOISE * noise.uniform(-1, 1, wide.shape)
            self.arrays[f"{probe}/float32/{rest}"] = rounded.astype(np.float32)
            if probe in BOTH_PRECISIONS:
                self.probes[probe]["float64"] = {"outcome": "ok"}
                self.arrays[f"{probe}/float64/{rest}"] = wide + 1e-16 * noise.uniform(-1, 1, wide.shape)
        for precision in PRECISIONS:
            self.arrays[f"forward/{precision}/sketch"] = np.arange(12.0).reshape(2, 6) + 1.0
        prompt = np.array([[3, 1, 4, 1, 5]])
        first = int(self.arrays["forward/float32/logits"][0, -1].argmax())
        plain = int(self.arrays["base/float32/logits"][0, -1].argmax())
        self.arrays["inputs/input_ids"] = np.concatenate([prompt, prompt])
        self.arrays["generate/float32/tokens"] = np.concatenate([prompt, [[first, 2]]], axis=1)
        self.arrays["generate/float32/base.tokens"] = np.concatenate([prompt, [[plain, 6]]], axis=1)
        for probe in (*FACTS_ALONE, "generate"):
            self.probes[probe] = {"float32": {"outcome": "ok"}}

    def observed(self) -> Observed:
        """As the comparing core reads it."""
        return Observed("sound", self.load, self.probes, self.facts, self.arrays)

    def names(self, probe: str, precision: str = "") -> list[str]:
        """Full names of a probe's arrays; without a probe, of all that were observed."""
        found = [name for name in self.arrays if "sketch" not in name and not name.startswith("inputs/")]
        return [name for name in found if name.startswith(f"{probe}/") or not probe if f"/{precision}" in name]

    def shift(self, probe: str, by: float, *, precision: str = "", only: str = "") -> None:
        """Move all elements of a probe's arrays."""
        for name in self.names(probe, precision):
            if name.endswith(only):
                self.arrays[name] = (self.arrays[name] + by).astype(self.arrays[name].dtype)

    def drop(self, prefix: str) -> None:
        """Forget arrays."""
        self.arrays = {name: array for name, array in self.arrays.items() if not name.startswith(prefix)}

    def raises(self, probe: str, precision: str = "float32") -> None:
        """The probe raises and leaves nothing."""
        error = {"stage": probe, "type": "ValueError", "message": "no", "traceback": ""}
        self.probes[probe][precision] = {"outcome": "error", "error": error}
        self.drop(f"{probe}/{precision}/")

    def skips(self, probe: str, reason: str) -> None:
        """The probe does not apply."""
        self.probes[probe] = {"float32": {"outcome": "skipped", "reason": reason}}
        self.drop(f"{probe}/")

    def warns(self, probe: str, text: str) -> None:
        """Something is warned while the probe runs."""
        self.probes[probe]["float32"].setdefault("warnings", []).append(text)

    def without_float64(self) -> None:
        """Nothing of it runs in float64."""
        error = {"stage": "base", "type": "RuntimeError", "message": "no double", "traceback": ""}
        self.load["float64"] = {"outcome": "error", "error": error}
        self.arrays = {name: array for name, array in self.arrays.items() if "/float64/" not in name}
        for said in self.probes.values():
            said.pop("float64", None)


class Pair:
    """A golden and a replay."""

    def __init__(self) -> None:
        self.golden, self.now = Side(1), Side(2)

    def judge(self) -> Judgement:
        """What the comparing core says of it."""
        return compare.judge(self.golden.observed(), self.now.observed())

    def allowance(self, name: str) -> float:
        """How far the replay's array may be from the golden's."""
        golden, now = self.golden.observed(), self.now.observed()
        return numbers.allowance(name, golden.arrays[name], numbers.measure(golden), numbers.measure(now))

    def bound(self, name: str) -> float:
        """How far the replay's array may be from the golden's, however imprecise the loader's own float32 turns out."""
        golden = self.golden.observed()
        return (1 + numbers.BELIEVED) * numbers.measure(golden).of(name, golden.arrays[name])

    def move_outputs(self, by: float) -> None:
        """The adapter computes something else, everywhere and consistently."""
        for probe in ("forward", "layers", "gradients", "train", "fresh", *LIKE_FORWARD):
            self.now.shift(probe, by)

    def move_base(self, by: float) -> None:
        """The base computes something else; what is on it follows, the layers' own effect does not."""
        for probe in ("base", "unloaded", "forward", "gradients", "train", "fresh", *LIKE_FORWARD):
            self.now.shift(probe, by)


def exact() -> Pair:
    """A pair that is equal to the bit."""
    pair = Pair()
    pair.now = copy.deepcopy(pair.golden)
    return pair


def mutated(mutation: Mutation) -> Judgement:
    """The judgement of the sound pair after a mutation."""
    pair = Pair()
    mutation(pair)
    return pair.judge()


def told(judgement: Judgement) -> str:
    """All that a judgement says, for the message of a failed test."""
    findings = (f"{f.verdict} {f.probe} {f.kind}: {f.message}" for f in judgement.findings)
    return "\n".join([*findings, *judgement.notes, *judgement.standing_defects])


def _meaning() -> dict[str, Array]:
    """What an exact computer would yield, by `probe/name`."""
    draw = np.random.default_rng(0)
    base = draw.uniform(-2, 2, SHAPE)
    logits = base + draw.uniform(-1, 1, SHAPE)
    found = {"forward/logits": logits, "base/logits": base, "base/disabled.logits": base, "unloaded/logits": base}
    found |= {f"{probe}/logits": logits for probe in ("train", "fresh", *LIKE_FORWARD)}
    for layer in LAYERS:
        found[f"layers/{layer}"] = draw.uniform(-1, 1, (1, 5, 4))
        found[f"gradients/{layer}.lora_A.weight"] = draw.uniform(-1, 1, 6)
        found[f"gradients/{layer}.lora_A.weight"][1] = 1.0  # the root mean square of the gradient
    return found


def _facts() -> dict[str, Any]:
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["k_proj", "q_proj"], "bias": "none", "rank_pattern": None}
    inference = {f"{layer}.lora_{part}.weight": [[4, 4], "torch.float32", True] for layer in LAYERS for part in "AB"}
    inference |= {f"{name}.weight": [[4, 4], "torch.float32", False] for name in (*LAYERS, "embed")}
    ties = [["lm_head.weight", "embed.weight"]]
    return {
        "forward": {"sketch": [[layer, "adapter"] for layer in LAYERS]},
        "layers": {"names": list(LAYERS), "missing": []},
        "accounting": {"tensors": {key: {"found": "whole", "at": [key]} for key in KEYS}, "base_changed": []},
        "structure": {
            "inference": inference,
            "trainable": sorted(name for name in inference if "lora" in name),
            "ties": ties,
        },
        "merged": {"ties": ties},
        "unloaded": {"ties": ties, "base_changed": []},
        "merge_and_unload": {"ties": ties},
        "roundtrip": {"lost": [], "added": [], "changed": [], "config": dict(config), "config_before": config},
        "second": {"other_differs": True, "trainable_other": ["beside"], "trainable_back": ["first"]},
        "fresh": {"files": ["adapter_model.bin"], "keys": {key: [4, 4] for key in KEYS}, "config": config},
        "repeat": {},
    }


# -- what can be done to a sound pair --------------------------------------------------------------------------------


def fact(side: str, probe: str, key: str, value: Any) -> Mutation:
    return lambda pair: getattr(pair, side).facts[probe].__setitem__(key, value)


def both(*mutations: Mutation) -> Mutation:
    def apply(pair: Pair) -> None:
        for mutation in mutations:
            mutation(pair)

    return apply


def now(method: str, *args: Any, **kwargs: Any) -> Mutation:
    return lambda pair: getattr(pair.now, method)(*args, **kwargs)


def golden(method: str, *args: Any, **kwargs: Any) -> Mutation:
    return lambda pair: getattr(pair.golden, method)(*args, **kwargs)


def beyond(name: str, factor: float = 10.0) -> Mutation:
    """One element of one array off by so many times its allowance."""

    def apply(pair: Pair) -> None:
        array = pair.now.arrays[name].astype(np.float64)
        array.flat[3] = pair.golden.arrays[name].flat[3] + factor * pair.allowance(name)
        pair.now.arrays[name] = array.astype(pair.now.arrays[name].dtype)

    return apply


def put(side: str, name: str, value: float) -> Mutation:
    def apply(pair: Pair) -> None:
        getattr(pair, side).arrays[name].flat[0] = value

    return apply


def swapped_layers(pair: Pair) -> None:
    for precision in ("float32", "float64"):
        one, other = (f"layers/{precision}/{layer}" for layer in LAYERS)
        pair.now.arrays[one], pair.now.arrays[other] = pair.now.arrays[other], pair.now.arrays[one]


def base_moves(by: float) -> Mutation:
    return lambda pair: pair.move_base(by)


def no_layer_evidence(pair: Pair) -> None:
    for side in (pair.golden, pair.now):
        side.skips("layers", "no adapter layer is called with a single tensor")


def lost(*keys: str) -> Mutation:
    def apply(pair: Pair) -> None:
        for side, where in ((pair.golden, "whole"), (pair.now, "nowhere")):
            side.facts["accounting"]["tensors"] |= {key: {"found": where, "at": []} for key in keys}

    return apply


def refuses(side: Side) -> None:
    error = {"stage": "state dict", "type": "RuntimeError", "message": "size mismatch", "traceback": ""}
    side.load["float32"] = {"outcome": "error", "error": error}
    side.arrays, side.probes, side.facts = {}, {}, {}


def tokens(side: str, tokens: list[int], name: str = "tokens") -> Mutation:
    def apply(pair: Pair) -> None:
        array = getattr(pair, side).arrays[f"generate/float32/{name}"]
        array[0, -len(tokens) :] = tokens

    return apply


def golden_generates_without_adapter(pair: Pair) -> None:
    arrays = pair.golden.arrays
    arrays["generate/float32/tokens"] = arrays["generate/float32/base.tokens"].copy()


def dropout(*sides: str) -> Mutation:
    def apply(pair: Pair) -> None:
        for number, side in enumerate(sides):
            getattr(pair, side).shift("train", 0.5 + number)

    return apply


def another_dtype(pair: Pair) -> None:
    pair.now.facts["structure"]["inference"][f"{LAYERS[0]}.weight"][1] = "torch.bfloat16"


def another_shape(pair: Pair) -> None:
    pair.now.facts["structure"]["inference"][f"{LAYERS[0]}.weight"][0] = [16]


def saved_config(**changes: Any) -> Mutation:
    def apply(pair: Pair) -> None:
        config = pair.now.facts["roundtrip"]["config"]
        for key, value in changes.items():
            if value is ...:
                del config[key]
            else:
                config[key] = value

    return apply


def nothing_comparable(pair: Pair) -> None:
    pair.now.arrays = {}


def all_nan(pair: Pair) -> None:
    for side in (pair.golden, pair.now):
        for name in side.names("forward"):
            side.arrays[name][:] = np.nan


def spread(by: float, probe: str = "forward", off: float = 0.0) -> Mutation:
    def apply(pair: Pair) -> None:
        pair.golden.facts["repeat"] = {f"{probe}/{p}/logits": by for p in ("float32", "float64")}
        pair.now.shift(probe, off)

    return apply
