"""What a section of a model's configuration says about sizes, and the small counterparts of heads and images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.own.kinds import Kind, kind_of

Config = Mapping[str, Any]

HIDDEN = ("hidden_size", "d_model", "n_embd", "embed_dim", "model_dim", "dim", "hidden_dim", "width",
          "encoder_hidden_size", "embedding_size", "decoder_hidden_size")  # fmt: skip
"""Names of the width of a stack of layers, in order: the first that a section has."""
UNITS = (4, 8, 12, 16, 20, 24, 32, 40, 64)
"""Sizes of the smallest head of a model, in the order in which they are tried."""
SMALL = 8
"""A width up to this is a number of colours, of coordinates or the like: it stays."""


def of_kind(section: Config, *kinds: Kind) -> dict[str, Any]:
    return {key: value for key, value in section.items() if kind_of(key) in kinds and value is not None}


def numbers(section: Config, *kinds: Kind) -> dict[str, int]:
    found = of_kind(section, *kinds)
    return {key: value for key, value in found.items() if isinstance(value, int) and not isinstance(value, bool)}


def sections_of(config: Config) -> Iterator[Config]:
    """The configuration and those nested in it that have layers or a width of their own, the inner ones first."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield from sections_of(value)
    if hidden_width(config) or any(kind_of(key) in (Kind.LAYERS, Kind.WIDTH, Kind.VOCABULARY) for key in config):
        yield config


def depth_of(section: Config) -> int:
    return max(numbers(section, Kind.LAYERS).values(), default=0)


def hidden_width(section: Config) -> int:
    """The width of a section's layers; 0 if it states none."""
    several = isinstance(section.get("num_heads"), int) and "embed_dim" in section  # then `hidden_size` is the output's
    for key in ("embed_dim", *HIDDEN) if several else HIDDEN:
        value = section.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def is_layer_table(value: Mapping[str, Any], depth: int) -> bool:
    """True for a table by numbers of layers."""
    numbers = bool(value) and all(str(key).isdecimal() and int(key) < depth for key in value)
    return numbers and all(isinstance(one, Mapping) for one in value.values())


def is_by_layer(value: Any, depth: int) -> bool:
    """True for a list with one entry for each layer."""
    return isinstance(value, list) and len(value) == depth > 1


def is_cycle(key: str, value: Any, depth: int) -> bool:
    """True for a list of kinds of layers that repeats: `["recurrent", "recurrent", "attention"]`."""
    words = isinstance(value, list) and 1 < len(value) < depth and all(isinstance(one, str) for one in value)
    return words and ("type" in key or "pattern" in key)


def every_width(section: Config) -> set[int]:
    found: set[int] = set()
    for value in of_kind(section, Kind.WIDTH).values():
        many: Iterable[Any] = value if isinstance(value, list) else [value]
        found |= {one for one in many if isinstance(one, int) and not isinstance(one, bool)}
    return found


def stage_widths(section: Config) -> list[int]:
    """The widths of the stages; empty if the layers have one width."""
    if depth_of(section) and numbers(section, Kind.HEADS):
        return []
    for value in of_kind(section, Kind.WIDTH).values():
        many = value if isinstance(value, list) else []
        if len(set(map(str, many))) > 1 and all(isinstance(one, int) and one > SMALL for one in many):
            return list(many)
    return []


def vocabulary_of(section: Config) -> int:
    sizes = numbers(section, Kind.VOCABULARY)
    return sizes.get("vocab_size") or max(sizes.values(), default=0)


def heads_of(section: Config) -> list[int]:
    found = of_kind(section, Kind.HEADS)
    counts = [one for value in found.values() for one in (value if isinstance(value, list) else [value])]
    return sorted({one for one in counts if isinstance(one, int) and not isinstance(one, bool) and one > 0})


