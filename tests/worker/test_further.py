"""The further probes: what they take from a model, from files and from configs."""

from __future__ import annotations

import contextlib
import json
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.worker.compat import at_once
from harness.worker.observe import structure
from harness.worker.observe.capture import Skip
from harness.worker.observe.further import configs, files, names
from harness.worker.observe.further.step import step


def _context(warnings: list[str]) -> Any:
    recorded: dict[str, Any] = {}
    return SimpleNamespace(
        precision="float32", observation=SimpleNamespace(load={"float32": {"warnings": warnings}}), recorded=recorded,
        fact=lambda probe, name, value: recorded.update({(probe, name): value}),
    )  # fmt: skip


def _raise(error: Exception) -> None:
    raise error


def test_a_step_that_raises_ends_alone() -> None:
    context = _context([])
    with step(context, "several", "both") as facts:
        facts["active"] = ["a"]
        _raise(ValueError("no such adapter"))
    assert context.recorded["several", "both"] == {
        "outcome": "error",
        "error": {"stage": "several", "type": "ValueError", "message": "no such adapter"},
        "active": ["a"],
    }


def test_a_release_without_the_feature_is_skipped() -> None:
    context = _context([])
    with step(context, "narrow", "as_is"):
        _raise(Skip("this release has no autocast_adapter_dtype"))
    assert context.recorded["narrow", "as_is"]["outcome"] == "skipped"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
         {"ending": "weight", "attribute": "lora_A", "layer": "q_proj"}),
        ("prompt_encoder.default.embedding.weight", {"ending": "weight", "attribute": "prompt_encoder"}),
        ("base_model.model.lin0.hada_w1_a.default", {"attribute": "hada_w1_a", "layer": "lin0"}),
        ("base_model.model.lin0.weight", {}),
    ],
)  # fmt: skip
def test_the_names_are_words_of_a_parameters_path(path: str, words: dict[str, str]) -> None:
    model = SimpleNamespace(named_parameters=lambda: [("base.weight", None), (path, None)])
    assert names.words_of(model, "default") == words


def test_every_file_is_listed_with_what_it_says_of_itself(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "README.md").write_text("# Model card\n", encoding="utf-8")
    assert files.tree(str(tmp_path)) == ["README.md", 'beside/adapter_model.safetensors {"format": "pt"}']


class BaseTunerLayer:
    """As much of PEFT's class as is looked at; its name is what counts."""

    def __init__(self, **attributes: Any) -> None:
        self._modules: dict[str, Any] = {}
        self._parameters: dict[str, Any] = {}
        self._buffers: dict[str, Any] = {}
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("attributes", "held"),
    [
        ({"scaling": {"beside": 1.0}, "_active_adapter": ["beside"]}, []),
        ({"scaling": {"first": 1.0}}, ["scaling"]),
        ({"merged_adapters": ["first"], "_adapters": {"first"}}, ["_adapters", "merged_adapters"]),
        ({"_active_adapter": "first", "other": "first_of_all"}, ["_active_adapter"]),
        ({"_modules": {"lora_A": {"first": None}}}, ["lora_A"]),
    ],
)
def test_what_layers_hold_of_a_deleted_adapter(attributes: dict[str, Any], held: list[str]) -> None:
    model = SimpleNamespace(modules=lambda: [SimpleNamespace(scaling={"first": 1}), BaseTunerLayer(**attributes)])
    assert at_once.held(model, "first") == held


def test_hooks_that_a_failed_call_leaves_are_removed() -> None:
    layer = SimpleNamespace(_forward_pre_hooks={1: "own"}, _forward_pre_hooks_with_kwargs={})
    model = SimpleNamespace(named_modules=lambda: [("q_proj", layer)])

    def fails() -> None:
        layer._forward_pre_hooks[2] = layer._forward_pre_hooks_with_kwargs[2] = "of the call"
        raise ValueError

    with contextlib.suppress(ValueError), at_once.hooks_removed(model) as left:
        fails()
    assert (left, layer._forward_pre_hooks, layer._forward_pre_hooks_with_kwargs) == (["q_proj"], {1: "own"}, {})


class _Kind(StrEnum):
    LORA = "LORA"


def test_a_config_is_recorded_as_json_without_its_release() -> None:
    said = {"peft_type": _Kind.LORA, "target_modules": {"v", "q"}, "peft_version": "0.21.2", "nested": {"a": (1, 2)}}
    assert configs.plain(said) == {"peft_type": "LORA", "target_modules": ["q", "v"], "nested": {"a": [1, 2]}}


class _Module:
    """As much of a module as is looked at after unloading."""

    def __init__(self, keys: list[str], **attributes: Any) -> None:
        self.__dict__.update(attributes)
        self._keys = keys

    def named_modules(self) -> list[tuple[str, Any]]:
        return [("", self)]

    def state_dict(self) -> dict[str, None]:
        return dict.fromkeys(self._keys)

    def named_buffers(self) -> list[Any]:
        return []


def _hook() -> None:
    """As if PEFT had registered it."""


_hook.__module__ = "peft.tuners.lora.model"


@pytest.mark.parametrize(
    ("keys", "attributes", "left"),
    [
        (["q.weight"], {}, {}),
        (["q.base_layer.weight"], {}, {"keys gone": ["q.weight"], "keys left": ["q.base_layer.weight"]}),
        (["q.weight"], {"peft_config": {}}, {"attributes": [".peft_config"]}),
        (["q.weight"], {"_forward_hooks": {1: _hook}},
         {"hooks": ["._forward_hooks"], "attributes": ["._forward_hooks"]}),
        (["q.weight"], {"config": SimpleNamespace(to_dict=lambda: {"vocab_size": 9})},
         {"config": ["vocab_size: None → 9"], "attributes": [".config"]}),
    ],
)  # fmt: skip
def test_what_is_left_after_unloading(keys: list[str], attributes: dict[str, Any], left: dict[str, list[str]]) -> None:
    assert structure.left_behind(_Module(["q.weight"]), _Module(keys, **attributes)) == left


def test_unloading_may_take_the_adapter_of_the_base_off_too() -> None:
    base = _Module(["q.weight", "q.lora_A.first.weight"], peft_config={})
    assert structure.left_behind(base, _Module(["q.weight"])) == {}
