"""What looks damaged: each check complains about its damage, and none about what a release saved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.core import data
from harness.own import damage, doctor, folder, layout, values
from harness.own.damage import Case, Damage
from harness.own.values import Scan
from harness.store.adapter import Adapter
from harness.store.adapter_of_fixture import adapter_of
from harness.store.fixtures import Store
from tests.support import adapters

Q = "base_model.model.model.layers.{}.self_attn.q_proj"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
LAYERS = {key.format(layer): shape for layer in range(12) for key, shape in ((A, (4, 8)), (B, (8, 4)))}
HEAD = {"base_model.model.lm_head.weight": (9, 8)}
LLAMA = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 12, "vocab_size": 9, "tie_word_embeddings": True}


def case(
    shapes: dict[str, Any], scan: Scan | None = None, base: dict[str, Any] | None = None, **config: Any
) -> list[Damage]:
    """The damage of a LoRA with these tensors besides those of its layers; a shape of None takes one away."""
    every = {key: shape for key, shape in {**LAYERS, **shapes}.items() if shape is not None}
    found = Case(Adapter(adapters.CONFIG | config, every, base=base), scan or Scan())
    return doctor.damage_of(found)


def of(method: str, shapes: dict[str, tuple[int, ...]], **config: Any) -> list[Damage]:
    """The damage of an adapter of another method."""
    return damage.find(Case(Adapter({"peft_type": method, "target_modules": ["q"]} | config, shapes)))


B_KEYS = [key for key in LAYERS if "lora_B" in key]
STRANGER = "base_model.model.model.layers.0.mlp.down_proj"
CASES = [
    # what, damage, kind (empty: none), serious, words
    ("sound", case({}), "", True, ""),
    ("sound with a base", case({}, base=LLAMA), "", True, ""),
    ("no tensors", damage.find(Case(Adapter(adapters.CONFIG))), "empty", True, "no tensors"),
    ("ZeRO-3", case({A.format(3): (0,)}), "empty", True, "DeepSpeed ZeRO-3"),
    ("NaN", case({}, Scan(not_finite=[A.format(1)])), "not-finite", True, "layers.1"),
    ("as before training", case({}, Scan(zero=B_KEYS)), "no-effect", True, "all 12 tensors lora_B.weight are zero"),
    ("one layer never trained", case({}, Scan(zero=B_KEYS[:1])), "", True, ""),
    ("half a pair", case({B.format(2): None}), "half-a-pair", True, "layers.2.self_attn.q_proj.lora_A.weight"),
    ("another rank", case({}, r=8), "rank", True, "has rank 4, and the configuration says 8"),
    ("a rank that is a text", case({}, r="8"), "value", True, "`r` is the text '8', and PEFT takes a whole number"),
    ("a negative rank", case({}, r=-1), "value", True, "`r` is -1, and PEFT takes a whole number, 1 or more"),
    ("no rank", case({}, r=None), "value", True, "`r` is null"),
    ("an alpha that is a text", case({}, lora_alpha="NaN"), "value", True, "`lora_alpha` is the text 'NaN'"),
    ("an alpha that is no number", case({}, lora_alpha=float("nan")), "value", True, "`lora_alpha` is NaN"),
    ("a negative alpha", case({}, lora_alpha=-8), "", True, ""),
    ("layers that are a text", case({}, layers_to_transform="abc"), "value", True, "a list of them"),
    ("a pattern of ranks that is none", case({}, rank_pattern={"(q_proj": 4}), "value", True, "regular expressions"),
    ("a rank of a text in a pattern", case({}, rank_pattern={"q_proj": "4"}), "value", True, "`rank_pattern`"),
    ("a pattern of alphas that is none", case({}, alpha_pattern={"*": 4}), "value", True, "regular expressions"),
    ("targets that are a number", case({}, target_modules=5), "value", True, "`target_modules` is 5"),
    ("targets with a number", case({}, target_modules=["q_proj", 5]), "value", True, "a list of names or a pattern"),
    ("saved modules that are a text", case({}, modules_to_save="lm_head"), "value", True, "a list of names"),
    ("saved modules that are an empty table", case({}, modules_to_save={}), "value", False, "is an empty table"),
    ("a dropout of 5", case({}, lora_dropout=5), "value", True, "a number from 0 to 1"),
    ("a switch that is a text", case({}, use_rslora="false"), "value", True, "true or false"),
    ("a task that is none", case({}, task_type="CHAT"), "value", False, "`task_type` is the text 'CHAT'"),
    ("a bias of another word", case({}, bias="lora"), "value", True, "`bias` is the text 'lora'"),
    ("another rank in a pattern", case({}, rank_pattern={"layers.3.self_attn.q_proj": 2}), "rank", True, "says 2"),
    ("factors of two files", case({B.format(4): (8, 2)}), "rank", True, "layers.4.self_attn.q_proj.lora_B"),
    ("factors that cannot be multiplied", of("LOHA", {"base_model.model.q.hada_w1_a": (8, 2),
     "base_model.model.q.hada_w1_b": (3, 8)}), "shapes", True, "do not fit together"),
    ("a magnitude of another layer", case({f"{Q.format(0)}.lora_magnitude_vector": (9,)}), "shapes", True, "magnitude"),
    ("a magnitude", case({f"{Q.format(0)}.lora_magnitude_vector": (8,)}), "", True, ""),
    ("DoRA without magnitudes", case({}, use_dora=True), "not-saved", True, "`lora_magnitude_vector`"),
    ("tokens without rows", case({}, trainable_token_indices=[1]), "not-saved", True, "`trainable_tokens_delta`"),
    ("a stranger", case({f"{STRANGER}.lora_A.weight": (4, 8), f"{STRANGER}.lora_B.weight": (8, 4)}),
     "no-target", False, "down_proj"),
    ("targets of another adapter", case({}, target_modules=["k_proj"]), "no-target", True, "`target_modules`"),
    ("targets by a pattern", case({}, target_modules=r".*\.[qk]_proj"), "", True, ""),
    ("targets by another pattern", case({}, target_modules=r".*\.k_proj"), "no-target", True, "24 tensors"),
    ("targets by a pattern that is none", case({}, target_modules="("), "no-target", True, "no regular expression"),
    ("a whole stranger", case({f"{STRANGER}.weight": (8, 8)}), "no-target", False, "does not name"),
    ("a saved module", case({f"{STRANGER}.weight": (8, 8)}, modules_to_save=["down_proj"]), "", True, ""),
    ("a pattern for nothing", case({}, alpha_pattern={"v_proj": 2}), "pattern", False, "names `v_proj`"),
    ("a saved module without a tensor", case({}, modules_to_save=["score"]), "not-saved", True, "`score`"),
    ("one head of those that PEFT names", case({"base_model.model.score.weight": (2, 8)},
     modules_to_save=["classifier", "score"]), "", True, ""),
    ("a head of two layers, as RoBERTa's, that PEFT saves unasked", case({"base_model.model.classifier.dense.weight":
     (8, 8)}), "", True, ""),
    ("a lost layer", case({A.format(5): None, B.format(5): None}), "missing-layers", False, "layers.5"),
    ("every second layer", case({A.format(n): None for n in (1, 3, 5)} | {B.format(n): None for n in (1, 3, 5)}),
     "", True, ""),
    ("layers that were chosen", case(dict.fromkeys([A.format(5), B.format(5)]), layers_to_transform=[0]), "", True, ""),
    ("a base with fewer layers", case({}, base=LLAMA | {"num_hidden_layers": 6}), "other-base", True, "layer 11"),
    ("a base of another width", case({}, base=LLAMA | {"hidden_size": 16}), "other-base", True, "takes 8 values"),
    ("another vocabulary", case({"base_model.model.lm_head.weight": (12, 8)}, modules_to_save=["lm_head"],
     base=LLAMA | {"tie_word_embeddings": False}), "vocabulary", False, "resize_token_embeddings(12)"),
    ("a tied head", case(HEAD, modules_to_save=["lm_head"], base=LLAMA), "tied-head", False, "changes the head alone"),
    ("a tied head by the base's name", case(HEAD, modules_to_save=["lm_head"], base_model_name_or_path="x/gemma-2b"),
     "tied-head", False, "models like x/gemma-2b"),
    ("an untied head", case(HEAD, modules_to_save=["lm_head"], base_model_name_or_path="x/Llama-2-7b"), "", True, ""),
    ("LoHa with half a factor", of("LOHA", {"base_model.model.q.hada_w1_a": (8, 2)}), "half-a-pair", True, "hada_w1_a"),
    ("LoKr with a whole factor", of("LOKR", {"base_model.model.q.lokr_w1": (2, 2)}), "", True, ""),
    ("VeRA without d", of("VERA", {"base_model.model.q.vera_lambda_b": (8,)}), "half-a-pair", True, "vera_lambda_b"),
    ("a prompt that is not there", of("PROMPT_TUNING", {"x": (2, 8)}), "no-prompt", True, "prompt_embeddings"),
    ("a shorter prompt", of("PROMPT_TUNING", {"prompt_embeddings": (3, 8)}, num_virtual_tokens=4), "shapes", True, "3"),
    ("a prompt of an encoder-decoder", of("PREFIX_TUNING", {"prompt_embeddings": (8, 8)}, num_virtual_tokens=4), "",
     True, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "kind", "serious", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_damage_is_found_and_nothing_else(found: list[Damage], kind: str, serious: bool, words: str) -> None:
    assert [one.kind for one in found] == ([kind] if kind else [])
    assert [one.serious for one in found] in ([], [serious])
    assert words in "".join(one.text + one.next_step for one in found)


def test_a_pattern_that_takes_forever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_REGEX_S", 0.3)
    assert layout.matching("(a+)+$", ["a" * 60 + "b"]) is None


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*a){20}", "a*a*a*a*a*b", "x" * 400 + "+", "(a|aa)+"])
def test_a_slow_pattern_of_ranks_is_not_tried(pattern: str) -> None:
    assert not layout.are_simple({pattern: 2})
    assert case({}, rank_pattern={pattern: 2}) == []


def test_a_pattern_of_ranks_is_matched_as_peft_does() -> None:
    patterns = {r"^model\.layers\.\d+\.self_attn\.q_proj$": 2, "[": 3, "k_proj": 4}
    assert layout.are_simple(patterns)
    assert layout.pattern_value(patterns, "model.layers.11.self_attn.q_proj", 8) == 2
    assert layout.pattern_value(patterns, "model.layers.11.self_attn.k_proj", 8) == 4
    assert layout.pattern_value(patterns, "model.layers.11.self_attn.v_proj", 8) == 8


def test_values_are_looked_at_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_AT_ONCE", 8)
    key = A.format(0)
    for name, content, expected in (
        ("nan", b"\0\0\0\0\0\0\x80?\0\0\xc0\x7f", Scan(not_finite=["x"])),
        ("inf", b"\0\0\0\0\0\0\x80?\0\0\x80\xff", Scan(not_finite=["x"])),
        ("zero", bytes(12), Scan(zero=["x"])),
        ("sound", b"\0\0\0\0\0\0\x80?\0\0\x80?", Scan()),
    ):
        made = adapters.folder(tmp_path / name, shapes={"x": (3,)}, content={"x": content})
        assert values.scan(made, folder.read(made).tensors) == expected
        assert values.scan(made, folder.read(made).tensors, most=8) == Scan(unread=12)
    half = adapters.folder(tmp_path / "half", shapes={key: (2,)}, dtype="BF16", content={key: b"\x80\x3f\xc0\x7f"})
    assert values.scan(half, folder.read(half).tensors) == Scan(not_finite=[key])


def test_no_stored_adapter_looks_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Except for what is so: a head that is tied, and a vocabulary that was resized."""
    monkeypatch.setattr(
        damage, "matching", lambda pattern, names: [bool(re.fullmatch(pattern, name)) for name in names]
    )
    store = Store(data.fixtures())
    found, tied = set(), set[str]()
    for creator in store.creators():
        for name in store.scenarios(creator):
            manifest = store.manifest(creator, name)
            tied |= {name} if manifest.resolved["base"].get("args", {}).get("tie_word_embeddings") else set()
            one = Case(adapter_of(store, manifest))
            found |= {(name, each.kind, each.serious) for each in doctor.damage_of(one)}
    assert {one for one in found if one[1] not in ("tied-head", "vocabulary") or one[2]} == set()
    assert all("tied" in name or name in tied for name, kind, _ in found if kind == "tied-head")
    assert all("resized" in name for name, kind, _ in found if kind == "vocabulary")
