"""A model's configuration, made small: the same architecture in a few hundred kB.

Sizes are not set, they are scaled: what was equal stays equal, what was a multiple stays one, and what differed still
differs, so that swapped tensors do not fit by accident. `kinds` says what kind of size a key holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.own.kinds import Kind, kind_of
from harness.own.sizes import (
    SMALL,
    UNITS,
    Config,
    depth_of,
    every_width,
    expert_count,
    heads_of,
    hidden_width,
    image_tokens,
    is_by_layer,
    is_cycle,
    is_layer_table,
    numbers,
    of_kind,
    patch_grid,
    plain_head_sizes,
    rotary_share,
    sections_of,
    shares,
    small_head_sizes,
    small_heads,
    stage_count,
    stage_widths,
    vocabulary_of,
    with_products,
)

_TOKENS = 96
_FIRST_TOKENS = 3
_PATCH = 4
_IMAGE = 32
_MOST_LAYERS = 6
_MOST_TIMES = 4
"""No width is wider than that of the layers so many times."""
_MOST: Mapping[Kind, int] = {
    Kind.BLOCKS: 2,
    Kind.LENGTH: 64,
    Kind.SHORTER_LENGTH: 16,
    Kind.WINDOW: 32,
    Kind.PATCH: _PATCH,
    Kind.EXPERTS_USED: 2,
    Kind.EXPERT_GROUPS: 2,
    Kind.EXPERT_GROUPS_USED: 1,
}
"""Kinds whose values are cut off."""


@dataclass(frozen=True)
class Shrunk:
    """A small configuration, and how numbers of the large one translate.

    Attributes:
        config: the small configuration.
        layers: the layers of the large model that are left, by their old numbers, in order.
        tokens: old id of a special token → new id.
        widths: old width → new width.
        vocabulary: the small size of the largest vocabulary; 0 if there is none.
        experts: the small number of experts; 0 if there are none.
    """

    config: dict[str, Any]
    layers: tuple[int, ...]
    tokens: Mapping[int, int]
    widths: Mapping[int, int]
    vocabulary: int
    experts: int = 0

    def layer(self, old: int) -> int | None:
        """The new number of a layer; None if it is left out."""
        return self.layers.index(old) if old in self.layers else None


GRAINS = (8, 32)
"""Widths are multiples of the first; of the second where a library needs rounder ones."""


def unmarked(_: int) -> None:
    """An adapter that treats all layers alike."""


def shrink(config: Config, marks: Callable[[int], Any] = unmarked, grain: int = GRAINS[0]) -> Shrunk:
    """Make a configuration small.

    Args:
        config: `config.json`, with the defaults of the architecture filled in.
        marks: a layer's number → what an adapter does there. At least one layer of each kind is kept.
        grain: what the widths are multiples of.
    """
    sections = list(sections_of(config))
    layers = _layers_to_keep(sections, marks)
    special = sorted({token for token in _tokens(config) if token > _FIRST_TOKENS}, reverse=True)
    plan = _Plan(layers, grain, special)
    for step in (plan.add_stack, plan.add_widths):
        for section in sections:
            step(section)
    small = plan.section(config, None)
    size = max(plan.vocabularies.values(), default=0)
    tokens = {token: plan.token(token, max(plan.vocabularies, default=0)) for token in special}
    return Shrunk(small, layers, tokens, plan.widths, size, _experts(small))


def _experts(small: Config) -> int:
    return max((one for section in sections_of(small) for one in numbers(section, Kind.EXPERTS).values()), default=0)


def _tokens(config: Config) -> Iterator[int]:
    """The ids of special tokens, of all sections."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _tokens(value)
        elif kind_of(key) is Kind.TOKEN:
            many = value if isinstance(value, list) else [value]
            yield from (one for one in many if isinstance(one, int) and not isinstance(one, bool))


# Which layers are left


def _layers_to_keep(sections: Sequence[Config], marks: Callable[[int], Any]) -> tuple[int, ...]:
    """The first layer of each kind in each section, at least two of each section.

    Layers differ by what the configuration says of them, and by what the adapter has there.
    """
    kept: set[int] = set()
    for section in sections:
        kinds: dict[Any, int] = {}
        for layer in range(depth_of(section)):
            kinds.setdefault((_sign(section, layer), repr(marks(layer))), layer)
        kept.update(sorted(kinds.values())[:_MOST_LAYERS])
    for depth in filter(None, map(depth_of, sections)):
        missing = 2 - sum(layer < depth for layer in kept)
        kept.update([layer for layer in range(depth) if layer not in kept][: max(missing, 0)])
    return tuple(sorted(kept))


