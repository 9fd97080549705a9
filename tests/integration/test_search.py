"""Which library, which release, which commit: breaks of the real libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.xdist_group("real")]

Asked = Callable[..., dict[str, Any]]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """`blame` and `bisect` in a process of their own; what they find, as data."""

    def ask(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "harness", *words, "--json", "--reports", str(tmp_path)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return ask


def test_lokr_is_peft_alone_and_its_release(asked: Asked) -> None:
    cell = "lokr-alpha-differs@v061:current[cpu]"
    found = asked("blame", cell)
    assert [list(one["packages"]) for one in found["culprits"]] == [["peft"]]
    assert found["sentence"].startswith("peft 0.6.1 → ")
    assert found["pin"]["command"] == "pip install 'peft<0.14.0'"
    found = asked("bisect", cell, "--good", "0.12.0", "--bad", "0.15.1")
    assert (found["package"], found["exact"]) == ("peft", True)
    assert (found["before"]["name"], found["after"]["name"]) == ("peft 0.13.2", "peft 0.14.0")
    assert found["compare"].endswith("/compare/v0.13.2...v0.14.0")


def test_a_renamed_head_is_transformers_alone(asked: Asked) -> None:
    found = asked("blame", "lora-neox-head@v061:current[cpu]")
    assert [list(one["packages"]) for one in found["culprits"]] == [["transformers"]]
    assert " alone causes it; it deviates in the same way without the changes of peft, " in found["sentence"]
    assert found["pin"]["command"] == "pip install 'transformers<5.14.0'"


def test_weight_converters_take_two_libraries(asked: Asked) -> None:
    found = asked("blame", "lora-qwen2-moe-attention@v0181:peft-0.19.1+transformers-5.9.0[cpu]")
    assert [list(one["packages"]) for one in found["culprits"]] == [["peft", "transformers"]]
    assert "only together" in found["sentence"]
    assert found["pin"]["command"] == "pip install 'peft<0.19.0'"
    assert list(found["pin"]["also"]) == ["transformers==4.57.3"]


def test_two_locks_of_a_user(asked: Asked, tmp_path: Path) -> None:
    locks = REPOSITORY / "matrices" / "envs" / "locks"
    after = tmp_path / "after.txt"
    lines = [line for line in (locks / "v0140.txt").read_text().splitlines() if not line.startswith("#")]
    after.write_text("\n".join([*lines, "-e git+https://example.org/me/train.git@1a2b#egg=train"]))
    found = asked("blame", "lokr-alpha-differs@v0120", "--good", str(locks / "v0132.txt"), "--bad", str(after))
    assert [list(one["packages"]) for one in found["culprits"]] == [["peft"]]
    assert found["pin"]["command"] == "pip install 'peft<0.14.0'"
