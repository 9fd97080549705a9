"""Which layers of a big model are left when an adapter is tried: the first that it touches, one of each kind (pure).

A configuration has sections: itself, and those nested in it (`text_config`, `vision_config`). Each has its own layers.
The adapter's keys name them: `base_model.model.model.layers.20.self_attn.q_proj.lora_A.weight` is of layer 20 in the
stack `base_model.model.model.layers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import UsageError
from harness.own.kinds import Kind, kind_of

Config = Mapping[str, Any]
Path = tuple[str, ...]
"""Where a section is: `()` for the configuration itself, `("text_config",)`."""
Shapes = Mapping[str, tuple[int, ...]]

_STACKS = frozenset({"layers", "layer", "h", "block", "blocks", "resblocks", "encoder_layers", "decoder_layers",
                     "hidden_layers", "transformer_layers", "layer_list", "layers_list"})  # fmt: skip
"""Names of the list that holds a model's layers. A number after another name is no layer: `classifier.0.weight`."""
_WORDS: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "language", "llm", "thinker"),
    "vision": ("vision", "visual", "image", "vit"),
    "audio": ("audio", "speech"),
    "qformer": ("qformer",),
    "encoder": ("encoder",),
    "decoder": ("decoder",),
    "backbone": ("backbone",),
}
"""The word in a section's name → words in the names of its stacks."""
_MORE = 2
"""So many layers more than asked for are kept, so that each kind of layer is there."""


@dataclass(frozen=True)
class Place:
    """Where a key's layer is."""

    stack: str
    layer: int
    rest: str
    """What follows the number; `.self_attn.q_proj.lora_A.weight`."""


@dataclass(frozen=True)
class Chosen:
    """The layers of one section that are left.

    Attributes:
        depth: how many it has; with what the adapter says if the configuration does not.
        layers: those that are left, by their old numbers, in order. They get the numbers 0, 1, ….
        touched: those in which the adapter has tensors.
    """

    depth: int
    layers: tuple[int, ...]
    touched: tuple[int, ...] = ()

    @property
    def renumbered(self) -> bool:
        """True if a layer gets another number."""
        return self.layers != tuple(range(len(self.layers)))

    @property
    def is_whole(self) -> bool:
        """True if no layer is left out."""
        return len(self.layers) == self.depth

    def new(self, layer: int) -> int | None:
        """The new number of a layer; None if it is left out."""
        return self.layers.index(layer) if layer in self.layers else None


def place_of(key: str) -> Place | None:
    """The layer that a tensor, or a module, belongs to; None if it belongs to none."""
    parts = key.split(".")
    for index, part in enumerate(parts[1:], 1):
        if part.isdecimal() and len(part) < 6 and parts[index - 1] in _STACKS:
            rest = ".".join(parts[index + 1 :])
            return Place(".".join(parts[:index]), int(part), f".{rest}" if rest else "")
    return None


def sections(config: Config) -> dict[Path, Config]:
    """The sections that have layers of their own."""
    return dict(_sections(config, ()))


def _sections(config: Config, path: Path) -> Iterator[tuple[Path, Config]]:
    nested = [(key, value) for key, value in config.items() if isinstance(value, Mapping)]
    models = [(key, value) for key, value in nested if _is_section(key, value)]
    # old releases of Transformers write only what differs from the default, so a section may not state its layers
    if depth_of(config) or (_is_text(path[-1]) if path else not any(_is_text(key) for key, _ in models)):
        yield path, config
    for key, value in models:
        yield from _sections(value, (*path, key))


def _is_section(key: str, value: Config) -> bool:
    return (key.endswith("_config") and "quantization" not in key) or "model_type" in value


def _is_text(key: str) -> bool:
    return "text" in key or key in ("llm_config", "language_config", "thinker_config")


def depth_of(section: Config) -> int:
    """The number of layers that a section states; 0 if it states none."""
    return max(counts(section).values(), default=0)


def counts(section: Config) -> dict[str, int]:
    """The entries of a section that are numbers of layers."""
    return {key: value for key, value in section.items() if kind_of(key) is Kind.LAYERS and _is_count(value)}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10_000


def section_of(stack: str, known: Iterable[Path]) -> Path:
    """The section that describes a stack of layers."""
    found, parts = list(known), stack.lower()
    for path in sorted(found, key=len, reverse=True):
        words = [words for name, words in _WORDS.items() if path and name in path[-1]]
        if any(word in parts for group in words for word in group):
            return path
    text = [path for path in found if path and _is_text(path[-1])]
    return () if () in found else text[0] if text else found[0] if found else ()


def choose(config: Config, shapes: Shapes, most: int | None, *, renumber: bool = True) -> dict[Path, Chosen]:
    """The layers of each section that are left.

    Args:
        shapes: key → shape, of the adapter's tensors.
        most: layers with tensors of the adapter that are kept; None for all layers.
        renumber: layers may get other numbers; else all layers up to the last that is kept stay.

    Raises:
        UsageError: the adapter has a tensor of a layer that the base does not have.
    """
    known = sections(config)
    marks: dict[Path, dict[int, set[str]]] = {path: {} for path in known}
    for key, shape in shapes.items():
        if (place := place_of(key)) and (path := section_of(place.stack, known)) in marks:
            marks[path].setdefault(place.layer, set()).add(f"{place.rest} {shape}")
            _must_exist(key, place, known[path])
    return {path: _chosen(known[path], marks[path], most, renumber) for path in known}


