"""Where a deviation starts, in the real libraries: a wrong computation, a dropped tensor, a base that moved."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Said
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

#: mutant, whose doing, what the first layer's name holds, what is said, the smallest probe
TABLE = [
    ("scaling", "computation", "q_proj", "the computation changed (scaling: 1.5 → 1.501", "layers"),
    ("dropped", "loading", "layers.1.", "its parameters are not the checkpoint's: the loading", "accounting"),
    ("swapped", "loading", "_proj", "it holds what the checkpoint has under", "layers"),
    ("base_moved", "base", "layers.0", "the base moved", "base"),
    ("refusing", "not loaded", "", "it does not load", "load"),
]


@pytest.mark.parametrize(("name", "doing", "first", "says", "probe"), TABLE, ids=[t[0] for t in TABLE])
def test_whose_doing_it_is(
    name: str, doing: str, first: str, says: str, probe: str, mutant: Callable[[str], str],
    peft_regress: Callable[..., Said], tmp_path: Path,
) -> None:  # fmt: skip
    checked = peft_regress("check", "--creator", "v061", "--loader", mutant(name), "--cell", "lora-linear@*")
    assert checked.code == 1
    command = [
        sys.executable,
        "-m",
        "harness",
        "show",
        "lora-linear",
        "--layers",
        "--reports",
        str(tmp_path / "reports"),
    ]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert says in told.stdout
    found = json.loads(subprocess.run([*command, "--json"], cwd=REPOSITORY, capture_output=True, check=True).stdout)
    assert found["doing"] == doing
    assert first in found.get("first", "")
    assert found["probe"] == probe
