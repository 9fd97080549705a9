"""An adapter's configuration for a small base: targets, patterns and ranks scaled along (pure).

Values that say how the method works stay. Names of modules are those of the architecture, so they stay too, with the
new numbers of their layers. Paths, seeds, texts and the names of models are left out: they are the user's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.errors import HarnessError
from harness.own.layers import place_of
from harness.own.shrink import Shrunk

Config = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

LEFT_OUT = frozenset({
    "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "peft_version", "inference_mode",
    "tokenizer_name_or_path", "tokenizer_kwargs", "prompt_tuning_init_text", "token_dim", "num_layers",
    "num_attention_heads", "num_transformer_submodules", "megatron_config", "adapters",
    "prompt_tuning_init_state_dict_path",
})  # fmt: skip
"""Entries that name something of the user's, or that PEFT derives from the base."""
_NAMES = ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules", "target_parameters",
          "layers_pattern", "modules_to_tie")  # fmt: skip
_PATTERNS = ("rank_pattern", "alpha_pattern", "bits_pattern")
_TOKENS = ("trainable_token_indices", "token_indices", "cpt_token_ids", "alora_invocation_tokens")
_RANK = re.compile(r"r|init_r|target_r|rank|\w+_rank|lora_r|r_\w+")
_ALPHA = re.compile(r"alpha|\w+_alpha")
_SEED = re.compile(r"\w*seed|\w*prng_key")
_SIZES: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"num_virtual_tokens|adapter_len|cpt_tokens_type_mask|encoder_num_layers"), 4),
    (re.compile(r"\w*block_size|\w*block_num|vector_length|n_splits|n_skills|n_tasks|num_vectors|gralora_k"), 4),
    (re.compile(r"boft_n_butterfly_factor"), 2),
    (re.compile(r"encoder_hidden_size"), 12),
    (re.compile(r"n_frequency|num_frequencies"), 30),
)  # fmt: skip
"""Sizes of methods → how large they may stay."""
_ROWS = 4
"""So many tokens are trained at most."""
_EXPERT = re.compile(r"((?:^|\.)\w*experts\.)(\d+)(?=\.|$)")
_WORD = re.compile(r"[\w.\-*|()\[\]^$\\+?{},]{1,200}")


@dataclass(frozen=True)
class SmallAdapter:
    """The small adapter.

    Attributes:
        args: arguments of the configuration's class.
        keys: pattern of the checkpoint's keys → their number.
        tokens: new ids of the tokens that it trains one by one.
        added: tokens that were added to the vocabulary before training.
    """

    args: dict[str, Any]
    keys: dict[str, int]
    tokens: tuple[int, ...] = ()
    added: int = 0


def marks(shapes: Shapes) -> Callable[[int], Any]:
    """What an adapter has in each layer: to be kept apart when layers are left out."""
    found: dict[int, list[str]] = {}
    for key, shape in sorted(shapes.items()):
        if place := place_of(key):
            inner = _EXPERT.sub(r"\1", place.rest)
            found.setdefault(place.layer, []).append(f"{place.stack}{inner}{shape}")
    return lambda layer: sorted(set(found.get(layer, ())))


def small(config: Config, shapes: Shapes, defaults: Config, base: Shrunk, before: int, added: int) -> SmallAdapter:
    """The adapter's configuration for the small base.

    Args:
        config: `adapter_config.json`.
        shapes: key → shape, of its tensors.
        defaults: the defaults of the configuration's class.
        base: the small base.
        before: the vocabulary of the large base; 0 if it has none.
        added: tokens that the user added to it.

    Raises:
        HarnessError: it cannot be described for fewer layers.
    """
    if config.get("layer_replication"):
        raise HarnessError(
            "the adapter repeats layers of its base (`layer_replication`), which cannot be shrunk",
            "an adapter of a base as it is", "write the scenario by hand: see CONTRIBUTING.md",
        )  # fmt: skip
    made = _Adapter(config, shapes, base, before, min(added, _ROWS))
    args = {key: made.value(key, value) for key, value in sorted(config.items()) if key not in LEFT_OUT}
    kept = {key: value for key, value in args.items() if _is_said(key, value, config, defaults)}
    return SmallAdapter(kept, made.counted(), tuple(sorted(set(made.tokens.values()))), made.added)


