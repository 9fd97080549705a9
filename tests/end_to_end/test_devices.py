"""A GPU, played by the fake library: goldens by device class, several GPUs, one that is busy, small or not there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.runner.workers.process import WORKER
from harness.store import integrity
from harness.store.fixtures import Store
from tests.support import manifests
from tests.support.mini.world import HANDLER, World

H200 = {"usable": True, "name": "NVIDIA H200", "capability": "9.0"}
NOISE = 2.0**-23


@pytest.fixture
def gpu(mini: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose machine has one GPU, which rounds otherwise."""
    give(monkeypatch, drift=NOISE)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return mini


def give(monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    monkeypatch.setenv("MINI_GPU", json.dumps({**H200, **more}))


def check(world: World, release: str = "2.0", *more: str) -> str:
    """The verdict of two-layers on the GPU."""
    world.run("check", "--device", "cuda", "--loader", world.spec(release), "-k", "two-layers", *more)
    return world.verdicts()["two-layers"]


def create(world: World, *more: str) -> str:
    said = world.run("create", world.spec("1.0"), "--device", "cuda", "-k", "two-layers", *more)
    return f"{said.code}: {said.out}{said.err}"


def test_the_cpus_golden_by_what_rounding_costs_on_both(gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(gpu) == "close"
    cell = gpu.cell("two-layers")
    assert cell.gpu_peak_mb == 12.5
    assert any("CPU's golden" in note for note in cell.notes)
    give(monkeypatch, drift=1e-3)
    assert check(gpu) == "silent-wrong", "ten bits of mantissa are no rounding of float32's"
    give(monkeypatch, drift=NOISE)
    assert check(gpu, "2.1") == "silent-wrong", "a break is one there too"


def test_two_runs_that_disagree_there_tell_nothing(gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, spread=1e-2)
    assert check(gpu) == "unstable"
    assert "two runs of the loader differ" in str(gpu.cell("two-layers").findings)


def test_a_golden_of_its_class_is_added_and_taken(gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = manifests.read(gpu.fixtures, gpu.name("1.0"), "two-layers")
    assert create(gpu).startswith("0: 1 stored")
    after = manifests.read(gpu.fixtures, gpu.name("1.0"), "two-layers")
    assert set(after["goldens"]) == {"cpu", "cuda-sm90"}
    assert after["goldens"]["cpu"] == before["goldens"]["cpu"]
    assert {key for key in before if before[key] != after[key]} == {"goldens", "elsewhere"}
    assert after["elsewhere"]["cuda-sm90"]["facts"]["gpu"]["name"] == "NVIDIA H200"
    assert create(gpu).startswith("0: 1 unchanged")
    assert not [problem for problem in integrity.verify(Store(gpu.fixtures)) if problem.kind != "orphan"]
    assert check(gpu) == "exact"
    assert any("cuda-sm90" in note for note in gpu.cell("two-layers").notes)
    assert gpu.run("check", "--loader", gpu.spec("2.0"), "-k", "two-layers").code == 0, "the CPU has its own still"
    assert gpu.verdicts()["two-layers"] == "exact"
    give(monkeypatch, capability="8.0", name="NVIDIA A100", drift=NOISE)
    assert check(gpu) == "close", "another architecture takes the CPU's"


def test_classes_that_say_equally_much(gpu: World) -> None:
    assert create(gpu).startswith("0:")
    assert create(gpu, "--device-class", "cuda-h200").startswith("0:")
    assert check(gpu) == "bad-fixture"
    assert "cuda-h200 and cuda-sm90 both fit" in gpu.cell("two-layers").reason
    assert create(gpu, "--device-class", "cuda-sm90-h200").startswith("0:")
    assert check(gpu) == "exact"


def test_a_device_class_that_is_not_the_devices(gpu: World) -> None:
    assert create(gpu, "--device-class", "cuda-sm80").startswith("64:")
    assert gpu.run("create", gpu.spec("1.0"), "--device-class", "cuda", "-k", "two-layers").code == 64


def test_no_golden_at_all_for_the_device(gpu: World) -> None:
    assert create(gpu).startswith("0:")
    said = manifests.read(gpu.fixtures, gpu.name("1.0"), "two-layers")
    del said["goldens"]["cpu"]
    manifests.write(gpu.fixtures, gpu.name("1.0"), "two-layers", said)
    said_of_cpu = gpu.run("check", "--loader", gpu.spec("2.0"), "-k", "two-layers")
    assert said_of_cpu.code == 2
    assert gpu.verdicts()["two-layers"] == "no-fixture"
    assert "no golden for cpu" in gpu.cell("two-layers").reason


def test_a_golden_is_added_to_a_fixture_that_is_there(gpu: World) -> None:
    shutil.rmtree(gpu.fixtures)
    assert "make it first, without --device" in create(gpu)


UNUSABLE = [
    ({"usable": False, "why": "torch 2.13.0 is built without CUDA"}, "built without CUDA"),
    ({"usable": False, "why": "RuntimeError: CUDA error: all CUDA-capable devices are busy"}, "are busy"),
    ({"fails": "CUDA out of memory. Tried to allocate 2.00 GiB. Advice"}, "the GPU is busy or too small"),
]


@pytest.mark.parametrize(("facts", "words"), UNUSABLE)
def test_a_gpu_that_cant_be_used_is_no_regression(
    gpu: World, monkeypatch: pytest.MonkeyPatch, facts: dict[str, object], words: str
) -> None:
    give(monkeypatch, **facts)
    assert check(gpu) == "no-device"
    assert words in gpu.cell("two-layers").reason
    assert gpu.report().exit_code == 2
    if not facts.get("usable", True):
        said = create(gpu)
        assert said.startswith("2:")
        assert words in said


def test_a_process_for_each_gpu(gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-x")
    said = gpu.run("check", "--device", "cuda", "--loader", gpu.spec("2.0"))
    assert "2 GPUs: a process for each" in said.err
    assert set(gpu.traced("sees")) == {"0", "GPU-x"}
    assert gpu.verdicts() == {"two-layers": "close", "one-layer": "close", "later": "unsupported"}


def test_a_busy_one_of_them_is_left_out(gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("MINI_BUSY", "0")
    said = gpu.run("check", "--device", "cuda", "--loader", gpu.spec("2.0"))
    assert "GPU 0 is left out: RuntimeError: CUDA error" in said.err
    assert gpu.verdicts() == {"two-layers": "close", "one-layer": "close", "later": "unsupported"}
    monkeypatch.setenv("MINI_BUSY", "0,1")
    assert check(gpu) == "no-device"


def test_a_device_in_a_bad_state_costs_a_process_and_no_other_cell(gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_POISON", "1")
    gpu.run("check", "--device", "cuda", "--loader", gpu.spec("2.0"))
    assert gpu.verdicts() == {"two-layers": "close", "one-layer": "close", "later": "unsupported"}
    assert len(set(gpu.traced("start"))) == 2


# -- the worker alone --------------------------------------------------------------------------------------------------


def box(world: World, *more: str) -> Path:
    folder = world.root / "box"
    said = world.run("export", str(folder), "--loader", world.spec("2.0"), "--device", "cuda", *more)
    assert said.code == 0, said
    return folder


def alone(world: World, folder: Path) -> subprocess.CompletedProcess[str]:
    python = world.spec("2.0").removeprefix("python:")
    command = [python, str(WORKER), "--plan", str(folder / "plan.json"), "--out", str(folder / "out")]
    command += ["--handler", str(HANDLER), "--device", "cuda"]
    return subprocess.run(command, capture_output=True, text=True, env=world.environ(), timeout=60, check=False)


def judged(world: World, folder: Path) -> dict[str, str]:
    world.run("judge", str(folder))
    return world.verdicts()


@pytest.mark.parametrize("visible", ["0", "0,1"])
def test_carried_to_a_gpu_box_and_back(gpu: World, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert create(gpu).startswith("0:")
    folder = box(gpu, "--device-class", "cuda-sm90")
    done = alone(gpu, folder)
    assert done.returncode == 0, done.stderr
    assert set(gpu.traced("sees")[-2:]) <= set(visible.split(","))
    assert judged(gpu, folder) == {"two-layers": "exact", "one-layer": "close"}
    assert gpu.cell("two-layers").gpu_peak_mb == 12.5
    for path in (folder / "out").glob("hello*.json"):
        path.write_text(path.read_text().replace("9.0", "8.0"))
    assert judged(gpu, folder)["two-layers"] == "not-comparable"
    assert "--device-class cuda-sm80" in gpu.cell("two-layers").reason


def test_a_box_without_a_gpu_is_no_regression(gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = box(gpu)
    give(monkeypatch, usable=False, why="no GPU is visible")
    done = alone(gpu, folder)
    assert done.returncode == 2
    assert "no device: cuda cannot be used here: no GPU is visible" in done.stderr
    assert judged(gpu, folder) == {"two-layers": "no-device", "one-layer": "no-device"}
    assert "no GPU is visible" in gpu.cell("two-layers").reason
    give(monkeypatch)
    assert alone(gpu, folder).returncode == 0, "the same command goes on where there is one"
    assert judged(gpu, folder) == {"two-layers": "exact", "one-layer": "exact"}, "this one does not drift"


def test_a_bad_state_on_the_box_costs_a_process(gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_POISON", "1")
    folder = box(gpu)
    assert alone(gpu, folder).returncode == 0
    assert judged(gpu, folder) == {"two-layers": "close", "one-layer": "close"}
