"""Cuts an adapter and its base to what a small machine can compute: some layers, in their true widths (pure).

No value is changed. Tensors of layers that are left are kept as they are; those of other layers are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core.errors import UsageError
from harness.core.text import enumerated, many
from harness.own import layers, vocabulary
from harness.own.kinds import Kind, kind_of
from harness.own.layers import Chosen, Config, Path, Shapes
from harness.own.vocabulary import Vocabulary

LEFT_OUT = ("quantization_config", "torch_dtype", "dtype", "_name_or_path", "_commit_hash",
            "transformers_version", "_attn_implementation", "_attn_implementation_autoset")  # fmt: skip
"""Entries that say how a model is loaded, not what it is."""
_PATTERNS = ("rank_pattern", "alpha_pattern")
_NAMES = ("target_modules", "modules_to_save", "exclude_modules", "target_parameters", "feedforward_modules")
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim")
_QUERIES = re.compile(r"\.(?:q_proj|query|c_attn|query_key_value|q_lin|Wqkv|qkv_proj|SelfAttention\.q)\.lora_A\.")


@dataclass(frozen=True)
class Cut:
    """What is left of an adapter and of its base's configuration.

    Attributes:
        base: the base's configuration.
        adapter: the adapter's.
        keys: key in the file → key that it gets. Other keys are left out.
        columns: key → leading columns that are left of it, where one tensor holds all layers (prefix tuning).
        vocabulary: the tokens of the base.
        said: what was cut, one sentence each.
    """

    base: dict[str, Any]
    adapter: dict[str, Any]
    keys: Mapping[str, str]
    columns: Mapping[str, int] = field(default_factory=dict)
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary(0, 0))
    said: tuple[str, ...] = ()


def cut(base: Config, adapter: Config, shapes: Shapes, most: int | None = 2) -> Cut:
    """Cut an adapter and its base.

    Args:
        base: the base's `config.json`.
        adapter: `adapter_config.json`.
        shapes: key → shape, of the adapter's tensors.
        most: layers with tensors of the adapter that are kept in each stack; None for the whole model.

    Raises:
        UsageError: the adapter is of another model, or cannot be tried at all.
    """
    refuse(base, adapter, shapes)
    if adapter.get("layer_replication"):
        most = None
    chosen = layers.choose(base, shapes, most, renumber=not _names_numbers(adapter))
    tokens = vocabulary.of(base, adapter, shapes, whole=most is None)
    known = list(chosen)
    renamed = {key: layers.renamed(key, known, chosen) for key in shapes}
    keys = {key: new for key, new in renamed.items() if new is not None}
    config = _cut_base(base, chosen, ())
    images = _small_images(config, shapes) if most is not None else {}
    own = _cut_adapter(adapter, known, chosen)
    columns = _columns(adapter, own, shapes)
    said = (*_layers_said(chosen, len(shapes) - len(keys)), *_said(tokens), *images.values())
    if columns:
        said = (*said, f"of {enumerated(columns, 2)} the columns of these layers are left")
    return Cut(vocabulary.apply(config, tokens), own, keys, columns, tokens, said)


def refuse(base: Config, adapter: Config, shapes: Shapes) -> None:
    """Refuse an adapter that needs more than its own files, or that is of another model.

    Raises:
        UsageError: it does, or is.
    """
    if adapter.get("peft_type") == "XLORA":
        raise UsageError(
            "an X-LoRA adapter consists of other adapters, which are not in its folder", "an adapter on its own",
            "try each of the adapters that it names",
        )  # fmt: skip
    known = layers.sections(base)
    for key, shape in shapes.items():
        if not _QUERIES.search(key) or len(shape) != 2 or not (place := layers.place_of(key)):
            continue
        section = known.get(layers.section_of(place.stack, known), {})
        width = next((section[name] for name in _WIDTHS if isinstance(section.get(name), int)), None)
        if width is not None and shape[1] != width:
            raise UsageError(
                f"{key} of the adapter takes {shape[1]:,} inputs, and the base is {width:,} wide",
                "the configuration of the model that the adapter was trained on",
                "pass that model's folder with --base",
            )  # fmt: skip


def _names_numbers(adapter: Config) -> bool:
    """True if a regular expression may name layers by number."""
    patterns = [key for name in _PATTERNS if isinstance(adapter.get(name), Mapping) for key in adapter[name]]
    patterns = [key for key in patterns if not layers.place_of(key)]
    whole = [value for name in _NAMES if isinstance(value := adapter.get(name), str) and value != "all-linear"]
    return any(layers.numbered(one) for one in [*patterns, *whole] if isinstance(one, str))


def _cut_base(config: Config, chosen: Mapping[Path, Chosen], path: Path) -> dict[str, Any]:
    section = layers.cut_section(config, chosen[path]) if path in chosen else dict(config)
    return {
        key: _cut_base(value, chosen, (*path, key)) if isinstance(value, Mapping) else _certain(key, value)
        for key, value in section.items()
        if key not in LEFT_OUT
    }


def _certain(key: str, value: Any) -> Any:
    """The value without randomness: dropout of the base tells nothing of an adapter."""
    is_strength = kind_of(key) is Kind.ZERO and isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value)(0) if is_strength else value


def _cut_adapter(adapter: Config, known: list[Path], chosen: Mapping[Path, Chosen]) -> dict[str, Any]:
    """The adapter's configuration for the layers that are left."""
    own = {**adapter, "base_model_name_or_path": "base", "revision": None}
    main = chosen.get(layers.section_of("", known))
    if main is None or all(one.is_whole for one in chosen.values()):
        return own
    moves = any(one.renumbered for one in chosen.values())
    ada = adapter.get("peft_type") == "ADALORA"  # it looks for each module of its rank pattern
    for name in _PATTERNS:
        if isinstance(entries := adapter.get(name), Mapping) and (moves or ada):
            own[name] = {new: value for key, value in entries.items() if (new := layers.renamed(key, known, chosen))}
    for name in _NAMES:
        if isinstance(entries := adapter.get(name), list) and moves:
            new_names = [layers.renamed(one, known, chosen) for one in entries if isinstance(one, str)]
            own[name] = [one for one in new_names if one is not None]
    if moves and (numbers := adapter.get("layers_to_transform")) is not None:
        listed = numbers if isinstance(numbers, list) else [numbers]
        left = [one for number in listed if (one := main.new(number)) is not None]
        own["layers_to_transform"] = left if isinstance(numbers, list) else left[0]
    if isinstance(adapter.get("adapter_layers"), int):  # adaption prompt: so many layers at the end
        own["adapter_layers"] = len([layer for layer in main.layers if layer in main.touched])
    if isinstance(adapter.get("num_layers"), int):
        own["num_layers"] = len(main.layers)
    return own