def _is_said(key: str, value: Any, config: Config, defaults: Config) -> bool:
    """True for an entry that has to be stated: it has a value, and that or the user's is not the default."""
    if value is None or value in ({}, []) or _SEED.fullmatch(key):
        return False
    if key in defaults:
        return bool(config[key] != defaults[key] or value != defaults[key])
    return value is not False


class _Adapter:
    def __init__(self, config: Config, shapes: Shapes, base: Shrunk, before: int, added: int) -> None:
        self.config, self.shapes, self.base, self.before, self.added = config, shapes, base, before, added
        self.ranks = ranks(config)
        self.modules = sorted({module_of(key) for key in shapes})
        self.tokens = self._trained()

    # Names

    def renamed(self, name: str) -> str | None:
        """A module's name, or a key, with its new numbers; None if it is left out."""
        place = place_of(name)
        if place is not None:
            layer = self.base.layer(place.layer)
            if layer is None:
                return None
            name = f"{place.stack}.{layer}{place.rest}"
        found = _EXPERT.search(name)
        return None if found and int(found[2]) >= max(self.base.experts, 1) else name

    def _names(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._expression(value)
        names = [one for one in value if isinstance(one, str)]
        return list(dict.fromkeys(new for one in names if (new := self.renamed(one)) is not None))

    def _expression(self, text: str) -> str:
        """A regular expression; one that names layers by number becomes one of the names that it matches."""
        if not _numbered(text):
            return text
        matched = [name for name in self.modules if _matches(rf"(?:{text})", name)]
        left = sorted({new for name in matched if (new := self.renamed(name)) is not None})
        return "|".join(re.escape(name) for name in left) or text

    def _pattern(self, key: str, value: Config) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, number in value.items():
            for new in self._pattern_names(str(name)):
                made.setdefault(new, self.ranks.get(number, number) if key != "alpha_pattern" else self._alpha(number))
        return made

    def _pattern_names(self, name: str) -> list[str]:
        if not _numbered(name):
            return [name]
        if re.fullmatch(r"\^?[\w.]+\$?", name) or re.fullmatch(r"[\w.\\^$]+", name):
            plain = name.replace("\\.", ".").strip("^$")
            new = self.renamed(plain)
            return (
                []
                if new is None
                else [name.replace(name.strip("^$"), new.replace(".", "\\.") if "\\." in name else new)]
            )
        matched = [one for one in self.modules if _matches(rf"(?:.*\.)?(?:{name})", one)]
        return list(dict.fromkeys(new for one in matched if (new := self.renamed(one)) is not None))

    # Numbers

    def value(self, key: str, value: Any) -> Any:
        """An entry for the small base; None to leave it out."""
        if key in _NAMES and value:
            return self._names(value)
        if key in _PATTERNS and isinstance(value, Mapping):
            return self._pattern(key, value)
        if key in _TOKENS and value:
            return self._tokens(value)
        if key == "layers_to_transform" and value is not None:
            return self._layers(value)
        if key == "prompt_tuning_init" and isinstance(value, str):
            return None if value == "TEXT" else value
        if isinstance(value, Mapping):
            return {name: new for name, one in value.items() if (new := self.value(str(name), one)) is not None}
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, str):
            return value if _WORD.fullmatch(value) and "/" not in value and len(value) < 40 else None
        return self._number(key, value)

    def _number(self, key: str, value: Any) -> Any:
        if _RANK.fullmatch(key):
            return self.ranks.get(value, value)
        if _ALPHA.fullmatch(key):
            return self._alpha(value)
        if key.endswith("hidden_size") and value in self.base.widths:
            return self.base.widths[value]
        if key == "adapter_layers":
            return min(value, max(len(self.base.layers), 1))
        limit = next((most for pattern, most in _SIZES if pattern.fullmatch(key)), None)
        return min(value, limit) if limit is not None and isinstance(value, (int, float)) else value

    def _alpha(self, value: Any) -> Any:
        """Alpha in the same proportion to the rank, and different from it if it was."""
        rank = next((self.config[key] for key in ("r", "init_r", "rank") if isinstance(self.config.get(key), int)), 0)
        new = self.ranks.get(rank, rank)
        if not rank or not isinstance(value, (int, float)) or rank == new:
            return value
        made = max(1, round(value * new / rank))
        if (made == new) is not (value == rank):
            made = new + (1 if value > rank else -1) if new > 1 else new + 1
        return type(value)(made) if not isinstance(value, bool) else value

    def _layers(self, value: Any) -> Any:
        many = value if isinstance(value, list) else [value]
        new = [made for one in many if isinstance(one, int) and (made := self.base.layer(one)) is not None]
        return (new or [len(self.base.layers) - 1]) if isinstance(value, list) else next(iter(new), 0)

    # Tokens

    def _trained(self) -> dict[int, int]:
        """Old id → new id, of some of the trained tokens: added ones stay added, special ones special."""
        found = sorted({one for key in _TOKENS for one in _ids(self.config.get(key))})
        new_ones = [one for one in found if self.before and one >= self.before]
        self.added = max(self.added, min(len(new_ones), _ROWS))
        made = {
            old: self.base.vocabulary + index for index, old in enumerate(new_ones[-self.added :] if self.added else [])
        }
        made |= {old: self.base.tokens[old] for old in found if old in self.base.tokens}
        plain = [one for one in found if one not in new_ones and one not in made][:_ROWS]
        taken, free = set(self.base.tokens.values()), iter(range(7, max(self.base.vocabulary, 8)))
        for old in plain:
            made[old] = next(one for one in free if one not in taken)
        return made

    def _tokens(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: self._tokens(one) for name, one in value.items()}
        return [self.tokens[one] for one in dict.fromkeys(_ids(value)) if one in self.tokens]

    # Keys

    def counted(self) -> dict[str, int]:
        """Pattern of the keys of the small checkpoint → their number. Layers and experts are digits."""
        found: dict[str, int] = {}
        for key in {new for key in self.shapes if (new := self.renamed(key)) is not None}:
            place = place_of(key)
            pattern = f"{place.stack}.[0-9]{place.rest}" if place else key
            pattern = _EXPERT.sub(r"\g<1>[0-9]", pattern)
            found[pattern] = found.get(pattern, 0) + 1
        return dict(sorted(found.items()))


