"""What a worker says of its device, by fakes of torch: nobody needs a GPU for these."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.worker.process import visible_gpus
from harness.worker.serve import devices


class Ones:
    """A tensor of ones that can be multiplied and summed."""

    def __init__(self, total: float) -> None:
        self.total = total

    def __matmul__(self, _other: Ones) -> Ones:
        return self

    def sum(self) -> float:
        return self.total


class Cuda:
    """Stands in for `torch.cuda`."""

    def __init__(self, available: bool = True, fails: str = "") -> None:
        self.available, self.fails = available, fails
        self.called: list[str] = []

    def is_available(self) -> bool:
        return self.available

    def init(self) -> None:
        raise RuntimeError("Found no NVIDIA driver on your system. Please check\nthat you have one")

    def device_count(self) -> int:
        return 2

    def get_device_name(self, index: int) -> str:
        return ("NVIDIA H200", "NVIDIA A100-SXM4-80GB")[index]

    def get_device_capability(self, index: int) -> tuple[int, int]:
        return ((9, 0), (8, 0))[index]

    def mem_get_info(self, _index: int) -> tuple[int, int]:
        return 1 << 30, 1 << 37

    def synchronize(self) -> None:
        if self.fails:
            raise RuntimeError(self.fails)

    def max_memory_allocated(self) -> int:
        return 3 << 19

    def __getattr__(self, name: str) -> Any:
        return lambda: self.called.append(name)


def torch(cuda: Any, total: float = 64.0**3, built_with: str | None = "12.6") -> Any:
    return SimpleNamespace(
        cuda=cuda, __version__="2.13.0", float32="float32", float64="float64",
        version=SimpleNamespace(cuda=built_with), ones=lambda *_, **__: Ones(total),
    )  # fmt: skip


def test_what_it_is() -> None:
    found = devices.describe(torch(Cuda()), "cuda")
    assert (found["usable"], found["name"], found["capability"]) == (True, "NVIDIA H200", "9.0")
    assert (found["free_mb"], found["total_mb"], found["count"]) == (1024, 131072, 2)
    assert devices.describe(torch(Cuda()), "cuda:1")["capability"] == "8.0"


NOT_USABLE = [
    ("no driver", torch(Cuda(available=False)), "Found no NVIDIA driver"),
    ("no CUDA in it", torch(Cuda(available=False), built_with=None), "torch 2.13.0 is built without CUDA"),
    ("no such module", torch(None), "knows no device 'cuda'"),
    ("another's alone", torch(Cuda(fails="CUDA error: all CUDA-capable devices are busy")), "are busy"),
    ("no memory left", torch(Cuda(fails="CUDA out of memory. Tried to allocate 2 MiB\nadvice")), "out of memory"),
    ("it can't count", torch(Cuda(), total=7.0), "is not what it is elsewhere"),
]


@pytest.mark.parametrize(("torch", "why"), [case[1:] for case in NOT_USABLE], ids=[case[0] for case in NOT_USABLE])
def test_why_it_cant_be_used(torch: Any, why: str) -> None:
    found = devices.describe(torch, "cuda")
    assert found["usable"] is False
    assert why in found["why"]
    assert "\n" not in found["why"]


def test_memory_is_watched_on_a_gpu_and_nowhere_else() -> None:
    cuda = Cuda()
    devices.begin(torch(cuda), "cuda")
    assert devices.peak_mb(torch(cuda), "cuda") == {"gpu_peak_mb": 1.5}
    devices.end(torch(cuda), "cuda")
    assert cuda.called == ["reset_peak_memory_stats", "empty_cache"]
    devices.begin(None, "cpu")
    devices.end(None, "cpu")
    assert devices.peak_mb(None, "cpu") == {}


def test_a_device_that_fails_after_a_cell_is_not_sound() -> None:
    assert devices.is_sound(torch(Cuda()), "cuda")
    assert devices.is_sound(None, "cpu")
    assert not devices.is_sound(torch(Cuda(fails="CUDA error: an illegal memory access was encountered")), "cuda")


TWO = "GPU 0: NVIDIA H200 (UUID: GPU-aa)\nGPU 1: NVIDIA H200 (UUID: GPU-bb)\n"
SLICED = "GPU 0: NVIDIA H200 (UUID: GPU-aa)\n  MIG 1g.18gb     Device  0: (UUID: MIG-cc)\nGPU 1: X (UUID: GPU-bb)\n"
SHOWN = [
    # CUDA_VISIBLE_DEVICES, what nvidia-smi lists, a process for each of
    ({}, TWO, ["GPU-aa", "GPU-bb"]),
    ({}, SLICED, ["MIG-cc", "GPU-bb"]),
    ({}, "", []),
    ({"CUDA_VISIBLE_DEVICES": "1"}, TWO, ["1"]),
    ({"CUDA_VISIBLE_DEVICES": "2,0"}, TWO, ["2", "0"]),
    ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, TWO, ["0"]),
    ({"CUDA_VISIBLE_DEVICES": "0,0"}, TWO, ["0"]),
    ({"CUDA_VISIBLE_DEVICES": "GPU-bb, MIG-cc"}, TWO, ["GPU-bb", "MIG-cc"]),
    ({"CUDA_VISIBLE_DEVICES": ""}, TWO, []),
]


@pytest.mark.parametrize(("environ", "listed", "found"), SHOWN)
def test_one_process_for_each_gpu_that_the_caller_shows(environ: dict[str, str], listed: str, found: list[str]) -> None:
    assert visible_gpus(environ, lambda: listed) == found
