"""Quantised bases in real environments: each break is seen, also where the loader computes with another kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.envs.environments import Environments
from tests.integration.conftest import MUTANTS, Broken, Said, kinds, placed, run_broken
from tests.support.mini.world import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("real")]

CREATOR = "bnb-046"
LOADER = "bnb-v0212"

#: break, scenario, a kind of finding that must be there
TABLE = [
    ("scaling", "bnb4-lora", "values"),
    ("quantised_scaling", "bnb4-lora-mlp", "values"),
    ("swapped_layers", "bnb4-lora", "values"),
    ("swapped_layers", "bnb4-lora-mlp", "values"),
    ("quantised_bias", "bnb4-lora-mlp", "base-moved"),
    ("stale_state", "bnb4-lora-mlp", "differs-from-forward"),
    ("narrow_adapter", "bnb4-lora", "values"),
    ("narrow_adapter", "bnb4-lora-mlp", "values"),
    ("quantised_scaling_8bit", "bnb8-lora", "values"),
    ("quantised_scaling_8bit", "bnb8-lora-mlp", "values"),
    ("swapped_layers", "bnb8-lora", "values"),
    ("quantised_bias_8bit", "bnb8-lora-mlp", "base-moved"),
    ("stale_state_8bit", "bnb8-lora-mlp", "differs-from-forward"),
    ("narrow_adapter", "bnb8-lora-mlp", "values"),
    ("none", "bnb4-lora", None),
    ("none", "bnb4-lora-mlp", None),
    ("none", "bnb8-lora", None),
    ("none", "bnb8-lora-mlp", None),
]
OLD = "bnb-v0140 bnb-v0152 bnb-v0160 bnb-v0171 bnb-v0181 bnb-v0191"
CELLS = placed([row[:2] for row in TABLE], {scenario: OLD for _, scenario, _ in TABLE}, LOADER)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """One run with a break in each cell."""
    return run_broken(tmp_path_factory.mktemp("quantised"), CELLS, "--loader", LOADER)


@pytest.mark.parametrize(
    ("cell", "kind"),
    [(cell, kind) for (cell, _), (_, _, kind) in zip(CELLS, TABLE, strict=True)],
    ids=[f"{name}-{scenario}" for name, scenario, _ in TABLE],
)
def test_a_break_is_seen(cell: str, kind: str | None, broken: Broken) -> None:
    found = broken[cell]
    if kind is None:
        assert found["verdict"] in ("exact", "close"), found
    else:
        assert kind in kinds(found), found


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    command = ["create", CREATOR, "--fixtures", str(folder), "-k", "bnb4-lora or bnb4-lora-mlp"]
    subprocess.run([sys.executable, "-m", "harness", *command], cwd=REPOSITORY, check=True, timeout=600)
    return folder


@pytest.fixture
def replay(mutant: Callable[..., str], peft_regress: Callable[..., Said], fixtures: Path) -> Callable[..., Said]:
    def run(name: str, loader: str, scenario: str) -> Said:
        where = ["--fixtures", str(fixtures), "--creator", CREATOR, "--cell", f"{scenario}@*"]
        return peft_regress("check", *where, "--loader", mutant(name, loader))

    return run


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "scenario", "kind"), [TABLE[0], TABLE[3]], ids=["scaling", "swapped_layers"])
def test_a_break_is_seen_under_another_kernel(name: str, scenario: str, kind: str, replay: Callable[..., Said]) -> None:
    said = replay(name, "bnb-050", scenario)
    assert kind in said.kinds(scenario), said.report["cells"]


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", ["bnb4-lora", "bnb4-lora-mlp"])
def test_the_same_again_is_equal_to_the_bit(scenario: str, replay: Callable[..., Said]) -> None:
    assert replay("none", CREATOR, scenario).verdicts == {scenario: "exact"}


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", ["bnb4-lora", "bnb4-lora-mlp"])
def test_another_kernel_is_no_alarm_but_for_what_merges_after_it_ran(
    scenario: str, replay: Callable[..., Said]
) -> None:
    said = replay("none", "bnb-050", scenario)
    # where the processor has the kernel, what merges or unmerges a weight that was run is broken (a known one)
    assert said.kinds(scenario) <= {"differs-from-merged", "differs-from-forward"}


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", ["bnb4-lora", "bnb4-lora-mlp"])
def test_on_a_processor_without_that_kernel_nothing_is_found(scenario: str, replay: Callable[..., Said]) -> None:
    said = replay("no_avx512_bf16", "bnb-050", scenario)
    assert not said.kinds(scenario)
    assert said.verdicts[scenario] in ("exact", "close")


#: scenario → break, verdict, verdict of the probe `layers`; without packed weights, which are a break of their own
DRIFTS = {
    "bnb4-dora-fp4": ("no_avx512_bf16", "base-moved", "base-moved"),
    "bnb4-oft-fp4": ("no_avx512_bf16", "base-moved", "base-moved"),
    "bnb4-ia3-fp4": ("no_avx512_bf16", "base-moved", "base-moved"),
    "bnb4-dora-double": ("no_avx512_bf16_and_dora_dim", "silent-wrong", "silent-wrong"),
}


def test_an_effect_moves_with_weights_that_are_quantised_otherwise(peft_regress: Callable[..., Said]) -> None:
    breaks = {f"{scenario}@bnb-047": name for scenario, (name, _, _) in DRIFTS.items()}
    said = peft_regress(
        "pair", "--creator", "bnb-047", "--loader", "bnb-050", "--scenarios", str(MUTANTS.parent / "declared"),
        "--worker-handler", str(MUTANTS / "per_cell.py"), PEFT_REGRESS_MUTANTS=json.dumps(breaks),
    )  # fmt: skip
    found = {c["scenario"]: [c["verdict"], c["probes"]["layers"]["verdict"]] for c in said.report["cells"]}
    assert found == {scenario: verdicts for scenario, (_, *verdicts) in DRIFTS.items()}


CUT = """
import os, sys, tempfile
sys.path[:0] = [sys.argv[1]]
import torch
from worker.model import bases
from safetensors.torch import load_file, save_file
os.chdir(tempfile.mkdtemp())
step = {"name": "lin0", "type": "Linear", "args": [64, 64], "kwargs": {}}
spec = {"bits": int(sys.argv[2]), "type": "nf4", "double": False, "threshold": 6.0, "skip": [], "from": "quantised"}
base = {"name": "cut", "kind": "modules", "modules": [step], "load_with": {}, "quantize": spec}
bases.save(bases.build(torch, base))
bases.store_quantised(torch, base)
bases.load_quantised(torch, base)
path = "base/model.safetensors"
if sys.argv[3] == "short":
    data = open(path, "rb").read()
    open(path, "wb").write(data[: len(data) // 2])
else:
    save_file({k: v for k, v in load_file(path).items() if sys.argv[3] not in k}, path)
try:
    bases.load_quantised(torch, base)
except Exception as error:
    print("REFUSED", type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("bits", "cut", "words"),
    [
        (4, "short", "REFUSED SafetensorError"),
        (4, "lin0.weight.", "no quantisation state"),
        (4, "lin0.bias", "no bias"),
        (8, "SCB", "no SCB, its scales"),
        (8, "lin0.weight", "no weight"),
    ],
)
def test_a_quantised_checkpoint_that_was_cut_short_is_refused(
    bits: int, cut: str, words: str, environments: Environments, tmp_path: Path
) -> None:
    python = environments.build(LOADER).python
    script = tmp_path / "cut.py"
    script.write_text(CUT, encoding="utf-8")
    command = [str(python), str(script), str(_worker_alone(tmp_path)), str(bits), cut]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert words in done.stdout, done.stdout + done.stderr


def _worker_alone(folder: Path) -> Path:
    """A folder with the worker in it and nothing else: the harness has modules that hide the standard library's."""
    (folder / "worker").symlink_to(REPOSITORY / "harness" / "worker")
    return folder


@pytest.mark.nightly
@pytest.mark.parametrize("loader", ["v0140", "bitsandbytes==0.45.5,peft==0.14.0"])
def test_without_kernels_for_the_processor_a_cell_is_unsupported_and_says_why(
    loader: str, peft_regress: Callable[..., Said], fixtures: Path
) -> None:
    where = ["--fixtures", str(fixtures), "--creator", CREATOR, "--cell", "bnb4-lora@*"]
    said = peft_regress("check", *where, "--loader", loader)
    assert said.verdicts == {"bnb4-lora": "unsupported"}
    assert "needs bitsandbytes>=0.46" in said.report["cells"][0]["reason"]
    assert said.code == 2  # nothing was compared