def _columns(adapter: Config, own: Config, shapes: Shapes) -> dict[str, int]:
    """Prefix tuning keeps the prefixes of all layers in one tensor, side by side."""
    before, after = adapter.get("num_layers"), own.get("num_layers")
    if adapter.get("peft_type") != "PREFIX_TUNING" or before == after or not before or not after:
        return {}
    wide = {key: shape[-1] for key, shape in shapes.items() if len(shape) == 2 and shape[-1] % before == 0}
    return {key: width // before * after for key, width in wide.items() if key.endswith("prompt_embeddings")}


def _small_images(config: dict[str, Any], shapes: Shapes) -> dict[str, str]:
    """Make the images of a language model one patch large; every one of them is a token of the input."""
    vision = config.get("vision_config")
    tokens = [key for key in config if kind_of(key) is Kind.TOKEN and "image" in key]
    if not isinstance(vision, dict) or not tokens or "spatial_merge_size" in vision:
        return {}
    size, patch = vision.get("image_size"), vision.get("patch_size")
    known = isinstance(size, int) and isinstance(patch, int)
    if not known or size == patch or any("position_emb" in key for key in shapes):
        return {}
    vision["image_size"] = patch
    for section in (config, config.get("text_config")):
        if isinstance(section, dict):
            section.update({key: 1 for key in section if kind_of(key) is Kind.PATCHES and section[key] is not None})
    return {"image": f"images are {patch} pixels wide instead of {size}: one patch, one token"}


def _layers_said(chosen: Mapping[Path, Chosen], dropped: int) -> list[str]:
    said = []
    for path, one in chosen.items():
        if one.is_whole:
            continue
        where = f" of {'.'.join(path)}" if path else ""
        new = f", as {_listed(range(len(one.layers)))}" if one.renumbered else ""
        left = f"layers {_listed(one.layers)}{where} are" if len(one.layers) > 1 else f"layer {one.layers[0]}{where} is"
        said.append(f"{left} left of {one.depth}{new}")
    return [*said, *([f"{many(dropped, 'tensor')} of other layers left out"] if dropped else [])]


def _listed(numbers: Any) -> str:
    return enumerated([str(one) for one in numbers], 8)


def _said(tokens: Vocabulary) -> list[str]:
    said = []
    if tokens.is_cut:
        said.append(f"{tokens.size} tokens are left of {tokens.before:,}: the adapter has none of their rows")
    elif tokens.size != tokens.before:
        said.append(f"the vocabulary has {tokens.size:,} tokens, as in the adapter, not {tokens.before:,}")
    if tokens.resize_to:
        said.append(f"tokens were added: {tokens.resize_to:,} instead of {tokens.before:,}, as in the adapter")
    return said
