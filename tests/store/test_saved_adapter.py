"""What a release saved, compared with what another saved; and the history."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from harness.store import saved_adapter, saved_diff, saved_history
from harness.store.manifest import BadFixture, Manifest, StoredFile
from harness.store.saved_adapter import Written, generic
from harness.store.saved_diff import Change

SAFE, BIN = "adapter_model.safetensors", "adapter_model.bin"
Q = "base.layers.0.q_proj"


def one(creator: str = "v1", release: str = "0.6.1", file: str = SAFE, **more: Any) -> Written:
    """An adapter of two tensors in a safetensors file."""
    keys = (f"{Q}.lora_A.weight", f"{Q}.lora_B.weight")
    values: dict[str, Any] = {
        "scenario": "lora",
        "creator": creator,
        "release": release,
        "files": {file: "a1", "adapter_config.json": "c1"},
        "shapes": {keys[0]: (4, 16), keys[1]: (16, 4)},
        "config": {"r": 4, "peft_type": "LORA", "target_modules": ["q", "v"]},
    }
    if file == SAFE:
        values |= {"dtypes": dict.fromkeys(keys, "F32"), "contents": {keys[0]: "d0", keys[1]: "d1"}}
    return Written(**values | more)


def said(before: Written, after: Written) -> list[tuple[str, str]]:
    return [(change.kind, change.what) for change in saved_diff.changes(before, after)]


A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
PLAIN = one()
DIFFERENCES = [
    # what differs: before, after, what is said
    ("nothing", PLAIN, one("v2", "0.7.0"), []),
    ("config bytes alone", PLAIN, one(files={SAFE: "a1", "adapter_config.json": "c2"}), []),
    ("order of names", PLAIN, one(config={**PLAIN.config, "target_modules": ["v", "q"]}), []),
    (
        "the file's format",
        one(file=BIN),
        one(),
        [
            ("file", f"{BIN} → {SAFE}"),
            ("unknown", f"types: {BIN} does not state them unless opened"),
            ("unknown", f"values: {BIN} without digests"),
        ],
    ),
    (
        "the file's format, with digests",
        one(file=BIN, digests={A: "x", B: "y"}),
        one(digests={A: "x", B: "z"}),
        [
            ("file", f"{BIN} → {SAFE}"),
            ("unknown", f"types: {BIN} does not state them unless opened"),
            ("value", "other values: …lora_B.weight"),
        ],
    ),
    (
        "a further file",
        PLAIN,
        one(files={**PLAIN.files, "new.json": "n", "b": "b"}),
        [("file", "+ b"), ("file", "+ new.json")],
    ),
    ("a file less", one(files={**PLAIN.files, "x.json": "n"}), PLAIN, [("file", "- x.json")]),
    ("a key more", PLAIN, one(shapes={**PLAIN.shapes, f"{Q}.dora": (4,)}), [("key", "+ …q_proj.dora")]),
    ("a key less", PLAIN, one(shapes={A: (4, 16)}), [("key", "- …lora_B.weight")]),
    (
        "a key renamed",
        one(shapes={f"{Q}.bias": (4,), "layers.1.q_proj.bias": (4,)}, dtypes={}, contents={}),
        one(shapes={f"{Q}.base_layer.bias": (4,), "layers.1.q_proj.base_layer.bias": (4,)}, dtypes={}, contents={}),
        [("key", "…bias → …base_layer.bias"), ("unknown", f"types: {SAFE} does not state them unless opened")],
    ),
    ("a shape", PLAIN, one(shapes={A: (16, 4), B: (16, 4)}), [("shape", "…lora_A.weight: [4, 16] → [16, 4]")]),
    ("a type", PLAIN, one(dtypes={A: "F32", B: "BF16"}), [("dtype", "…lora_B.weight: F32 → BF16")]),
    ("values", PLAIN, one(contents={A: "d0", B: "dx"}), [("value", "other values: …lora_B.weight")]),
    (
        "bytes of a pickle",
        one(file=BIN),
        one(file=BIN, files={BIN: "a2", "adapter_config.json": "c1"}),
        [
            ("unknown", f"types: {BIN} does not state them unless opened"),
            ("value", f"other bytes in {BIN} (digests would show which tensors, and whether their values changed)"),
        ],
    ),
    (
        "the same pickle",
        one(file=BIN),
        one(file=BIN),
        [("unknown", f"types: {BIN} does not state them unless opened")],
    ),
    (
        "the config",
        PLAIN,
        one(config={"r": 8, "peft_type": "LORA", "eva_config": None}),
        [("config", "+ eva_config = None"), ("config", "r: 4 → 8"), ("config", "- target_modules (was ['q', 'v'])")],
    ),
    ("version strings", PLAIN, one(versions={"peft_version": "0.18"}), [("version", "+ peft_version = '0.18'")]),
]


@pytest.mark.parametrize(
    ("before", "after", "expected"), [row[1:] for row in DIFFERENCES], ids=[r[0] for r in DIFFERENCES]
)
def test_what_is_saved_differently(before: Written, after: Written, expected: list[tuple[str, str]]) -> None:
    assert sorted(said(before, after)) == sorted(expected)


def test_version_strings_and_unknowns_are_not_differences() -> None:
    assert [saved_diff.differs(kind) for kind in ("version", "unknown", "config", "value")] == [
        False,
        False,
        True,
        True,
    ]
    assert not Change("version", "x").differs


def test_a_rename_is_listed_key_by_key() -> None:
    before, after = one(shapes={f"{Q}.bias": (4,)}), one(shapes={f"{Q}.base_layer.bias": (4,)})
    (change,) = (c for c in saved_diff.changes(before, after) if c.kind == "key")
    assert change.details == (f"{Q}.bias → {Q}.base_layer.bias",)


def test_keys_of_other_shapes_are_not_renames() -> None:
    before, after = one(shapes={f"{Q}.bias": (4,)}), one(shapes={f"{Q}.base_layer.bias": (8,)})
    assert [what for kind, what in said(before, after) if kind == "key"] == ["- …q_proj.bias", "+ …base_layer.bias"]


def test_scenarios_with_the_same_difference_are_grouped() -> None:
    wide, narrow, version = Change("config", "+ a = None"), Change("key", "+ x", ("k.x",)), Change("version", "+ v")
    found = saved_diff.shared({"s1": [wide, narrow], "s2": [wide, version], "s3": []})
    assert [(each.kind, each.what, each.scenarios) for each in found] == [
        ("key", "+ x", ("s1",)),
        ("config", "+ a = None", ("s1", "s2")),
        ("version", "+ v", ("s2",)),
    ]
    assert found[0].details == {"s1": ("k.x",)}
    other = saved_diff.shared({"s1": [wide, Change("config", "r: 1 → 2")], "s2": [wide]})
    assert [len(each) for each in saved_diff.together(other).values()] == [1, 1]
    same = saved_diff.shared({"s1": [wide, Change("config", "r: 1 → 2")]})
    assert [len(each) for each in saved_diff.together(same).values()] == [2]


@pytest.mark.parametrize(
    ("key", "end"),
    [("base.layers.0.q_proj.lora_A.weight", "…lora_A.weight"), ("layers.3", "layers.*"), ("a.0.1", "…*.*"), ("x", "x")],
)
def test_the_end_of_a_key_has_no_layer(key: str, end: str) -> None:
    assert generic(key) == end


# -- history


def history(*every: Written) -> saved_history.History:
    (found,) = saved_history.of(every)
    return found


def test_a_history_is_in_release_order_and_in_stretches() -> None:
    found = history(
        one("v0100", "0.10.0"),
        one("v071", "0.7.1", BIN, files={BIN: "a2", "adapter_config.json": "c1"}),
        one("v061", "0.6.1", BIN),
        one("v082", "0.8.2"),
        one("v0191", "0.19.1", config={**PLAIN.config, "eva_config": None}),
    )
    assert [one.creator for one in found.written] == ["v061", "v071", "v082", "v0100", "v0191"]
    assert [(s.span, s.form) for s in found.stretches] == [
        ("0.6.1–0.7.1", f"{BIN}, 2 keys"),
        ("0.8.2–0.10.0", f"{SAFE}, 2 keys"),
        ("0.19.1", f"{SAFE}, 2 keys"),
    ]
    assert [[c.what for c in s.changes] for s in found.stretches] == [
        [],
        [f"{BIN} → {SAFE}"],
        ["+ eva_config = None"],
    ]
    assert (found.weights, found.keys, found.configs) == (3, 1, 2)


def test_a_creator_of_an_unknown_release_comes_last() -> None:
    found = history(one("python-1", ""), one("v061", "0.6.1"))
    assert [s.span for s in found.stretches] == ["0.6.1–python-1"]


def test_version_strings_make_no_stretch() -> None:
    found = history(one(versions={"peft_version": "1"}), one("v2", "0.7.0", versions={"peft_version": "2"}))
    assert len(found.stretches) == found.configs == 1


def test_storage_counts_shared_files_once() -> None:
    def manifest(scenario: str, *files: tuple[str, int]) -> Manifest:
        stored = {f"adapter/{name}": StoredFile(sha256=name * 64, size=size) for name, size in files}
        return Manifest(
            scenario=scenario, creator="v1", scenario_digest="x", resolved={}, lock_digest="x", versions={}, facts={},
            files=stored, created="2026-01-01",
        )  # fmt: skip

    found = saved_history.storage([manifest("a", ("1", 10), ("2", 5)), manifest("b", ("1", 10))])
    assert (found.fixtures, found.blobs, found.stored, found.unshared) == (2, 2, 15, 25)


# -- reading


def safetensors(header: dict[str, Any] | str, data: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_safetensors_file_is_read_without_any_library() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [4, 8]},
    }
    found = saved_adapter._tensors(safetensors(header, b"12345678"), "x")
    assert {key: value[:2] for key, value in found.items()} == {"a": ("float32", (1,)), "b": ("bfloat16", (2,))}
    assert found["a"][2] != found["b"][2]


BAD: Sequence[bytes] = [
    b"",
    b"\xff" * 8,
    safetensors("no json"),
    safetensors("[]"),
    safetensors({"a": {"dtype": "F32"}}),
    safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 99]}}, b"1234"),
    safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
]


@pytest.mark.parametrize("data", BAD)
def test_a_damaged_safetensors_file_is_a_bad_fixture(data: bytes) -> None:
    with pytest.raises(BadFixture, match="x: "):
        saved_adapter._tensors(data, "x")


def test_a_float32_file_has_the_digests_that_the_worker_would_take() -> None:
    """So a `.bin` whose golden has them and an older safetensors file can be compared."""
    values = struct.pack("<2f", 1.5, -2.0)
    digest = hashlib.sha256(values).hexdigest()
    assert saved_adapter._digests({"a": ("float32", (2,), digest)}) == {"a": digest[:16]}
    assert saved_adapter._digests({"a": ("float32", (2,), digest), "b": ("bfloat16", (2,), digest)}) == {}