def ranks(config: Config) -> dict[int, int]:
    """Old rank → small rank. Ranks that differ still do; a single one that is small stays."""
    values: list[Any] = [value for key, value in config.items() if _RANK.fullmatch(key)]
    values += list((config.get("rank_pattern") or {}).values())
    found = sorted({one for one in values if isinstance(one, int) and not isinstance(one, bool) and one > 0})
    if not found or found[-1] <= _ROWS:
        return {one: one for one in found}
    if len(found) == 1:
        return {found[0]: 4}
    divides = str(config.get("peft_type")) in ("OFT", "BOFT", "HRA", "MISS", "BONE", "GRALORA", "C3A")
    small = [2**index for index in range(len(found))] if divides else range(2, 2 + len(found))
    return dict(zip(found, small, strict=True))


def module_of(key: str) -> str:
    """The module that a key of a checkpoint belongs to, as the base calls it."""
    name = key.removeprefix("base_model.model.")
    return re.split(
        r"\.(?:lora_|hada_|lokr_|ia3_|oft_|boft_|vera_|lambda_|modules_to_save|weight$|bias$|\w*_[AB]\b)", name
    )[0]


def _numbered(text: str) -> bool:
    """True if a name, or a regular expression, has the number of a layer in it."""
    return bool(re.search(r"(?:^|[.(|\[\\])\d", re.sub(r"\\d|\[0-9\]|\{\d*,?\d*\}", "", text)))


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except (re.error, RecursionError):
        return False


def _ids(value: Any) -> list[int]:
    many: Iterable[Any] = value if isinstance(value, list) else []
    if isinstance(value, Mapping):
        many = [one for group in value.values() for one in _ids(group)]
    return [one for one in many if isinstance(one, int) and not isinstance(one, bool)]
