"""What a new adapter is saved as: each loss is made once on purpose, and each sound change raises no alarm."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.verdict import Verdict
from tests.support.observations import KEYS, Mutation, Pair, both, fact, mutated, told

FRESH = "fresh/float32/logits"
AGAIN = "fresh/float32/reloaded.logits"
SAVED = {key: [4, 4] for key in KEYS}


def _saves(keys: dict[str, list[int]], *, moved: dict[str, str] | None = None) -> Mutation:
    return both(fact("now", "fresh", "keys", keys), fact("now", "fresh", "moved", moved or {}))


def _filled(*names: str) -> Mutation:
    """The loader's parameters have these names, and so values of their own."""

    def apply(pair: Pair) -> None:
        pair.golden.facts["created"] = {"filled": ["a"]}
        pair.now.facts["fresh"]["filled"] = list(names)

    return apply


def _dtypes(saved: str) -> Mutation:
    def apply(pair: Pair) -> None:
        _filled("a")(pair)
        pair.now.facts["accounting"]["dtypes"] = dict.fromkeys(KEYS, "float32")
        pair.now.facts["fresh"]["dtypes"] = dict.fromkeys(KEYS, saved)

    return apply


def _reads_again(by: float) -> Mutation:
    """The loader reads what it saved; the outputs then are off by so much."""

    def apply(pair: Pair) -> None:
        pair.now.arrays[AGAIN] = (pair.now.arrays[FRESH] + by).astype("float32")

    return apply


def _created(by: float) -> Mutation:
    """The creator's reload was off by so much from what it computed when it was saved."""

    def apply(pair: Pair) -> None:
        created = pair.golden.arrays["forward/float32/logits"] + by
        pair.golden.arrays["created/float32/logits"] = created.astype("float32")

    return apply


def _config(**entries: Any) -> Mutation:
    def apply(pair: Pair) -> None:
        pair.now.facts["fresh"]["config"] = {**pair.now.facts["fresh"]["config"], **entries}

    return apply


def _asks(**entries: Any) -> Mutation:
    """The scenario asks this loader for these values."""
    return fact("now", "fresh", "asked", entries)


def _config_without(*names: str) -> Mutation:
    def apply(pair: Pair) -> None:
        config = pair.now.facts["fresh"]["config"]
        pair.now.facts["fresh"]["config"] = {name: value for name, value in config.items() if name not in names}

    return apply


def trained(pair: Pair) -> None:
    """A trainer made and saved the adapter; the probe `fresh` creates it without one."""
    for side in (pair.golden, pair.now):
        side.probes["sft"] = {"float32": {"outcome": "ok"}}


_FEWER = {key: [4, 4] for key in KEYS[:2]}
_RENAMED = {key.replace("lora_", "lora."): [4, 4] for key in KEYS}

BROKEN: list[tuple[str, Mutation, Verdict, str]] = [
    ("tensors are no longer saved", _saves(_FEWER), Verdict.CONTRACT, "written-keys"),
    (
        "a tensor is no longer saved, others are renamed",
        _saves(
            {key.replace("lora_", "lora."): [4, 4] for key in KEYS[:3]},
            moved={key: key.replace("lora_", "lora.") for key in KEYS[:3]},
        ),
        Verdict.CONTRACT,
        "written-keys",
    ),
    (
        "one is gone, and what is new has other values",
        _saves({**{key: [4, 4] for key in KEYS[:3]}, "alpha": [1]}),
        Verdict.CONTRACT,
        "written-keys",
    ),
    ("fewer, under other names", both(_filled("b"), _saves({"x": [4, 4]})), Verdict.CLOSE, ""),
    ("a file is no longer saved", fact("now", "fresh", "files", []), Verdict.CONTRACT, "written-files"),
    ("saved in half precision", _dtypes("float16"), Verdict.CONTRACT, "written-dtype"),
    ("saved in other shapes", _saves({**SAVED, KEYS[0]: [2, 8]}), Verdict.CONTRACT, "written-shape"),
    (
        "a config entry is gone",
        both(_asks(lora_alpha=8), _config_without("lora_alpha")),
        Verdict.CONTRACT,
        "written-config",
    ),
    ("a default is another", _config(lora_alpha=9), Verdict.CONTRACT, "written-config"),
    (
        "a config entry says something else",
        both(_asks(lora_alpha=8), _config(lora_alpha=9)),
        Verdict.CONTRACT,
        "written-config",
    ),
    (
        "read again, it is another adapter",
        both(_reads_again(0.5), _created(0.0)),
        Verdict.SILENT_WRONG,
        "reloaded-differs",
    ),
    (
        "the loader cannot read what it saved",
        fact(
            "now", "fresh", "reloaded",
            {"outcome": "error", "error": {"stage": "state dict", "type": "KeyError", "message": "x", "traceback": ""}},
        ),
        Verdict.LOAD_ERROR,
        "unreadable",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mutation", "verdict", "kind"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_each_loss_is_a_finding(mutation: Mutation, verdict: Verdict, kind: str) -> None:
    judgement = mutated(mutation)
    assert judgement.verdict is verdict, told(judgement)
    assert [(f.probe, f.kind) for f in judgement.findings] == ([("fresh", kind)] if kind else []), told(judgement)


SOUND: list[tuple[str, Mutation]] = [
    ("every key has another name", _saves(_RENAMED,
                                          moved={key: key.replace("lora_", "lora.") for key in KEYS})),
    ("keys are renamed and filled by their names", both(_filled("b"), _saves(_RENAMED))),
    ("a further key", _saves({**SAVED, "alpha": [1]})),
    ("another file name", fact("now", "fresh", "files", ["adapter_model.safetensors"])),
    ("a new config entry", _config(use_dora=False)),
    ("another release is asked for another value", both(_asks(lora_alpha=9), _config(lora_alpha=9))),
    ("an option that the release does not have", _config_without("lora_alpha")),
    ("every layer is named", both(_asks(target_modules="all-linear"), _config(target_modules=["a.q", "b.q"]))),
    ("the same types", _dtypes("float32")),
    ("read again, it is the same", both(_reads_again(0.0), _created(0.0))),
    (
        "another adapter's tensors, which the creator's own reload drops",
        both(_saves({key: [4, 4] for key in KEYS[:3]}), fact("golden", "roundtrip", "lost", [KEYS[3]])),
    ),
    ("an adapter that a trainer saved in half precision", both(trained, _dtypes("float16"))),
    ("a user's own adapter in half precision", fact("now", "fresh", "dtypes", dict.fromkeys(KEYS, "float16"))),
]  # fmt: skip


@pytest.mark.parametrize("mutation", [row[1] for row in SOUND], ids=[row[0] for row in SOUND])
def test_sound_changes_raise_no_alarm(mutation: Mutation) -> None:
    judgement = mutated(mutation)
    assert judgement.verdict is Verdict.CLOSE, told(judgement)
    assert not judgement.findings


def test_what_the_creators_own_reload_loses_is_a_standing_defect() -> None:
    judgement = mutated(both(_reads_again(0.5), _created(0.5)))
    assert "reloaded-differs" not in {finding.kind for finding in judgement.findings}, told(judgement)
    assert any("as for the creator" in text for text in judgement.standing_defects)
