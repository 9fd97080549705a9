"""Contracts beside the numbers: each is broken once on purpose, and each sound change raises no alarm."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.core.verdict import Verdict
from harness.judge.config_entries import SAID_NOTHING, config_changes
from tests.support.observations import (
    BIAS,
    FORWARD,
    KEYS,
    LAYERS,
    Mutation,
    Pair,
    another_dtype,
    another_shape,
    both,
    fact,
    golden,
    lost,
    mutated,
    now,
    saved_config,
    told,
)

V = Verdict


def _rename_a_gradient(pair: Pair) -> None:
    for name in pair.now.names("gradients"):
        if "layers.0" in name:
            pair.now.arrays[name.replace("layers.0", "model.layers.0")] = pair.now.arrays.pop(name)


def _rename_parameters(pair: Pair) -> None:
    structure = pair.now.facts["structure"]
    structure["inference"] = {f"model.{name}": value for name, value in structure["inference"].items()}
    structure["trainable"] = [f"model.{name}" for name in structure["trainable"]]
    structure["ties"] = [["model.embed.weight", "model.lm_head.weight"]]


def _untied_by(probe: str) -> Mutation:
    def apply(pair: Pair) -> None:
        pair.golden.facts.setdefault(probe, {})["ties"] = [["embed.weight", "lm_head.weight"]]
        pair.now.facts.setdefault(probe, {})["ties"] = []

    return apply


def _had(**entries: object) -> Mutation:
    """The checkpoint's config had entries that are gone after saving again."""

    def apply(pair: Pair) -> None:
        pair.now.facts["roundtrip"]["config_before"] = {**pair.now.facts["roundtrip"]["config_before"], **entries}

    return apply


_FUSED = (
    fact("now", "layers", "names", ["experts"]),
    fact("now", "layers", "missing", list(LAYERS)),
    now("drop", "layers/"),
)
"""The layers of the golden are gone and another one has come."""

BROKEN: list[tuple[str, Mutation, Verdict, tuple[str, str]]] = [
    ("a tie is broken", fact("now", "structure", "ties", []), V.CONTRACT, ("structure", "tie-broken")),
    ("merging breaks a tie", fact("now", "merged", "ties", []), V.CONTRACT, ("merged", "tie-broken")),
    *(
        (f"{probe} breaks a tie", _untied_by(probe), V.CONTRACT, (probe, "tie-broken"))
        for probe in ("unmerged", "safe_merged", "merged_saved", "roundtrip")
    ),
    ("another dtype", another_dtype, V.CONTRACT, ("structure", "dtype")),
    ("another shape of a parameter", another_shape, V.CONTRACT, ("structure", "shape")),
    (
        "outputs in bfloat16",
        lambda p: p.now.facts.update(stored_wider={FORWARD: "torch.bfloat16"}),
        V.CONTRACT,
        ("forward", "dtype"),
    ),
    (
        "fewer are trainable",
        lambda p: p.now.facts["structure"]["trainable"].pop(),
        V.CONTRACT,
        ("structure", "trainability"),
    ),
    (
        "others are trainable",
        both(
            lambda p: p.now.facts["structure"]["inference"].update(head=[[4, 9], "torch.float32", True]),
            lambda p: p.now.facts["structure"]["trainable"].__setitem__(0, "head"),
        ),
        V.CONTRACT,
        ("structure", "trainability"),
    ),
    (
        "a gradient is missing",
        now("drop", f"gradients/float32/{LAYERS[0]}"),
        V.CONTRACT,
        ("gradients", "gradients-missing"),
    ),
    (
        "keys are lost on saving",
        fact("now", "roundtrip", "lost", [KEYS[0]]),
        V.CONTRACT,
        ("roundtrip", "roundtrip-keys"),
    ),
    (
        "tensors change on saving",
        fact("now", "roundtrip", "changed", [KEYS[0]]),
        V.CONTRACT,
        ("roundtrip", "roundtrip-tensors"),
    ),
    ("a config value changed", saved_config(lora_alpha=16), V.CONTRACT, ("roundtrip", "config")),
    ("a config value is gone", saved_config(lora_alpha=...), V.CONTRACT, ("roundtrip", "config")),
    ("a config value that says something is gone", _had(use_dora=True), V.CONTRACT, ("roundtrip", "config")),
    ("a new warning", now("warns", "forward", "UserWarning: ignored"), V.WARNED, ("warnings", "new-warning")),
    (
        "a warning once per text",
        both(*(now("warns", p, "UserWarning: x") for p in ("base", "merged"))),
        V.WARNED,
        ("warnings", "new-warning"),
    ),
]
"""(name, what is changed in a sound pair, the verdict, probe and kind of its only finding)."""


