"""Each rule about declarations fails once on purpose; a sound folder has no complaint."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.lint import Complaint
from harness.envs import declaration, lock
from harness.runner import lint

BASE = """
why = "a base"
[inputs]
input_ids = { kind = "tokens", shape = [2, 6], low = 4, high = 48, contain = [47] }
attention_mask = { kind = "mask", shape = [2, 6], pad_right = [0, 2] }
[transformers]
model = "LlamaForCausalLM"
config = "LlamaConfig"
args = { vocab_size = 48, attention_dropout = 0.0 }
"""
SCENARIO = """
[[scenario]]
name = "lora-small"
why = "Twelve words at least say what nobody would notice without this small scenario."
guards = ["https://github.com/huggingface/peft/issues/1"]
base = "small"
[scenario.adapter]
config = "LoraConfig"
args = { r = 4, lora_alpha = 6 }
[scenario.expects.keys]
"*lora_A.weight" = 2
"""
ENVIRONMENT = """
why = "an environment"
python = "3.11"
[pins]
peft = "0.6.1"
"""
LOCKED = {"peft": "0.6.1", "torch": "2.13.0", "transformers": "4.35.2", "safetensors": "0.4.0"}
FILES = {"bases/small.toml": BASE, "scenarios/lora.toml": SCENARIO, "envs/v061.toml": ENVIRONMENT}


def folder(where: Path, changed: dict[str, str] | None = None, locked: dict[str, str] = LOCKED) -> Path:
    """A folder of declarations, with some files changed."""
    for name, text in (FILES | (changed or {})).items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (where / "envs" / "locks").mkdir(exist_ok=True)
    if "envs/v061.toml" not in (changed or {}):
        declared = declaration.load(where / "envs" / "v061.toml")
        (where / "envs" / "locks" / "v061.txt").write_text(lock.render("v061", declared, locked, "by a test"))
    return where


def complaints(where: Path) -> list[Complaint]:
    return lint.matrix(where)


def test_a_sound_folder_has_none(tmp_path: Path) -> None:
    assert complaints(folder(tmp_path)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "rule", "said"),
    [
        ("scenarios/lora.toml", "Twelve words at least say", "Say", "explained", "has 9 words"),
        ("bases/small.toml", 'why = "a base"', 'why = " "', "explained", "base 'small'"),
        ("scenarios/lora.toml", "Twelve words at least say", "TODO: say", "todo", "`why` is still to be written"),
        ("bases/small.toml", 'why = "a base"', 'why = "TODO: why"', "todo", "base 'small': `why` is still"),
        ("scenarios/lora.toml", "https://github.com", "TODO: https://github.com", "todo", "`guards` is still"),
        ("scenarios/lora.toml", '[scenario.expects.keys]\n"*lora_A.weight" = 2', "", "expected-keys", "is missing"),
        ("scenarios/lora.toml", '"*lora_A.weight" = 2', '"*lora_A.weight" = 0', "expected-keys", "at least 1"),
        ("scenarios/lora.toml", '"*lora_A.weight" = 2', '"*.weight" = 2', "expected-keys", "every key"),
        ("scenarios/lora.toml", "peft/issues/1", "peft/blob/main", "guards", "peft/blob/main"),
        ("scenarios/lora.toml", "lora_alpha = 6", "lora_alpha = 4", "alpha", "rank 4 and alpha 4"),
        ("bases/small.toml", "attention_dropout = 0.0", "attention_dropout = 0.1", "no-dropout", "attention_dropout"),
        ("bases/small.toml", "high = 48", "high = 49", "inputs", "vocabulary of 48: [48]"),
        ("bases/small.toml", "contain = [47]", "contain = [50]", "inputs", "[50]"),
        ("bases/small.toml", "pad_right = [0, 2]", "pad_right = [0, 0]", "inputs", "padded"),
        ("bases/small.toml", "attention_mask =", "mask =", "inputs", "attention_mask"),
        ("scenarios/lora.toml", 'base = "small"', 'base = "smal"', "valid", "did you mean 'small'"),
        ("scenarios/lora.toml", "why =", "whi =", "valid", "`scenario[0].whi`"),
        ("scenarios/lora.toml", "[[scenario]]", "[[scenario]", "valid", "not TOML"),
        ("bases/small.toml", "why =", "whi =", "valid", "whi"),
        ("envs/v061.toml", "python =", "pythn =", "valid", "pythn"),
    ],
)
def test_each_rule_is_broken_on_purpose(tmp_path: Path, file: str, old: str, new: str, rule: str, said: str) -> None:
    assert old in FILES[file]
    found = complaints(folder(tmp_path, {file: FILES[file].replace(old, new, 1)}))
    assert any(one.rule == rule and said in one.says for one in found), found


def test_the_place_is_the_file_and_line_of_the_declaration(tmp_path: Path) -> None:
    text = "\n" + SCENARIO + SCENARIO.replace("lora-small", "lora-other").replace("lora_alpha = 6", "lora_alpha = 4")
    (found,) = complaints(folder(tmp_path, {"scenarios/lora.toml": text}))
    assert found.file == str(tmp_path / "scenarios" / "lora.toml")
    assert text.splitlines()[found.line - 1] == 'name = "lora-other"'
    assert str(found).startswith(f"{found.file}:{found.line}: alpha: lora-other: ")


def test_one_bad_file_does_not_hide_another(tmp_path: Path) -> None:
    changed = {
        "scenarios/lora.toml": "[[scenario]",
        "scenarios/more.toml": SCENARIO.replace("lora_alpha = 6", "lora_alpha = 4"),
    }
    assert {one.rule for one in complaints(folder(tmp_path, changed))} == {"valid", "alpha"}


def test_names_are_unique_and_bases_are_used(tmp_path: Path) -> None:
    changed = {"scenarios/more.toml": SCENARIO, "bases/other.toml": BASE}
    assert {one.rule for one in complaints(folder(tmp_path, changed))} == {"unique", "unused-base"}


@pytest.mark.parametrize(
    ("locked", "said"),
    [
        ({k: v for k, v in LOCKED.items() if k != "safetensors"}, "no safetensors"),
        (LOCKED | {"peft": "0.6.2"}, "peft is pinned to 0.6.1; the lock has 0.6.2"),
    ],
)
def test_a_lock_has_what_is_pinned_and_what_is_needed(tmp_path: Path, locked: dict[str, str], said: str) -> None:
    (found,) = complaints(folder(tmp_path, None, locked))
    assert found.rule == "lock"
    assert said in found.says


def test_a_lock_that_is_missing_is_a_complaint(tmp_path: Path) -> None:
    (folder(tmp_path) / "envs" / "locks" / "v061.txt").unlink()
    (found,) = complaints(tmp_path)
    assert "not locked" in found.says


BREAK = """
title = "Twice"
cause = "Scaled twice."
references = ["https://example.org/1"]
permanent = "released"
[[condition]]
scenarios = ["lora-*", "lokr-*"]
creators = "peft<0.7"
loaders = "peft>=0.7"
verdict = "contract"
"""


def test_known_breaks_are_checked_file_by_file(tmp_path: Path) -> None:
    changed = {"breaks/a.toml": BREAK, "breaks/b.toml": BREAK.replace("cause", "caus")}
    first, second = complaints(folder(tmp_path, changed))
    assert (Path(first.file).name, first.rule) == ("a.toml", "no-scenario")
    assert "'lokr-*'" in first.says
    assert (Path(second.file).name, second.rule) == ("b.toml", "valid")
    assert "unknown key `caus`" in second.says


OLD = """
[[expectation]]
id = "ID"
scenarios = ["lora-*"]
creators = "peft<0.7"
loaders = "peft>=0.7"
verdict = "contract"
issue = "https://example.org/1"
reason = "Scaled twice."
expires = 2027-05-31
"""


def test_one_id_is_one_known_break_in_the_old_file_too(tmp_path: Path) -> None:
    """`check` refuses such a folder."""
    old = "".join(OLD.replace("ID", id) for id in ("a", "b", "b", "c"))
    changed = {"breaks/a.toml": BREAK.replace(', "lokr-*"', ""), "expectations.toml": old}
    found = complaints(folder(tmp_path, changed))
    assert [(Path(one.file).name, one.rule, one.says[:3]) for one in found] == [
        ("expectations.toml", "unique", "'a'"), ("expectations.toml", "unique", "'b'"),
    ]  # fmt: skip
