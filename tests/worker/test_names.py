"""Canonical names: two releases call one parameter differently, the comparison must not notice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.worker.shared import canonical

TABLE = [
    # name, adapter names, canonical
    ("model.norm.weight", (), "model.norm.weight"),
    ("base_model.model.model.norm.weight", ("default",), "model.norm.weight"),
    ("base_model.model.lin.weight", ("default",), "lin.weight"),  # 0.6.1
    ("base_model.model.lin.base_layer.weight", ("default",), "lin.weight"),  # 0.7 and later
    ("base_model.model.lin.lora_A.default.weight", ("default",), "lin.lora_A.weight"),
    ("base_model.model.lin.lora_A.weight", ("default",), "lin.lora_A.weight"),  # in a checkpoint
    ("base_model.model.emb.lora_embedding_A.default", ("default",), "emb.lora_embedding_A"),
    ("base_model.model.lin.ia3_l.default", ("default",), "lin.ia3_l"),
    ("base_model.model.lin.lora_magnitude_vector.default.weight", ("default",), "lin.lora_magnitude_vector"),
    ("base_model.model.lin.lora_magnitude_vector.default", ("default",), "lin.lora_magnitude_vector"),
    ("base_model.model.score.modules_to_save.default.weight", ("default",), "score.modules_to_save.weight"),
    ("base_model.model.score.original_module.weight", ("default",), "score.original_module.weight"),
    ("base_model.model.emb.token_adapter.base_layer.weight", ("default",), "emb.token_adapter.weight"),
    # prompt learning: `base_model.` alone; the encoder stands outside of the base
    ("base_model.model.layers.0.weight", ("default",), "layers.0.weight"),
    ("base_model.transformer.h.0.attn.weight", ("default",), "transformer.h.0.attn.weight"),
    ("prompt_encoder.default.embedding.weight", ("default",), "prompt_encoder.embedding.weight"),
    # other adapters keep their names
    ("base_model.model.lin.lora_A.beside.weight", ("default",), "lin.lora_A.beside.weight"),
    ("base_model.model.lin.lora_A.default.weight", ("my_adapter",), "lin.lora_A.default.weight"),
    ("base_model.model.lin.lora_A.my_adapter.weight", ("my_adapter",), "lin.lora_A.weight"),
    ("base_model.model.lin.lora_A.one.weight", ("one", "two"), "lin.lora_A.weight"),
    ("base_model.model.lin.lora_A.two.weight", ("one", "two"), "lin.lora_A.weight"),
    # whole parts only
    ("base_model.model.default_head.weight", ("default",), "default_head.weight"),
    ("base_model.model.my_base_layer.weight", ("default",), "my_base_layer.weight"),
    # the prefix is taken off once, and at the start alone
    ("base_model.model.base_model.model.lin.weight", ("default",), "base_model.model.lin.weight"),
    ("encoder.base_model.model.lin.weight", ("default",), "encoder.base_model.model.lin.weight"),
    ("", ("default",), ""),
]


@pytest.mark.parametrize(("name", "adapters", "expected"), TABLE, ids=[f"{t[0]}|{'+'.join(t[1])}" for t in TABLE])
def test_canonical(name: str, adapters: tuple[str, ...], expected: str) -> None:
    assert canonical(name, adapters) == expected


def test_the_adapter_is_called_default_unless_told() -> None:
    assert canonical("base_model.model.lin.lora_A.default.weight") == "lin.lora_A.weight"


def test_adapter_names_may_be_an_iterator() -> None:
    assert canonical("lin.one.two.weight", iter(["one", "two"])) == "lin.weight"


parts = st.lists(st.sampled_from(["lin", "0", "weight", "lora_A", "other", "attn"]), min_size=1, max_size=6)


@given(parts=parts, place=st.integers(0, 6))
def test_prefix_wrapper_and_adapter_name_leave_no_trace(parts: list[str], place: int) -> None:
    plain = ".".join(parts)
    wrapped = ".".join([*parts[:place], "base_layer", "default", *parts[place:]])

    assert canonical(plain) == plain
    assert canonical("base_model.model." + wrapped) == plain