def small_heads(section: Config) -> dict[int, int]:
    """Old number of heads → new one: 1 stays 1, and the groups of key and value heads stay groups."""
    counts = heads_of(section)
    staged = any(isinstance(value, list) for value in of_kind(section, Kind.HEADS).values())
    many = [count for count in counts if count > 1]
    if staged:
        joint = math.gcd(*counts)
        return {count: count // joint for count in counts}
    if many and max(many) <= 4:
        return {count: count for count in counts}
    least = min(many, default=1)
    small = dict.fromkeys(counts, 1)
    for count in many:
        if len(many) == 1:
            small[count] = 4
        else:
            ratio = count // least if count % least == 0 else 2
            small[count] = 2 * min(ratio, 4)
    return small


def plain_head_sizes(section: Config) -> list[int]:
    """The sizes of a head, those of plain attention first."""
    sizes = numbers(section, Kind.HEAD_SIZE)
    first = [
        sizes[key]
        for key in ("head_dim", "d_kv", "qk_rope_head_dim", "kv_channels", "attention_head_dim")
        if key in sizes
    ]
    hidden = hidden_width(section)
    implied = [hidden // count for count in reversed(heads_of(section)) if hidden % count == 0]
    implied = implied[:1]
    if first:
        near = [one for one in implied if one and any(a / one in (0.5, 1, 2) for a in first)]
        implied = near
    return list(dict.fromkeys([*first, *implied, *sizes.values()]))


def rotary_share(section: Config) -> float:
    """The share of a head that rotates."""
    for key, value in section.items():
        if key in ("partial_rotary_factor", "rotary_pct", "rope_pct", "rotary_percent") and isinstance(
            value, (int, float)
        ):
            return float(value)
        if isinstance(value, Mapping) and key.startswith("rope_") and (share := rotary_share(value)) != 1:
            return share
    part = numbers(section, Kind.ROTARY_SIZE)
    hidden, heads = hidden_width(section), max(heads_of(section), default=0)
    return next(iter(part.values()), 0) / (hidden / heads) if part and hidden and heads else 1.0


def _rotary_parts(section: Config) -> int:
    found = [
        len(value) for key, value in section.items() if kind_of(key) is Kind.ROTARY_SECTIONS and isinstance(value, list)
    ]
    found += [
        _rotary_parts(value) for key, value in section.items() if isinstance(value, Mapping) and key.startswith("rope_")
    ]
    return max(found, default=1)


def small_head_sizes(section: Config, least_unit: int = 0) -> dict[int, int]:
    """Old size of a head → new one, in proportion; what rotates is even, and has room for its sections."""
    sizes = [size for size in plain_head_sizes(section) if size > 0]
    if not sizes:
        return {}
    least, share, parts = min(sizes), rotary_share(section), _rotary_parts(section)
    rotating = sizes[0]
    small = {size: size for size in sizes}
    for unit in (unit for unit in UNITS if unit >= least_unit):
        small = {size: max(4, round(size / least * unit)) for size in sizes}
        small = {size: new + new % 2 for size, new in small.items()}
        turned = small[rotating] * share
        if turned.is_integer() and turned % 2 == 0 and turned // 2 >= max(parts, 1):
            return small
    return small


def shares(value: list[Any], total: int) -> list[int]:
    """Whole numbers in the proportions of others that add up to a total; none is 0 if there is room."""
    whole = sum(value) or 1
    small = [max(1, one * total // whole) if total >= len(value) else one * total // whole for one in value]
    while sum(small) > total:
        small[small.index(max(small))] -= 1
    small[0] += total - sum(small)
    return small


def _side(value: Any) -> int:
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def stage_count(section: Config) -> int:
    """The number of stages; 0 if the layers are not in stages."""
    return max((len(one) for one in of_kind(section, Kind.BLOCKS).values() if isinstance(one, list)), default=0)


def patch_grid(section: Config) -> tuple[int, int]:
    """Patches along a side of the image, before and after; (0, …) if there are no patches."""
    vision = [one for one in sections_of(section) if "patch_size" in one and any(kind_of(k) is Kind.IMAGE for k in one)]
    for one in vision:
        image = next(_side(value) for key, value in one.items() if kind_of(key) is Kind.IMAGE)
        patch = _side(one["patch_size"])
        if image and patch and image >= patch:
            windows = 2 if any(kind_of(key) is Kind.WINDOW for key in one) else 1
            return image // patch, max(4, windows * 2 ** max(stage_count(one) - 1, 0))
    return 0, 4


def image_tokens(value: int, grid: tuple[int, int]) -> int:
    """The tokens of an image: as many patches as before go into one."""
    old, new = grid
    if not old or not value:
        return min(value, new * new)
    joined = max(1, round(math.sqrt(old * old / value)))
    return max(1, (new // joined) ** 2 + (value - (old // joined) ** 2 if 0 < value - (old // joined) ** 2 <= 4 else 0))


def expert_count(section: Config) -> int:
    """The small number of experts: more than are used at once, and as many in each group."""
    used = max(numbers(section, Kind.EXPERTS_USED).values(), default=1)
    groups = max(numbers(section, Kind.EXPERT_GROUPS).values(), default=1)
    return 4 if groups > 1 or used > 2 else 3 if used else 2


PRODUCTS = (
    ("mamba_n_heads", "mamba_d_head"), ("mamba_num_heads", "mamba_head_dim"), ("n_mamba_heads", "mamba_headdim"),
    ("num_heads", "head_dim"), ("num_hidden_heads", "head_dim"),
)  # fmt: skip
"""Pairs (number, size) whose product is a width, or a multiple of the width of the layers."""


def with_products(small: dict[str, Any], config: Config) -> dict[str, Any]:
    """The small section with products kept: the number of heads follows from their size."""
    hidden, new = hidden_width(config), hidden_width(small)
    widths = {
        value: small[key] for key, value in numbers(config, Kind.WIDTH).items() if isinstance(small.get(key), int)
    }
    for count_key, size_key in PRODUCTS:
        count, size, small_size = config.get(count_key), config.get(size_key), small.get(size_key)
        if not (isinstance(count, int) and isinstance(size, int) and isinstance(small_size, int) and small_size):
            continue
        product = count * size
        wanted = widths.get(product) or (product // hidden * new if hidden and product % hidden == 0 else 0)
        if wanted and wanted % small_size == 0:
            small[count_key] = wanted // small_size
    return small
