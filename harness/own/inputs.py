"""Inputs for a base, from its configuration alone: tokens, masks, images, features of sound (pure)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.core.errors import UsageError
from harness.own.layers import Config
from harness.own.vocabulary import Vocabulary, special

_ROWS, _LENGTH, _PADDED = 2, 7, 2
_IMAGE = 64
"""The side of an image for a model that takes any size."""
_MOST_TOKENS = 64
_OUTPUTS = {
    "ForQuestionAnswering": ["start_logits", "end_logits"],
    "ForObjectDetection": ["logits", "pred_boxes"],
}


@dataclass(frozen=True)
class Inputs:
    """What a base is run on.

    Attributes:
        specs: name → how it is made, as in a base's `inputs`.
        adapter: the same for inputs that only the adapter takes.
        outputs: fields of the result to compare; empty for the usual one.
        generate: arguments of `generate`; None if the model does not generate.
        changes: entries of the base's configuration that the inputs need.
    """

    specs: dict[str, dict[str, Any]]
    adapter: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    generate: dict[str, Any] | None = None
    changes: dict[str, Any] = field(default_factory=dict)


def of(config: Config, model: str, tokens: Vocabulary, adapter: Config) -> Inputs:
    """Inputs for a base.

    Args:
        config: the base's configuration, as it is built.
        model: the class that is built, or `AutoModelFor…`.
        tokens: its vocabulary.
        adapter: the adapter's configuration.

    Raises:
        UsageError: the configuration says neither a vocabulary nor images.
    """
    made = _made(config, model, tokens)
    own = _for_adapter(adapter)
    if adapter.get("num_transformer_submodules") == 2 and adapter.get("peft_type") != "PREFIX_TUNING":
        # PEFT puts a prompt before the decoder's input only if it makes that from labels
        specs = {"labels" if name == "decoder_input_ids" else name: spec for name, spec in made.specs.items()}
        made = replace(made, specs=specs)
    if not own:
        return made
    return Inputs(made.specs, own, made.outputs, None, made.changes)


def _for_adapter(adapter: Config) -> dict[str, dict[str, Any]]:
    """The number of a task for each row, for adapters of several tasks."""
    count = adapter.get("n_tasks") or adapter.get("num_tasks")
    if adapter.get("peft_type") not in ("POLY", "MULTITASK_PROMPT_TUNING"):
        return {}
    last = max(int(count or 1) - 1, 0)
    return {"task_ids": {"kind": "values", "values": [last, 0]}}


def _made(config: Config, model: str, tokens: Vocabulary) -> Inputs:
    vision, text = config.get("vision_config"), config.get("text_config")
    outputs = next((fields for end, fields in _OUTPUTS.items() if model.endswith(end)), [])
    if isinstance(vision, Mapping):
        if (image := _token(config, "image")) is not None:
            return _multimodal(config, vision, tokens, image)
        return _two_towers(config, vision, text if isinstance(text, Mapping) else {}, tokens)
    if "num_mel_bins" in config:
        return _sound(config, tokens)
    if tokens.size:
        return _text(config, model, tokens, outputs)
    if any(key in config for key in ("num_channels", "image_size", "patch_size", "backbone_config", "num_queries")):
        return Inputs({"pixel_values": _images(config)}, outputs=outputs)
    raise UsageError(
        f"the base's configuration ({config.get('model_type')}) has neither a vocabulary nor images",
        "a model that takes text, images, or both", "describe it as a scenario: see CONTRIBUTING.md",
    )  # fmt: skip


# Tokens


@dataclass(frozen=True)
class _Tokens:
    """Where ordinary tokens are: the largest range of ids without a special one."""

    low: int
    high: int

    @classmethod
    def of(cls, config: Config, tokens: Vocabulary) -> _Tokens:
        taken = sorted({-1, tokens.tokens, *(one for one in special(config) if one < tokens.tokens)})
        gaps = [(high - low - 1, low + 1, high) for low, high in itertools.pairwise(taken)]
        _, low, high = max(gaps)
        return cls(low, high)

    def some(self, count: int) -> list[int]:
        """Different tokens, spread over the range."""
        span = self.high - self.low
        return [self.low + (5 + index * max(1, span // (count + 2))) % span for index in range(count)]

    def spec(self, shape: list[int], contain: Iterable[int] = ()) -> dict[str, Any]:
        spec = {"kind": "tokens", "shape": shape, "low": self.low, "high": self.high}
        return spec | ({"contain": list(contain)} if contain else {})


def _token(config: Config, name: str) -> int | None:
    """The id of a token in the configuration, or in that of its text part."""
    text = config.get("text_config")
    for section in (config, text if isinstance(text, Mapping) else {}):
        for key in (f"{name}_token_id", f"{name}_token_index", f"{name}_id"):
            value = section.get(key)
            if isinstance(value, list) and value:
                value = value[0]
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
    return None


def _text(config: Config, model: str, tokens: Vocabulary, outputs: list[str]) -> Inputs:
    plain = _Tokens.of(config, tokens)
    contain = list(tokens.trained[:_MOST_TOKENS])
    if not contain and tokens.resize_to:
        contain = [tokens.resize_to - 1]
    length = max(_LENGTH, len(contain) + _PADDED + 2)
    encodes = bool(config.get("is_encoder_decoder"))
    changes: dict[str, Any] = {}
    if model.endswith("ForSequenceClassification"):
        pad, end = _token(config, "pad"), _token(config, "eos")
        if pad is None:
            pad = changes["pad_token_id"] = _free(config, tokens)
        ids = _rows(plain, length, pad, contain, end if encodes else None)
        mask = {"kind": "mask", "shape": [_ROWS, length], "pad_right": [0, _PADDED]}
        return Inputs({"input_ids": ids, "attention_mask": mask}, outputs=outputs, changes=changes)
    specs = {
        "input_ids": plain.spec([_ROWS, length], contain),
        "attention_mask": {"kind": "mask", "shape": [_ROWS, length], "pad_right": [0, _PADDED]},
    }
    if encodes:
        specs["decoder_input_ids"] = plain.spec([_ROWS, max(5, len(contain) + 1)], contain)
    generates = model.endswith(("ForCausalLM", "LMHeadModel", "ForSeq2SeqLM", "ForConditionalGeneration"))
    return Inputs(specs, outputs=outputs, generate=_generate(config) if generates else None)


def _generate(config: Config) -> dict[str, Any]:
    pad = _token(config, "pad")
    end = _token(config, "eos")
    fill = pad if pad is not None else end
    return {"max_new_tokens": 8, "do_sample": False} | ({} if fill is None else {"pad_token_id": fill})


def _free(config: Config, tokens: Vocabulary) -> int:
    """An id for padding that no other special token has; 0 if it is free."""
    taken = set(special(config))
    return next((one for one in range(tokens.size) if one not in taken), 0)


def _rows(plain: _Tokens, length: int, pad: int, contain: list[int], end: int | None) -> dict[str, Any]:
    """Rows that end with the same token, the second one padded: a classifier reads what is before the padding."""
    some = [one for one in plain.some(2 * length) if one != pad]
    rows = [some[:length], [*contain, *some[length:]][: length - _PADDED] + [pad] * _PADDED]
    if end is not None:
        rows[0][-1] = rows[1][-1 - _PADDED] = end
    return {"kind": "values", "values": rows}


# Images and sound


def _side(value: Any, default: int) -> tuple[int, int]:
    if isinstance(value, Mapping):
        value = [value.get("height", default), value.get("width", default)]
    if isinstance(value, (list, tuple)) and value:
        return int(value[0]), int(value[-1])
    return (
        (value, value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else (default, default)
    )


def _images(config: Config, default: int = _IMAGE) -> dict[str, Any]:
    channels = next((config[key] for key in ("num_channels", "in_channels", "in_chans") if config.get(key)), 3)
    shape = [_ROWS, int(channels), *_side(config.get("image_size"), default)]
    return {"kind": "uniform", "shape": shape, "low": -1.0, "high": 1.0}


def _two_towers(config: Config, vision: Config, text: Config, tokens: Vocabulary) -> Inputs:
    """Text and image side by side, as in CLIP: the end of a text is looked for."""
    plain = _Tokens.of({**config, "vision_config": None}, tokens)
    end, pad = _token({"text_config": text}, "eos"), _token({"text_config": text}, "pad")
    specs = {
        "input_ids": _rows(plain, _LENGTH, pad if pad is not None else 0, [], end),
        "attention_mask": {"kind": "mask", "shape": [_ROWS, _LENGTH], "pad_right": [0, _PADDED]},
        "pixel_values": _images(vision, 224),
    }
    return Inputs(specs, outputs=["logits_per_image", "text_embeds", "image_embeds"])


def _multimodal(config: Config, vision: Config, tokens: Vocabulary, image: int) -> Inputs:
    """One image in each row."""
    if "spatial_merge_size" in vision or "temporal_patch_size" in vision:
        return _grid(config, vision, tokens, image)
    side, patch = _side(vision.get("image_size"), 224), _side(vision.get("patch_size"), 16)
    count = (side[0] // patch[0]) * (side[1] // patch[1])
    count += 1 if config.get("vision_feature_select_strategy") == "full" else 0
    ids = _with_image(_Tokens.of(config, tokens), [image] * count, tokens)
    length = len(ids["values"][0])
    return Inputs({
        "input_ids": ids,
        "attention_mask": {"kind": "mask", "shape": [_ROWS, length]},
        "pixel_values": _images(vision, 224),
    })  # fmt: skip


def _with_image(plain: _Tokens, image: list[int], tokens: Vocabulary) -> dict[str, Any]:
    some = plain.some(10)
    trained = [one for one in tokens.trained if one not in image][:_MOST_TOKENS]
    first, second = [some[0], *image, *some[1:5]], [*some[5:7], *image, *some[7:10]]
    return {"kind": "values", "values": [first + trained, second + trained]}


def _grid(config: Config, vision: Config, tokens: Vocabulary, image: int) -> Inputs:
    """One image of the smallest grid in each row, as patches: Qwen2-VL and those after it."""
    merge, frames = int(vision.get("spatial_merge_size") or 2), int(vision.get("temporal_patch_size") or 2)
    patch, channels = int(vision.get("patch_size") or 14), int(vision.get("in_channels") or vision.get("in_chans") or 3)
    start, end = _token(config, "vision_start"), _token(config, "vision_end")
    around = ([start] if start is not None else []), ([end] if end is not None else [])
    ids = _with_image(_Tokens.of(config, tokens), [*around[0], image, *around[1]], tokens)
    length = len(ids["values"][0])
    places = [list(range(length))] * _ROWS
    return Inputs({
        "input_ids": ids,
        "attention_mask": {"kind": "mask", "shape": [_ROWS, length]},
        "pixel_values": {"kind": "uniform", "shape": [_ROWS * merge * merge, channels * frames * patch * patch],
                         "low": -1.0, "high": 1.0},
        # releases count positions in different ways; these are the ones of the tokens
        "position_ids": {"kind": "values", "values": [places] * 3},
        "image_grid_thw": {"kind": "values", "values": [[1, merge, merge]] * _ROWS},
    })  # fmt: skip


def _sound(config: Config, tokens: Vocabulary) -> Inputs:
    """Features of sound for an encoder, and tokens for a decoder, as in Whisper."""
    frames = 2 * int(config.get("max_source_positions") or 1500)
    specs = {
        "input_features": {"kind": "uniform", "shape": [_ROWS, int(config["num_mel_bins"]), frames],
                           "low": -1.0, "high": 1.0},
        "decoder_input_ids": _Tokens.of(config, tokens).spec([_ROWS, 5]),
    }  # fmt: skip
    return Inputs(specs)
