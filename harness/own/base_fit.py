"""Whether an adapter's tensors fit its base, by the base's `config.json`, and whether its head is tied (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.core.text import one_line
from harness.judge.adapter_facts import tied
from harness.own.damage import Case, Damage

_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers", "depth",
                 "depths", "num_decoder_layers", "vision_layers")  # fmt: skip
_WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "hidden_dim", "word_embed_proj_dim", "hidden_sizes")
_STACK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d{1,6})\.")
_FROM_HIDDEN = re.compile(r"(?:^|\.)(q_proj|k_proj|v_proj|gate_proj|up_proj|query|key|value|query_key_value|c_attn)$")
_EMBEDDING = re.compile(r"(?:^|\.)(embed_tokens|word_embeddings|wte|shared|embed_in)$")
_HEAD = re.compile(r"(?:^|\.)(lm_head|embed_out)$")
_TIED_NAMES = re.compile(
    r"(gpt2|opt-\d|gemma|bloom|bigcode|starcoder|falcon-(7b|rw)|qwen(2|2\.5|3)-(0\.[56]|1\.[57]|3|4)b|llama-3\.2-[13]b"
    r"|smollm|phi-4-mini|tinystories|t5-(small|base|large|3b)|bart|pegasus|mbart|whisper|bert)",
    re.IGNORECASE,
)
"""Names of models that tie embedding and head, where their configuration is not known."""


def find(case: Case) -> Iterator[Damage]:
    """What does not fit the base, and what its tied head makes dangerous."""
    if case.adapter.base:
        yield from _layers(case, case.adapter.base)
        yield from _widths(case, case.adapter.base)
        yield from _vocabulary(case, case.adapter.base)
    yield from _tied(case)


def _layers(case: Case, base: Mapping[str, Any]) -> Iterator[Damage]:
    count = max(_numbers(base, _LAYER_COUNTS), default=0)
    numbers = [int(number) for place in case.places if place.own for number in _STACK.findall(f"{place.module}.")]
    if count and numbers and max(numbers) >= count and not case.config.get("layer_replication"):
        yield Damage(
            "other-base", f"it has tensors for layer {max(numbers)}, and the base has the layers 0 to {count - 1}",
            "pass the configuration of the model that it was trained on", serious=True,
        )  # fmt: skip


def _widths(case: Case, base: Mapping[str, Any]) -> Iterator[Damage]:
    """LoRA of a layer that reads the hidden state, which has a width that the base has nowhere."""
    widths = _numbers(base, _WIDTHS)
    numbers = {*widths, *_all_numbers(base)} if widths else set()
    for place in case.places:
        reads = place.part == "lora_A.weight" and len(place.shape) == 2 and _FROM_HIDDEN.search(place.module)
        if numbers and reads and place.shape[1] not in numbers:
            yield Damage(
                "other-base", f"{one_line(place.key, 160)} takes {place.shape[1]} values, and the base's width is "
                f"{max(widths)}", "pass the configuration of the model that it was trained on",
            )  # fmt: skip
            return


def _vocabulary(case: Case, base: Mapping[str, Any]) -> Iterator[Damage]:
    """A whole embedding with another number of tokens."""
    sizes = _numbers(base, ("vocab_size",))
    for place in case.places:
        named = _EMBEDDING.search(place.module) or _HEAD.search(place.module)
        whole = not place.own and place.part == "weight" and len(place.shape) == 2
        if named and whole and sizes and place.shape[0] not in sizes:
            yield Damage(
                "vocabulary", f"{one_line(place.key, 160)} has {place.shape[0]} tokens, and the base {max(sizes)}",
                f"call resize_token_embeddings({place.shape[0]}) on the base before loading", serious=False,
            )  # fmt: skip
            return


def _numbers(base: Any, names: tuple[str, ...]) -> set[int]:
    """The values of these entries, at any depth."""
    found: set[int] = set()
    for key, value in base.items() if isinstance(base, Mapping) else ():
        if key in names:
            found |= {one for one in (value if isinstance(value, list) else [value]) if type(one) is int}
        found |= _numbers(value, names) if key.endswith(("config", "backbone", "encoder", "decoder")) else set()
    return found


def _all_numbers(value: Any) -> Iterator[int]:
    if type(value) is int:
        yield value
    for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _all_numbers(one)


def _tied(case: Case) -> Iterator[Damage]:
    """An embedding or a head that is changed, of a base in which they are one matrix."""
    task = str(case.config.get("task_type") or "")
    named = str(case.config.get("base_model_name_or_path") or "")
    if case.adapter.base is not None:
        is_tied, how = tied(case.adapter) is True, "the base ties"
    else:
        causal = task in ("CAUSAL_LM", "SEQ_2_SEQ_LM")
        is_tied, how = causal and _TIED_NAMES.search(named) is not None, f"models like {one_line(named, 80)} tie"
    if not is_tied or case.config.get("ensure_weight_tying"):
        return
    changed = [place for place in case.places if not place.part.startswith(("token_adapter", "trainable_tokens"))]
    one = {
        name: [place for place in changed if pattern.search(place.module)]
        for name, pattern in (("embedding", _EMBEDDING), ("head", _HEAD))
    }
    for name, other in (("embedding", "head"), ("head", "embedding")):
        if one[name] and not one[other]:
            module = one_line(one[name][0].module, 80)
            yield Damage(
                "tied-head", f"{how} embedding and head, and it changes the {name} alone ({module})",
                "do not merge it: merging changes both, or unties them; use it unmerged", serious=False,
            )  # fmt: skip