def _sign(section: Config, layer: int) -> str:
    """What the configuration says of one layer."""
    depth = depth_of(section)
    cycles = [value for key, value in sorted(section.items()) if is_cycle(key, value, depth)]
    said: list[Any] = [layer % len(cycle) for cycle in cycles]
    said += [value[layer] for _, value in sorted(section.items()) if is_by_layer(value, depth)]
    tables = [value for value in section.values() if isinstance(value, Mapping) and is_layer_table(value, depth)]
    said += [{int(key): one for key, one in table.items()}.get(layer) for table in tables]
    said += [layer < value for value in numbers(section, Kind.FIRST_LAYERS).values()]
    said += [layer >= depth - value for value in numbers(section, Kind.LAST_LAYERS).values()]
    for value in of_kind(section, Kind.LAYER_INDEX).values():
        if isinstance(value, list):
            said.append(layer in value)
    said += [layer + 1 in value for value in of_kind(section, Kind.STAGE_INDEX).values() if isinstance(value, list)]
    return repr(said)


# How numbers translate


@dataclass
class _Scale:
    """How the sizes of one section translate."""

    depth: int
    heads: Mapping[int, int]
    head_sizes: Mapping[int, int]
    rotary: int
    """The small size of the part of a head that rotates."""
    grid: tuple[int, int]
    """Patches along a side of the image: before and after."""
    stages: int
    vocabulary: int
    experts: int


