"""The vocabulary of a base on which an adapter is tried: smaller, if the adapter has nothing to do with it (pure).

Two tables of 128,256 tokens in float64 take 8 GB and prove nothing if the adapter only sits in the layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.own.kinds import Kind, kind_of
from harness.own.layers import Config, Shapes

SMALL = 256
"""Tokens that are left of a vocabulary that the adapter does not touch."""
_TABLES = re.compile(
    r"(?<![a-z_])(embed_tokens|embed_in|embed_out|word_embeddings?|wte|shared|lm_head|tok_embeddings|token_embedding"
    r"|token_embedding_table|output_projection|cls\.predictions|lm_head\.\w+)(?![a-z_])"
)
"""Modules with one row for each token, as architectures call them."""
_INDICES = ("trainable_token_indices", "token_indices")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of the base.

    Attributes:
        before: the size that the configuration states; 0 if it states none.
        size: the size in the configuration of the base that is built.
        resize_to: tokens after more were added, as the user did before training; None if none were added.
        moved: id of a special token → id in the smaller vocabulary.
        trained: tokens that the adapter trains one by one; they must occur in the inputs.
    """

    before: int
    size: int
    resize_to: int | None = None
    moved: Mapping[int, int] | None = None
    trained: tuple[int, ...] = ()

    @property
    def is_cut(self) -> bool:
        """True if tokens are left out."""
        return self.moved is not None

    @property
    def tokens(self) -> int:
        """How many tokens the model takes in the end."""
        return self.resize_to or self.size


def of(config: Config, adapter: Config, shapes: Shapes, *, whole: bool = False) -> Vocabulary:
    """The vocabulary for an adapter.

    Args:
        config: the base's configuration.
        adapter: the adapter's configuration.
        shapes: key → shape, of the adapter's tensors.
        whole: leave nothing out.
    """
    before = max((size for _, size in _sizes(config)), default=0)
    trained = tuple(sorted(set(_trained(adapter))))
    tables = {key: shape for key, shape in shapes.items() if _TABLES.search(key)}
    rows = {size for shape in tables.values() for size in shape if before and 0.75 * before <= size < 2 * before}
    size = max(rows, default=before)
    if trained and before and trained[-1] >= size:
        size = trained[-1] + 1
    # the rows before training are in the file (up to PEFT 0.13), so the base can have them all from the beginning
    if size > before and not any(".original_module." in key for key in tables):
        return Vocabulary(before, before, size, trained=trained)
    large = any(number >= 0.75 * before for shape in shapes.values() for number in shape)
    touched = tables or trained or rows or large or _names_a_table(adapter)
    if whole or touched or before <= 2 * SMALL:
        return Vocabulary(before, size, trained=trained)
    return Vocabulary(before, SMALL, moved=_moved(sorted(set(special(config)))))


def _names_a_table(adapter: Config) -> bool:
    named = [adapter.get(key) for key in ("target_modules", "modules_to_save", "target_parameters", "embedding_layers")]
    words = [word for value in named for word in (value if isinstance(value, list) else [value])]
    return any(isinstance(word, str) and _TABLES.search(word) for word in words)


def _trained(adapter: Config) -> Iterator[int]:
    for key in _INDICES:
        value = adapter.get(key)
        for group in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(group, list):
                yield from (one for one in group if isinstance(one, int) and 0 <= one < 1 << 24)


def _sizes(config: Config) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif kind_of(key) is Kind.VOCABULARY and isinstance(value, int) and value > 0:
            yield key, value


def special(config: Config) -> Iterator[int]:
    """The ids of special tokens in a configuration: padding, end, image, …."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from special(value)
        elif kind_of(key) is Kind.TOKEN:
            values = value if isinstance(value, list) else [value]
            yield from (one for one in values if isinstance(one, int) and not isinstance(one, bool) and one >= 0)


def _moved(ids: Iterable[int]) -> dict[int, int]:
    """Ids that are too large get the last ones, in their order."""
    ids = list(ids)
    taken, large = {one for one in ids if one < SMALL}, [one for one in ids if one >= SMALL]
    free = [one for one in reversed(range(SMALL // 2, SMALL)) if one not in taken]
    return {one: free[index % len(free)] for index, one in enumerate(reversed(large))}


def apply(config: Config, vocabulary: Vocabulary) -> dict[str, Any]:
    """The configuration with this vocabulary."""
    return {key: _value(key, value, vocabulary) for key, value in config.items()}


def _value(key: str, value: Any, vocabulary: Vocabulary) -> Any:
    if isinstance(value, Mapping):
        return apply(value, vocabulary)
    if kind_of(key) is Kind.VOCABULARY and isinstance(value, int):
        shrinks = vocabulary.size != vocabulary.before and value == vocabulary.before
        return vocabulary.size if shrinks or (vocabulary.is_cut and value > SMALL) else value
    if vocabulary.moved and kind_of(key) is Kind.TOKEN:
        if isinstance(value, list):
            return [vocabulary.moved.get(one, one) if isinstance(one, int) else one for one in value]
        return vocabulary.moved.get(value, value) if isinstance(value, int) else value
    return value
