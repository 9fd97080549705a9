"""What a replay alone records: what holds for every release is a finding, the rest a note."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.core.verdict import Verdict
from harness.worker.shared import FURTHER
from tests.support.observations import FORWARD, KEYS, Pair, told

SAVED = {"outcome": "ok", "tensors": ["a", "b"]}

FOUND: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("a key is left", "unloaded", {"left": {"keys left": ["q_proj.base_layer.weight"]}}, "unloaded", "left-behind"),
    ("a key is gone", "merge_and_unload", {"left": {"keys gone": ["q.weight"]}}, "merge_and_unload", "left-behind"),
    ("a module is left", "unloaded", {"left": {"modules left": ["q_proj"]}}, "unloaded", "left-behind"),
    ("a hook is left", "unloaded", {"left": {"hooks": ["q_proj._forward_hooks"]}}, "unloaded", "left-behind"),
    ("the base's config differs", "unloaded", {"left": {"config": ["a: 1 → 2"]}}, "unloaded", "left-behind"),
    ("a config is read otherwise", "config", {"defaults": {"outcome": "ok", "changed": ["r"]}}, "config",
     "config-round-trip"),
    ("a format lacks a key", "files", {"default": SAVED, "other_format": {"outcome": "ok", "tensors": ["a"]}}, "files",
     "formats-differ"),
]  # fmt: skip

NOTED: list[tuple[str, str, dict[str, Any], str]] = [
    ("a tensor does not arrive by a name", "named",
     {"layer": {"outcome": "ok", "name": "q_proj", "lost": [KEYS[0]], "saved_without": [], "saved_besides": []}},
     "loaded under the name 'q_proj', 1 tensor did not arrive"),
    ("a tensor is saved under another key", "named",
     {"layer": {"outcome": "ok", "name": "q_proj", "lost": [], "saved_without": [KEYS[0]], "saved_besides": ["x"]}},
     "saved under the name 'q_proj', it has other keys"),
    ("rows of a batch get the wrong adapter", "several", {"batch": {"outcome": "ok", "unlike_alone": ["default"]}},
     "in a batch with other adapters, default computes something else"),
    ("a missing key is passed over", "odd_files",
     {"lacks_a_key": {"outcome": "ok", "missing": []}, "from_pretrained_lacks_a_key": {"outcome": "ok"}},
     "without a word"),
]  # fmt: skip

SOUND: list[tuple[str, str, dict[str, Any]]] = [
    ("nothing is left", "unloaded", {"left": {}}),
    ("an attribute is left, as up to 0.18", "unloaded", {"left": {"attributes": [".peft_config"]}}),
    ("merging untied the head", "merge_and_unload", {"left": {"config": ["tie_word_embeddings: True → False"]}}),
    ("layers were replicated", "unloaded",
     {"left": {"keys left": ["layers.2.q.weight"], "config": ["num_hidden_layers: 2 → 4"]}}),
    ("a step is not available", "config", {"defaults": {"outcome": "skipped", "changed": ["r"]}}),
    ("a missing key is returned", "odd_files",
     {"lacks_a_key": {"outcome": "ok", "missing": ["a"]}, "from_pretrained_lacks_a_key": {"outcome": "ok"}}),
    ("a missing key is refused", "odd_files",
     {"lacks_a_key": {"outcome": "error"}, "from_pretrained_lacks_a_key": {"outcome": "error"}}),
]  # fmt: skip


def _pair(probe: str, facts: dict[str, Any]) -> Pair:
    pair = Pair()
    pair.now.facts.setdefault(probe, {}).update(facts)
    pair.now.probes.setdefault(probe, {"float32": {"outcome": "ok"}})
    return pair


@pytest.mark.parametrize(("probe", "facts", "where", "kind"), [row[1:] for row in FOUND], ids=[r[0] for r in FOUND])
def test_what_no_release_does_is_a_contract(probe: str, facts: dict[str, Any], where: str, kind: str) -> None:
    judgement = _pair(probe, facts).judge()
    assert [(f.probe, f.kind, f.verdict) for f in judgement.findings] == [(where, kind, Verdict.CONTRACT)]
    assert judgement.probes[where].verdict is Verdict.CONTRACT


@pytest.mark.parametrize(("probe", "facts", "words"), [row[1:] for row in NOTED], ids=[r[0] for r in NOTED])
def test_what_some_release_does_is_a_note(probe: str, facts: dict[str, Any], words: str) -> None:
    judgement = _pair(probe, facts).judge()
    assert not judgement.findings, told(judgement)
    assert any(words in note for note in judgement.notes), told(judgement)


@pytest.mark.parametrize(("probe", "facts"), [row[1:] for row in SOUND], ids=[r[0] for r in SOUND])
def test_what_is_sound_says_nothing(probe: str, facts: dict[str, Any]) -> None:
    judgement = _pair(probe, facts).judge()
    assert not judgement.findings, told(judgement)
    assert not judgement.notes, told(judgement)


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        ("several/float32/merged.logits", "several/float32/both.logits"),
        ("several/float32/unmerged.logits", "several/float32/both.logits"),
        ("several/float32/back_from_third.logits", "several/float32/deleted.logits"),
        ("dimensions/float32/4d.q_proj", "dimensions/float32/3d.q_proj"),
        ("several/float32/disabled.logits", ""),
        ("together/float32/mixed.merged.logits", "together/float32/mixed.logits"),
        ("named/float32/layer.logits", ""),
    ],
)
def test_outputs_that_must_be_equal(mine: str, other: str) -> None:
    for gap in (0.0, 1.0):
        pair = _pair(mine.split("/")[0], {})
        twin = FORWARD if mine.startswith("named") else "base/float32/logits"
        pair.now.arrays[mine] = pair.now.arrays[twin] + np.float32(gap)
        if other:
            pair.now.arrays[other] = pair.now.arrays[twin]
        judgement = pair.judge()
        assert not judgement.findings, told(judgement)
        assert len(judgement.notes) == (1 if gap else 0), told(judgement)


def test_a_probe_that_no_golden_has_is_judged_by_its_own_findings() -> None:
    pair = Pair()
    for probe in FURTHER:
        pair.now.probes[probe] = {"float32": {"outcome": "ok"}}
    judgement = pair.judge()
    assert {judgement.probes[probe].verdict for probe in FURTHER} == {Verdict.EXACT}
