"""Where a deviation starts, in the real libraries: a wrong computation, a dropped tensor, a base that changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import MUTANTS, placed, run_broken
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

#: mutant, whose doing, what the first layer's name holds, what is said, the smallest probe
TABLE = [
    ("scaling", "computation", "q_proj", "the computation changed (scaling: 1.5 → 1.501", "layers"),
    ("dropped", "loading", "layers.1.", "its parameters differ from the checkpoint: the loading changed", "accounting"),
    ("swapped", "loading", "_proj", "it holds the values of", "layers"),
    ("base_moved", "base", "layers.0", "the base changed", "base"),
    ("refusing", "not loaded", "", "it does not load", "load"),
]


CELLS = placed([(row[0], "lora-linear") for row in TABLE], {"lora-linear": "v061 v0140 v0152 v0171 v0191"}, "v061")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of one run with a break in each cell."""
    folder = tmp_path_factory.mktemp("where")
    run_broken(folder, CELLS, "--loader", "current")
    return folder / "reports"


@pytest.fixture
def shown(reports: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `show --layers` prints of a cell."""
    monkeypatch.setenv("PEFT_REGRESS_MUTANTS", json.dumps(dict(CELLS)))

    def show(cell: str, *more: str) -> str:
        command = [sys.executable, "-m", "harness", "show", f"{cell}:current[cpu]", "--layers", *more]
        command += ["--reports", str(reports), "--worker-handler", str(MUTANTS / "per_cell.py")]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return show


def rows(*columns: int) -> list[object]:
    """The cell of each row of the table, and some of the row's columns."""
    return [
        pytest.param(cell, *(row[at] for at in columns), id=row[0]) for (cell, _), row in zip(CELLS, TABLE, strict=True)
    ]


@pytest.mark.parametrize(("cell", "doing", "first", "probe"), rows(1, 2, 4))
def test_whose_doing_it_is(cell: str, doing: str, first: str, probe: str, shown: Callable[..., str]) -> None:
    found = json.loads(shown(cell, "--json"))
    assert (found["doing"], found["probe"]) == (doing, probe)
    assert first in found.get("first", "")


@pytest.mark.nightly
@pytest.mark.parametrize(("cell", "says"), rows(3))
def test_what_is_printed(cell: str, says: str, shown: Callable[..., str]) -> None:
    assert says in shown(cell)


#: mutant, cell (`current` renamed its layers), whose doing, the first layer, the base's first module, its name there
RENAMED = [
    (
        "base_weight",
        "lora-llava-suffix@v0140",
        "base",
        "vision_tower.vision_model.encoder.layers.1",
        "vision_tower.vision_model.encoder.layers.1.self_attn.k_proj",
        "model.vision_tower.encoder.layers.1.self_attn.k_proj",
    ),
    (
        "base_weight",
        "lora-mixtral-experts@v0140",
        "base layer",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "",
    ),
    ("scaling", "lora-llava-vision@v0140", "computation", "vision_tower.vision_model.encoder.layers.0", "", ""),
    ("none", "lora-clip-vision-suffix@v0140", "loading", "vision_model.encoder.layers.0.self_attn.q_proj", "", ""),
]


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of one run of these cells."""
    folder = tmp_path_factory.mktemp("renamed")
    run_broken(folder, [(cell, mutant) for mutant, cell, *_ in RENAMED], "--loader", "current")
    return folder / "reports"


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("cell", "doing", "first", "module", "called"), [row[1:] for row in RENAMED], ids=[row[1] for row in RENAMED]
)
def test_renamed_layers_are_followed_into_the_base(
    cell: str, doing: str, first: str, module: str, called: str, renamed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_REGRESS_MUTANTS", json.dumps({cell: mutant for mutant, cell, *_ in RENAMED}))
    command = [sys.executable, "-m", "harness", "show", f"{cell}:current[cpu]", "--layers", "--json"]
    command += ["--reports", str(renamed), "--worker-handler", str(MUTANTS / "per_cell.py")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["doing"] == doing
    assert found["first"].startswith(first)
    base = found.get("base") or {}
    assert (base.get("name", ""), base.get("called", "")) == (module, called)
    rows = [row for row in found["layers"] if not row.get("class_name")]  # not the loader's own fused layers
    assert all(row.get("output") or row.get("elsewhere") for row in rows)
