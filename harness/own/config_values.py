"""Values of an adapter's configuration that no release of PEFT can use: of a wrong type, or out of range (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.text import one_line
from harness.own.damage import Case, Damage, is_regex

Test = Callable[[Any], bool]


@dataclass(frozen=True)
class Kind:
    """What the values of some entries are.

    Attributes:
        words: what is expected, for people.
    """

    words: str
    holds: Test


def find(case: Case) -> Iterator[Damage]:
    """The entries whose values make no sense. An entry without a value (`null`) is as if it were not there."""
    for name, value in case.config.items():
        kind = _kind(name, case.adapter.method)
        if kind is not None and not kind.holds(value) and (value is not None or _must_be_set(name, case)):
            yield Damage(
                "value", f"`{one_line(name, 60)}` is {_shown(value)}, and PEFT takes {kind.words}",
                "correct adapter_config.json, or restore the one that was saved with these tensors",
                serious=bool(value) or value is None or type(value) is int,
            )  # fmt: skip
    task = case.config.get("task_type")
    if isinstance(task, str) and task not in _TASKS:
        yield Damage(
            "value", f"`task_type` is {_shown(task)}, which newer releases of PEFT refuse",
            f"use one of {', '.join(_TASKS)}, or null", serious=False,
        )  # fmt: skip


def _shown(value: Any) -> str:
    return one_line(f"the text {value!r}" if isinstance(value, str) else _JSON.get(repr(value), repr(value)), 80)


_TASKS = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
_JSON = {"None": "null", "True": "true", "False": "false", "{}": "an empty table", "nan": "NaN", "inf": "Infinity"}


def _must_be_set(name: str, case: Case) -> bool:
    return name in ("r", "lora_alpha") and case.adapter.method == "LORA"


def _kind(name: str, method: str) -> Kind | None:
    """What the value of an entry must be; None if it is no well-known entry."""
    if name == "r" and method == "LORA":
        return _COUNT
    if name == "rank_pattern" and method == "ADALORA":
        return _TABLE  # which singular values of each tensor are left
    if name in _BY_NAME:
        return _BY_NAME[name]
    return next((kind for pattern, kind in _BY_PATTERN if pattern.fullmatch(name)), None)


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_list_of(value: Any, test: Test) -> bool:
    return isinstance(value, (list, tuple)) and all(test(one) for one in value)


def _is_table_of(value: Any, test: Test) -> bool:
    return isinstance(value, Mapping) and all(test(one) for one in value.values())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_index(value: Any) -> bool:
    return _is_whole(value, 0)


def _is_pattern_table(value: Any, test: Test) -> bool:
    return _is_table_of(value, test) and all(map(is_regex, value))


_COUNT = Kind("a whole number, 1 or more", lambda value: _is_whole(value, 1))
_SIZE = Kind("a whole number, 0 or more", _is_index)
_SCALE = Kind("a number", _is_number)
_SHARE = Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
_TEXT = Kind("a text", _is_text)
_NAMES = Kind("a list of names", lambda value: _is_list_of(value, _is_name))
_TARGETS = Kind("a list of names or a pattern", lambda value: _is_text(value) or _is_list_of(value, _is_name))
_INDICES = Kind(
    "the number of a layer or a list of them", lambda value: _is_index(value) or _is_list_of(value, _is_index)
)
_TOKENS = Kind(
    "a list of tokens, or a table of such lists",
    lambda value: _is_list_of(value, _is_index) or _is_table_of(value, lambda one: _is_list_of(one, _is_index)),
)
_TABLE = Kind("a table", lambda value: isinstance(value, Mapping))
_RANKS = Kind(
    "a table with regular expressions as keys and whole numbers from 1 on as values",
    lambda value: _is_pattern_table(value, lambda one: _is_whole(one, 1)),
)
_SCALES = Kind(
    "a table with regular expressions as keys and numbers as values",
    lambda value: _is_pattern_table(value, _is_number),
)
_BIAS = Kind(
    "`none`, `all` or `lora_only` (and the like)",
    lambda value: value is False or (_is_text(value) and re.fullmatch(r"none|all|\w+_only", value) is not None),
)
_RANGES = Kind(
    "a list of pairs of layers",
    lambda value: _is_list_of(value, lambda one: _is_list_of(one, _is_index) and len(one) == 2),
)

_BY_NAME = {
    **dict.fromkeys(("r", "boft_block_size", "boft_block_num", "oft_block_size", "num_frozen_tokens"), _SIZE),
    **dict.fromkeys(("tinit", "tfinal", "projection_prng_key", "random_loc_seed"), _SIZE),
    **dict.fromkeys(
        ("num_virtual_tokens", "token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules",
         "encoder_hidden_size", "encoder_num_layers", "adapter_len", "adapter_layers", "num_tasks", "num_ranks",
         "n_tasks", "n_skills", "n_splits", "n_frequency", "num_vectors", "vector_length", "topk", "init_r",
         "target_r", "qalora_group_size", "xlora_depth", "xlora_size"), _COUNT,
    ),
    **dict.fromkeys(("lora_alpha", "alpha", "scaling", "randlora_alpha", "delora_lambda", "d_initial"), _SCALE),
    **dict.fromkeys(
        ("fan_in_fan_out", "inference_mode", "lora_bias", "prefix_projection", "init_ia3_weights", "save_projection",
         "ensure_weight_tying", "coft", "block_share", "decompose_both", "rank_dropout_scale"), _SWITCH,
    ),
    **dict.fromkeys(("modules_to_save", "target_parameters"), _NAMES),
    **dict.fromkeys(("target_modules", "exclude_modules", "feedforward_modules", "layers_pattern"), _TARGETS),
    **dict.fromkeys(("base_model_name_or_path", "revision", "task_type", "peft_version"), _TEXT),
    "layers_to_transform": _INDICES,
    "layer_replication": _RANGES,
    "token_indices": _TOKENS,
    "trainable_token_indices": _TOKENS,
    "rank_pattern": _RANKS,
    "bias": _BIAS,
    **dict.fromkeys(("loftq_config", "auto_mapping", "megatron_config"), _TABLE),
}  # fmt: skip
_BY_PATTERN = (
    (re.compile(r"(\w+_)?dropout(_p)?"), _SHARE),
    (re.compile(r"use_(dora|rslora|qalora|effective_conv2d|trainable_adapters|cayley_neumann|idwt)"), _SWITCH),
    (re.compile(r"(alpha|lambda|n_frequency|block_size)_pattern"), _SCALES),
)
"""Names of entries → what their values are, where many entries have such a name."""