@pytest.mark.parametrize(
    ("mutation", "verdict", "expected"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_each_contract_breaks_on_purpose(mutation: Mutation, verdict: Verdict, expected: tuple[str, str]) -> None:
    judgement = mutated(mutation)
    assert judgement.verdict is verdict, told(judgement)
    assert [(f.probe, f.kind) for f in judgement.findings] == [expected], told(judgement)


SOUND: list[tuple[str, Mutation, str]] = [
    # sound loaders rename, transpose, fuse
    (
        "tensors are found by slices",
        lambda p: p.now.facts["accounting"]["tensors"].update({k: {"found": "slice", "at": ["experts"]} for k in KEYS}),
        "",
    ),
    ("a tensor of an agreeing layer is fused", lost(KEYS[0]), "the outputs decide"),
    ("a bias is not found by value, and the outputs agree", lost(BIAS), "the outputs decide"),
    (
        "a prompt is computed from its tensor",
        both(lost("prompt"), fact("now", "accounting", "computed", ["prompt"])),
        "the outputs decide",
    ),
    (
        "layers are called otherwise",
        both(
            fact("now", "layers", "names", ["model." + layer for layer in LAYERS]),
            fact("now", "layers", "missing", list(LAYERS)),
            now("drop", "layers/"),
        ),
        "2 adapter layers have other names",
    ),
    (
        "two layers are fused into one",
        both(*_FUSED, lost(*KEYS)),
        "2 adapter layers were fused into others",
    ),
    ("parameters are called otherwise", _rename_parameters, "4 trainable parameters have other names"),
    ("a gradient is called otherwise", _rename_a_gradient, "1 gradients have other names"),
    # what is a release's own affair
    ("a routine warning", now("warns", "forward", "FutureWarning: soon"), ""),
    ("a warning on saving", now("warns", "roundtrip", "UserWarning: saved"), ""),
    ("a known warning", both(golden("warns", "base", "x"), now("warns", "forward", "x")), ""),
    ("a config entry is filled in", saved_config(rank_pattern={}), ""),
    ("a config entry is new", saved_config(use_dora=False), ""),
    ("a list of the config is reordered", saved_config(target_modules=["q_proj", "k_proj"]), ""),
    (
        "other file names",
        fact("now", "fresh", "files", ["adapter_model.safetensors"]),
        "saved as adapter_model.safetensors instead of adapter_model.bin",
    ),
    ("further keys on saving", fact("now", "roundtrip", "added", ["k"]), "1 additional keys: k"),
]
"""(name, what is changed in a sound pair, what a note says of it)."""


@pytest.mark.parametrize(("mutation", "said"), [row[1:] for row in SOUND], ids=[row[0] for row in SOUND])
def test_sound_changes_raise_no_alarm(mutation: Mutation, said: str) -> None:
    judgement = mutated(mutation)
    assert judgement.verdict is Verdict.CLOSE, told(judgement)
    assert not judgement.findings
    assert any(said in note for note in judgement.notes) or not said, told(judgement)


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({"r": 4}, {"r": 8}, ["r: 4 → 8"]),
        ({"r": 4}, {}, ["- r (was 4)"]),
        ({"seed": 0}, {}, ["- seed (was 0)"]),
        ({"use_dora": True}, {}, ["- use_dora (was True)"]),
        ({"use_dora": False}, {}, [f"- use_dora (was False){SAID_NOTHING}"]),
        ({"eva_config": None}, {}, [f"- eva_config (was None){SAID_NOTHING}"]),
        ({"rank_pattern": {}}, {}, [f"- rank_pattern (was {{}}){SAID_NOTHING}"]),
        ({"use_cayley_neumann": False}, {}, ["- use_cayley_neumann (was False)"]),
        ({"qalora_group_size": 16}, {}, [f"- qalora_group_size (was 16){SAID_NOTHING}"]),
        (
            {"qalora_group_size": 16, "use_qalora": True},
            {},
            ["- qalora_group_size (was 16)", "- use_qalora (was True)"],
        ),
        ({}, {"use_dora": False}, ["+ use_dora = False"]),
        ({"init": None}, {"init": True}, ["+ init: None → True"]),
        ({"modules_to_save": ["a"]}, {"modules_to_save": ["b", "a"]}, ["+ modules_to_save: ['a'] → ['b', 'a']"]),
        ({"target_modules": ["a"]}, {"target_modules": ["b", "a"]}, ["target_modules: ['a'] → ['b', 'a']"]),
        ({"target_modules": ["a", "b"]}, {"target_modules": ["b", "a"]}, []),
        ({"layers": [1, 2]}, {"layers": [2, 1]}, ["layers: [1, 2] → [2, 1]"]),
        ({"peft_version": "0.6"}, {"peft_version": "0.9", "auto_mapping": None}, []),
    ],
)
def test_config_changes(before: Mapping[str, object], after: Mapping[str, object], lines: list[str]) -> None:
    assert config_changes(before, after) == lines


def test_what_was_off_is_told_and_no_finding() -> None:
    judged = mutated(_had(use_dora=False, eva_config=None))
    assert judged.findings == ()
    assert judged.config_differences == (
        f"- eva_config (was None){SAID_NOTHING}",
        f"- use_dora (was False){SAID_NOTHING}",
    )


def test_a_config_that_the_creator_changed_too_is_its_own_affair() -> None:
    change = saved_config(lora_alpha=16)

    def by_both(pair: Pair) -> None:
        change(pair)
        pair.golden.facts["roundtrip"]["config"]["lora_alpha"] = 16

    assert mutated(by_both).config_differences == ()


def test_keys_are_counted() -> None:
    keys = mutated(both(lost("stray"), lost(KEYS[0]))).keys
    assert keys is not None
    assert (keys.total, keys.arrived, keys.lost, keys.undecided) == (5, 3, ("stray",), (KEYS[0],))


def test_what_was_nowhere_for_the_creator_is_not_lost() -> None:
    def standing(pair: Pair) -> None:
        lost("stray")(pair)
        pair.golden.facts["accounting"]["tensors"]["stray"]["found"] = "nowhere"

    assert mutated(standing).verdict is Verdict.CLOSE


def test_a_tie_that_made_the_creators_model_wrong_may_go() -> None:
    def untied(pair: Pair) -> None:
        _untied_by("merged_saved")(pair)
        pair.golden.shift("merged_saved", 1.0)  # read again, the creator's merged model computed something else

    judgement = mutated(untied)
    assert "tie-broken" not in {finding.kind for finding in judgement.findings}
    assert any("where the creator's model was wrong" in note for note in judgement.notes)