@dataclass
class _Plan:
    """Translations that all sections share: one section's width is another one's input."""

    layers: tuple[int, ...]
    grain: int
    special: Sequence[int]
    """The ids of special tokens but the first few, the last one first."""
    widths: dict[int, int] = field(default_factory=dict)
    vocabularies: dict[int, int] = field(default_factory=dict)
    units: dict[int, dict[int, int]] = field(default_factory=dict)
    """Identity of a section → sizes of its heads."""

    def add_stack(self, section: Config) -> None:
        """Fix the widths of a section's layers, and its vocabulary, before anything is translated."""
        for size in numbers(section, Kind.VOCABULARY).values():
            self.vocabularies.setdefault(size, min(size, _TOKENS - 8 * min(len(self.vocabularies), 4)))
        if stages := stage_widths(section):
            least = min(stages)
            for width in [*stages, *numbers(section, Kind.WIDTH).values()]:
                if width > SMALL and width % least == 0:
                    self.widths.setdefault(width, self.grain * (width // least))
        elif (hidden := hidden_width(section)) > SMALL and hidden not in self.widths:
            self.widths[hidden] = self._stack(section, hidden)

    def _stack(self, section: Config, hidden: int) -> int:
        """A width for a stack of layers that no other one has: its heads divide it, or it is their product."""
        heads = small_heads(section)
        counts = [count for count in heads_of(section) if hidden % count == 0]
        taken = set(self.widths.values())
        stages = max(
            (len(value) for value in of_kind(section, Kind.HEADS).values() if isinstance(value, list)), default=1
        )
        divisors = [*(heads[n] for n in counts), self.grain * 2 ** (stages - 1)]
        width = 0
        for unit in UNITS:
            sizes = self.units[id(section)] = small_head_sizes(section, unit)
            products = [heads[n] * sizes[hidden // n] for n in counts if hidden // n in sizes]
            step = math.lcm(*(heads[n] for n in counts), self.grain)
            width = next(iter(products), 0) or step * math.ceil(max(16, unit * 4) / step)
            if width not in taken and not any(width % divisor for divisor in divisors):
                break
        return width

    def add_widths(self, section: Config) -> None:
        """Fix all other widths of a section, in proportion to that of its layers."""
        every, hidden = every_width(section), hidden_width(section)
        if hidden <= SMALL:
            return
        width = self._any_width(hidden)
        for times in (2, 3, 4, 8):
            if hidden * times in every and times <= _MOST_TIMES:
                self.widths.setdefault(hidden * times, width * times)
            if hidden // times in every and hidden % times == 0 and width % (self.grain * times) == 0:
                self.widths.setdefault(hidden // times, width // times)
        for old in sorted(every):
            if old > SMALL:
                self._width(old, hidden, width)

    def _width(self, old: int, hidden: int, width: int) -> None:
        """A width in proportion, as a multiple of the grain that no other one has."""
        if old in self.widths:
            return
        grain = self.grain
        wanted = grain * max(min(round(old * width / hidden / grain), _MOST_TIMES * width // grain), 1)
        taken = set(self.widths.values())
        while wanted in taken:
            wanted += grain
        self.widths[old] = wanted

    # one section

    def section(self, config: Config, outer: _Scale | None) -> dict[str, Any]:
        """A section, small."""
        scale = self._scale(config, outer)
        small: dict[str, Any] = {}
        for key, value in config.items():
            kind = kind_of(key)
            if kind is Kind.DROP:
                continue
            if isinstance(value, Mapping) and is_layer_table(value, scale.depth):
                kept = {str(self.layers.index(int(n))): one for n, one in value.items() if int(n) in self.layers}
                small[key] = {number: self.section(one, scale) for number, one in kept.items()}
            elif isinstance(value, Mapping):
                small[key] = self.section(value, scale)
            elif is_by_layer(value, scale.depth) and kind is not Kind.BLOCKS:
                of_layers = [value[layer] for layer in self.layers if layer < scale.depth]
                small[key] = [self._value(kind, one, scale, key) for one in of_layers]
            else:
                small[key] = self._value(kind, value, scale, key)
        return with_products(small, config)

    def _scale(self, config: Config, outer: _Scale | None) -> _Scale:
        own = outer is None or hidden_width(config) or depth_of(config)
        if outer is not None and not own:
            return outer
        sizes = self.units.get(id(config)) or small_head_sizes(config)
        head = next(iter(plain_head_sizes(config)), 0)
        share = rotary_share(config)
        nested = [vocabulary_of(one) for one in sections_of(config)]
        return _Scale(
            depth=depth_of(config) or min(filter(None, map(depth_of, sections_of(config))), default=0),
            heads=small_heads(config),
            head_sizes=sizes,
            rotary=int(sizes.get(head, SMALL) * share),
            grid=patch_grid(config),
            stages=stage_count(config),
            vocabulary=vocabulary_of(config) or max(nested, default=0) or (outer.vocabulary if outer else 0),
            experts=expert_count(config),
        )

    def _value(self, kind: Kind, value: Any, scale: _Scale, key: str) -> Any:
        if kind is Kind.STAGE_INDEX and value is not None:
            return self._stage(value, scale.depth)
        if value is None or isinstance(value, (bool, str, Mapping)):
            return value
        if kind is Kind.ZERO:
            return _zero(value)
        if kind in (Kind.LAYER_INDEX, Kind.ROTARY_SECTIONS, Kind.ROTARY_FACTORS) and isinstance(value, list):
            return self._list(kind, value, scale)
        if isinstance(value, list):
            return [self._value(kind, one, scale, key) for one in value]
        if isinstance(value, float) and not value.is_integer():
            return value
        number = self._number(kind, int(value), scale)
        return type(value)(number)

    def _list(self, kind: Kind, value: list[Any], scale: _Scale) -> list[Any]:
        if kind is Kind.ROTARY_SECTIONS:
            return shares(value, scale.rotary // 2)
        if kind is Kind.ROTARY_FACTORS:
            return value[: max(1, scale.rotary // 2)]
        if not scale.depth or not all(isinstance(one, int) for one in value):
            return value
        kept = [one for one in value if one in self.layers or not 0 <= one < scale.depth]
        return [self._number(kind, one, scale) for one in kept or value[-1:]]

    def _before(self, layer: int) -> int:
        """How many of the layers before this one are left."""
        return sum(one < layer for one in self.layers)

    def _stage(self, value: Any, depth: int) -> Any:
        """After how many layers something is taken, as a number or as `stage12`; stages stay as they are."""
        if isinstance(value, list):
            return list(dict.fromkeys(self._stage(one, depth) for one in value))
        if isinstance(value, str):
            word = value.rstrip("0123456789")
            return f"{word}{self._stage(int(value[len(word) :]), depth)}" if word != value else value
        return sum(layer < value for layer in self.layers) if depth and value > 0 else value

    def _number(self, kind: Kind, value: int, scale: _Scale) -> int:
        left = self._before(scale.depth)
        match kind:
            case Kind.WIDTH:
                return self._any_width(value)
            case Kind.HEADS:
                return scale.heads.get(value, value)
            case Kind.HEAD_SIZE:
                return scale.head_sizes.get(value, value)
            case Kind.ROTARY_SIZE:
                return max(2, scale.rotary)
            case Kind.LAYERS | Kind.FIRST_LAYERS:
                return self._before(value)
            case Kind.LAST_LAYERS:
                return left - self._before(scale.depth - value)
            case Kind.LAYER_INDEX:
                return max(value, -left) if value < 0 else min(self._before(value), self._before(scale.depth))
            case Kind.TOKEN:
                return self.token(value, scale.vocabulary)
            case Kind.VOCABULARY:
                return self.vocabularies.get(value, value)
            case Kind.PATCHES:
                return image_tokens(value, scale.grid)
            case Kind.IMAGE:
                return scale.grid[1] * _PATCH if scale.grid[0] else min(value, _IMAGE)
            case Kind.WINDOW if scale.stages > 1:
                return min(value, 2)  # it must fit into the smallest stage
            case Kind.EXPERTS:
                return min(value, scale.experts)
            case Kind.PERIOD:
                return min(value, max(left, 1))
            case Kind.OFFSET:
                return min(value, max(left - 1, 0))
            case Kind.GROUPS:
                return min(value, 4 if value % 4 == 0 else 2)
            case _:
                return min(value, _MOST.get(kind, value))

    def _any_width(self, value: int) -> int:
        if value <= SMALL:
            return value
        if value not in self.widths:
            hidden = max(self.widths, default=value)
            self._width(value, hidden, self.widths.get(hidden, 32))
        return self.widths[value]

    def token(self, value: int, vocabulary: int) -> int:
        """The id of a special token: the first few stay, the others move to the end, in their order."""
        size = self.vocabularies.get(vocabulary, _TOKENS)
        if vocabulary <= size or value not in self.special:
            return value
        return size - 1 - self.special.index(value) % (size // 2)


def _zero(value: Any) -> Any:
    return [_zero(one) for one in value] if isinstance(value, list) else type(value)(0)
