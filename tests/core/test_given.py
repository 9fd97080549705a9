"""A scenario can give a saved adapter, and a base a model's own configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness.core import matrix
from harness.core.errors import UsageError
from harness.core.matrix import Matrix
from harness.worker.shared import FROM_FILE

BASE = """
why = "x"
[transformers]
model = "AutoModelForCausalLM"
config_file = "own.json"
args = { use_cache = false }
"""
SCENARIO = (
    '[[scenario]]\nname = "own"\nwhy = "x"\nbase = "own"\nadapter_files = "adapter"\nadapter.config = "LoraConfig"\n'
)
CONFIG = {"model_type": "llama", "sliding_window": None, "use_cache": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "own.toml": SCENARIO,
        "bases/own.toml": BASE,
        "bases/own.json": json.dumps(CONFIG),
        "adapter/adapter_config.json": '{"peft_type": "LORA"}',
        "adapter/adapter_model.bin": "x",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "scenarios").mkdir()
    return tmp_path


def resolved(folder: Path) -> dict[str, Any]:
    (declared,) = Matrix(folder).read(folder / "own.toml")
    return matrix.resolve(declared, {"peft": "0.9.0"})


def test_the_configuration_keeps_its_nulls_and_takes_changes(folder: Path) -> None:
    base = resolved(folder)["base"]
    assert base["config"] == FROM_FILE
    assert base["args"] == {"model_type": "llama", "sliding_window": None, "use_cache": False}


def test_the_digest_is_of_the_files(folder: Path) -> None:
    before = resolved(folder)
    assert matrix.digest(before) == matrix.digest(resolved(folder))
    (folder / "adapter" / "adapter_model.bin").write_text("y")
    assert matrix.digest(before) != matrix.digest(resolved(folder))


def test_an_adapter_that_is_made_has_no_such_key(folder: Path) -> None:
    (folder / "own.toml").write_text(SCENARIO.replace('adapter_files = "adapter"\n', ""))
    assert "given" not in resolved(folder)["adapter"]


@pytest.mark.parametrize(
    ("file", "before", "after", "why"),
    [
        ("own.toml", '"adapter"', '"absent"', "adapter_files"),
        ("own.toml", '"adapter"', '"bases"', "no adapter_config.json"),
        ("own.toml", 'adapter.config = "LoraConfig"', 'adapter = { config = "LoraConfig", args = { r = 4 } }', "args"),
        ("own.toml", 'why = "x"', 'why = "x"\nfill = { "*" = [0.0, 1.0] }', "fill"),
        ("bases/own.toml", "own.json", "absent.json", "absent.json"),
        ("bases/own.toml", "config_file", 'config = "LlamaConfig"\nconfig_file', "exactly one"),
        ("bases/own.json", "model_type", "kind", "model_type"),
        ("bases/own.json", "{", "[", "not the configuration"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, file: str, before: str, after: str, why: str) -> None:
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after, 1))
    with pytest.raises(UsageError, match=why):
        resolved(folder)


def test_a_pipe_in_the_adapter_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "adapter" / "pipe")
    with pytest.raises(UsageError, match="regular"):
        resolved(folder)