def _must_exist(key: str, place: Place, section: Config) -> None:
    depth = depth_of(section)
    if depth and place.layer >= depth and not _has_stages(section):
        raise UsageError(
            f"the adapter has a tensor of layer {place.layer} ({key}), and the base has {depth} layers",
            "the configuration of the model that the adapter was trained on", "pass that model's folder with --base",
        )  # fmt: skip


def _has_stages(section: Config) -> bool:
    return any(kind_of(key) is Kind.BLOCKS for key in section)


def _chosen(section: Config, marks: Mapping[int, set[str]], most: int | None, renumber: bool) -> Chosen:
    touched = tuple(sorted(marks))
    depth = max(depth_of(section), (touched[-1] + 1) if touched else 0)
    if most is None or _has_stages(section) or not depth:
        return Chosen(depth, tuple(range(depth)), touched)
    if not touched:
        return Chosen(depth, tuple(range(min(most, depth))))
    first = touched[:most]
    kinds = [_kind(section, depth, layer, marks[layer]) for layer in touched]
    more = [layer for index, layer in enumerate(touched) if kinds.index(kinds[index]) == index and layer not in first]
    kept = {*first, *more[:_MORE]}
    if (beside := _beside(depth, first[0], touched)) is not None:
        kept.add(beside)
    chosen = Chosen(depth, tuple(sorted(kept)), touched)
    if chosen.renumbered and not (renumber and _can_renumber(section)):
        return Chosen(depth, tuple(range(max(first) + 1)), touched)
    return chosen


def _beside(depth: int, first: int, touched: Sequence[int]) -> int | None:
    """The layer without the adapter that is nearest: an adapter that gets into it must show."""
    free = [layer for layer in range(depth) if layer not in touched]
    return min(free, key=lambda layer: abs(layer - first), default=None)


def _kind(section: Config, depth: int, layer: int, marks: Iterable[str]) -> str:
    """What the adapter has in a layer, and what the configuration says of it."""
    said = [value[layer] for _, value in sorted(section.items()) if by_layer(value, depth)]
    return repr((sorted(marks), said))


def by_layer(value: Any, depth: int) -> bool:
    """True for a list with one entry for each layer."""
    return isinstance(value, list) and len(value) == depth > 1


def _can_renumber(section: Config) -> bool:
    """False if the number of a layer decides what kind of layer it is."""
    numbers = [value for key, value in section.items() if kind_of(key) is Kind.PERIOD]
    return not any(isinstance(value, int) and value > 1 for value in numbers)


def cut_section(section: Config, chosen: Chosen) -> dict[str, Any]:
    """A section with the chosen layers. Sections in it are left as they are."""
    if chosen.is_whole:
        return dict(section)
    cut = {key: _cut_value(key, value, chosen) for key, value in section.items()}
    if not counts(section):
        cut["num_hidden_layers"] = len(chosen.layers)  # every class understands this name
    return cut


def _cut_value(key: str, value: Any, chosen: Chosen) -> Any:
    kind = kind_of(key)
    if by_layer(value, chosen.depth):
        return [value[layer] for layer in chosen.layers]
    if kind is Kind.LAYER_INDEX:
        return _indices(value, chosen)
    if not _is_count(value) or (kind is Kind.FIRST_LAYERS and value >= chosen.depth):
        return value
    if kind in (Kind.LAYERS, Kind.FIRST_LAYERS):
        return sum(layer < value for layer in chosen.layers)
    if kind is Kind.LAST_LAYERS:
        return sum(layer >= chosen.depth - value for layer in chosen.layers)
    return value


def _indices(value: Any, chosen: Chosen) -> Any:
    """Numbers of layers; negative ones count from the end, and the depth itself is the output of the last layer."""
    left = len(chosen.layers)
    if isinstance(value, list) and all(isinstance(one, int) for one in value):
        kept = [new for one in value if (new := _index(one, chosen, left)) is not None]
        return kept or ([left - 1] if value else [])
    if isinstance(value, int) and not isinstance(value, bool):
        found = _index(value, chosen, left)
        return left - 1 if found is None else found
    return value


def _index(value: int, chosen: Chosen, left: int) -> int | None:
    if value < 0:
        return max(value, -left)
    return left if value == chosen.depth else chosen.new(value)


def renamed(text: str, known: Iterable[Path], chosen: Mapping[Path, Chosen]) -> str | None:
    """A key, or a module's name, with the new number of its layer; None if the layer is left out."""
    place = place_of(text)
    layers = chosen.get(section_of(place.stack, known)) if place else None
    if place is None or layers is None:
        return text
    new = layers.new(place.layer)
    return None if new is None else f"{place.stack}.{new}{place.rest}"


def numbered(text: str) -> bool:
    """True if a regular expression names layers by number."""
    return bool(re.search(r"\d", re.sub(r"\\d|\[0-9\]|\{\d*,?\d*\}|fc\d|w\d|_\d|proj\d|conv\d", "", text)))
