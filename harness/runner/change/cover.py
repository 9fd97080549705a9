"""Chooses few scenarios that have every feature between them, for a change that can affect all of them. Pure.

A feature is what a scenario declares: the method, an argument of its configuration, a load path, a wrapper, a kind of
base. Features are read from the declaration, so a new argument or a new kind of base is a new feature without a change
here. Words and switches are features by their value, numbers are not: `bias` has one for each of its words, `r` one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from harness.core.matrix import Declared
from harness.core.scenario import Adapter

_AS_BYTES = 20_000
_PER_LOAD_PATH = 5_000
"""What a cell and each load path cost, in bytes of a golden: replays of 600 fixtures took so many seconds."""
_NOT_FEATURES = {
    "name", "why", "guards", "family", "base", "base_file", "quantize", "adapter", "beside", "inputs", "outputs",
    "requires", "creator_requires", "stored_by", "wrap", "load_paths", "doors", "expects", "skip", "time_limit_s",
    "when", "transformers", "modules", "python", "hub", "generate", "load_with",
}  # fmt: skip
"""Fields that say nothing of what is computed, or that have their own lines below."""


def features(one: Declared) -> frozenset[str]:
    """What a scenario covers, each in words: `LoraConfig.use_dora=true`, `LoraConfig: load path hotswap`."""
    return frozenset((*_of_adapters(one), *_of_base(one), *_of_scenario(one)))


def _of_adapters(one: Declared) -> Iterator[str]:
    scenario, adapter = one.scenario, one.scenario.adapter
    yield adapter.config
    yield from _named(adapter.config, adapter.args)
    yield from _alpha(adapter)
    kinds = {"convert": adapter.convert, "mixture": adapter.experts, "beside": scenario.beside}
    yield from (f"{adapter.config}: {kind}" for kind, given in kinds.items() if given)
    for name in (load_paths := scenario.every_load_path()):
        yield from (f"load path {name}", f"{adapter.config}: load path {name}")
    if load_paths:
        yield from (f"{adapter.config}.{name} with load paths" for name in adapter.args)
    for more in (*adapter.experts.values(), *([scenario.beside] if scenario.beside else [])):
        yield f"{more.config} beside another"
    for when in scenario.when:
        yield from _named(when.config or adapter.config, when.args)


def _named(owner: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{owner}.{name}{kind}" for name, value in values.items() for kind in _kinds(name, value))


def _kinds(name: str, value: Any) -> Iterator[str]:
    """What sets a value apart from others of the same argument."""
    match value:
        case bool():
            yield f"={str(value).lower()}"
        case str():
            yield " as a pattern" if name.endswith(("_modules", "_pattern")) else f"={value}"
        case 1 | 1.0:  # where a product, a quotient and a root are the same
            yield "=1"
        case Mapping() | list() if value:
            yield " as a table" if isinstance(value, Mapping) else ""
            texts = [text for text in value if isinstance(text, str)]
            yield from (f": {text.rpartition('.')[2]}" for text in texts)
            if any(text.startswith("^") for text in texts):
                yield " with an anchored name"
        case _:
            yield "" if value else " empty"


def _alpha(adapter: Adapter) -> Iterator[str]:
    """Whether the scaling is 1, which hides that it is forgotten."""
    rank = adapter.args.get("r")
    for name, value in adapter.args.items():
        if "alpha" in name and rank is not None and isinstance(value, int | float):
            yield f"{adapter.config}.{name} {'equals' if value == rank else 'differs from'} r"


def _of_base(one: Declared) -> Iterator[str]:
    base, config = one.base, one.scenario.adapter.config
    if base.transformers:
        yield f"base {base.transformers.model}"
        yield f"{config} on {base.transformers.model}"
        if base.transformers.args.get("tie_word_embeddings"):
            yield f"{config} on a tied base"
            yield from (f"{config}.{name} on a tied base" for name in one.scenario.adapter.args)
    layers = [module.type for module in base.modules or () if module.args or module.kwargs]  # no `ReLU`
    yield from (f"{config} on {layer}" for layer in layers)
    if base.python:
        yield f"base {one.base_name}"
    if quantize := one.quantize:
        yield f"{config} on {quantize.bits} bits"
        yield from _named("quantize", quantize.model_dump())
    yield from _named("base load_with", base.load_with)
    yield from (f"base {name}" for name in sorted(base.model_fields_set - _NOT_FEATURES))


def _of_scenario(one: Declared) -> Iterator[str]:
    scenario = one.scenario
    if wrap := scenario.wrap:
        for where, kinds in (("saved", wrap.saved), ("loaded", wrap.loaded)):
            yield from (f"wrapper {kind.partition(':')[0]} {where}" for kind in kinds)
    if scenario.steps:
        yield from (f"step {name}" for name in scenario.steps.names)
    if scenario.sft:
        yield from _named("sft", scenario.sft.model_dump())
    yield from sorted(scenario.model_fields_set - _NOT_FEATURES)


def cost(one: Declared, golden_bytes: int) -> float:
    """What checking a scenario costs, in no unit: more for a large golden and for load paths.

    It is known from what is stored, so that every machine chooses the same scenarios.
    """
    return _AS_BYTES + golden_bytes + _PER_LOAD_PATH * len(one.scenario.every_load_path())


def smallest(having: Mapping[str, Set[str]], cost: Mapping[str, float]) -> list[str]:
    """Names that have every feature between them, cheap ones first: a greedy cover without a name to spare.

    Args:
        having: name → its features.
        cost: name → what it costs to check.

    Returns:
        In the order of `having`. The same for the same arguments.
    """
    missing = set().union(*having.values())
    chosen: list[str] = []
    while missing:
        best = max(having, key=lambda name: len(missing & having[name]) / cost[name])
        chosen.append(best)
        missing -= having[best]
    return _without_spare(having, cost, chosen)


def _without_spare(having: Mapping[str, Set[str]], cost: Mapping[str, float], chosen: Iterable[str]) -> list[str]:
    kept = list(chosen)
    for name in sorted(kept, key=lambda name: -cost[name]):
        others = set().union(*(having[other] for other in kept if other != name))
        if having[name] <= others:
            kept.remove(name)
    return [name for name in having if name in kept]
