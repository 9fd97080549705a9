"""Device classes: which golden a replay on a device is compared with."""

from __future__ import annotations

import pytest

from harness.core.errors import UsageError
from harness.core.matrix import CellId
from harness.core.observation import Done, Observed
from harness.judge import cell_result
from harness.store import device_class
from harness.store.device_class import Device
from harness.store.manifest import BadFixture, Manifest, NoFixture, StoredFile

H200 = Device.of({"name": "NVIDIA H200", "capability": "9.0"}, "cuda")
A100 = Device.of({"name": "NVIDIA A100-SXM4-80GB", "capability": "8.0"}, "cuda:1")


def manifest(*classes: str) -> Manifest:
    file = {"observation.json": StoredFile(sha256="0" * 64, size=1)}
    return Manifest(
        scenario="lora", creator="v061", scenario_digest="", resolved={}, lock_digest="", versions={}, facts={},
        goldens=dict.fromkeys(classes, file), created="2025-01-01",
    )  # fmt: skip


CHOICES = [
    # goldens that there are, device, the one that is taken
    (["cpu"], Device("cpu"), "cpu"),
    (["cpu", "cuda"], Device("cpu"), "cpu"),
    (["cpu", "cuda", "cuda-sm90"], H200, "cuda-sm90"),
    (["cuda-sm90", "cuda-sm90-h200"], H200, "cuda-sm90-h200"),
    (["cpu", "cuda", "cuda-sm90"], A100, "cuda"),
    (["cpu", "cuda-sm90"], A100, "cpu"),
    (["cpu"], H200, "cpu"),
    (["cuda-a100-80gb"], A100, "cuda-a100-80gb"),
    (["cpu", "mps"], H200, "cpu"),
]


@pytest.mark.parametrize(("there", "device", "taken"), CHOICES)
def test_the_most_specific_golden_is_used(there: list[str], device: Device, taken: str) -> None:
    found, note = device_class.golden_for(manifest(*there), device)
    assert found == taken
    assert ("CPU's golden" in note) == (taken == "cpu" and device.kind == "cuda")


def test_two_equally_specific_classes_are_an_error() -> None:
    with pytest.raises(BadFixture, match=r"v061/lora: cuda-h200 and cuda-sm90 both fit"):
        device_class.golden_for(manifest("cpu", "cuda-sm90", "cuda-h200"), H200)
    assert device_class.golden_for(manifest("cuda-sm90", "cuda-h200", "cuda-sm90-h200"), H200)[0] == "cuda-sm90-h200"
    assert device_class.golden_for(manifest("cpu", "cuda-sm90", "cuda-h200"), A100)[0] == "cpu"


@pytest.mark.parametrize(
    ("there", "device", "words"),
    [
        (["cuda-sm90"], A100, "no golden for cuda-sm80 and none for the CPU"),
        (["cuda-sm90"], Device("cpu"), "no golden for cpu"),
    ],
)
def test_no_golden_at_all_is_an_error(there: list[str], device: Device, words: str) -> None:
    with pytest.raises(NoFixture, match=words) as caught:
        device_class.golden_for(manifest(*there), device)
    assert ("--device cuda" in caught.value.next_step) == (device.kind == "cuda")


def test_a_golden_gets_its_own_class_or_a_fitting_one_of_the_user() -> None:
    assert (H200.own_class, A100.own_class, Device("cpu").own_class) == ("cuda-sm90", "cuda-sm80", "cpu")
    assert device_class.checked_class("cuda", H200) == "cuda"
    assert device_class.checked_class("cuda-sm90-h200", H200) == "cuda-sm90-h200"
    for name in ("cuda-sm80", "cpu", "cuda_sm90", "cuda-", "../x"):
        with pytest.raises(UsageError, match="does not belong to class"):
            device_class.checked_class(name, H200)


SAID = [
    # type, message, is it the GPU's doing?
    ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …", True),
    ("torch.cuda.OutOfMemoryError", "whatever it says", True),
    ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
    ("RuntimeError", "CUDA error: all CUDA-capable devices are busy or unavailable", True),
    ("RuntimeError", "CUDA error: no kernel image is available for execution on the device", True),
    ("RuntimeError", "CUDA error: an illegal memory access was encountered", False),
    ("RuntimeError", "Expected all tensors to be on the same device", False),
    ("KeyError", "'lora_A'", False),
]


@pytest.mark.parametrize(("kind", "message", "its_doing"), SAID)
def test_a_small_gpu_is_not_the_libraries_fault(kind: str, message: str, its_doing: bool) -> None:
    assert device_class.exhausted(kind, message) is its_doing
    error = {"stage": "forward", "type": kind, "message": message, "traceback": ""}
    golden = Observed("lora", {"float32": {"outcome": "ok"}}, {"forward": {"float32": {"outcome": "ok"}}}, {}, {})
    probes = {"forward": {"float32": {"outcome": "error", "error": error}}}
    now = Observed("lora", {"float32": {"outcome": "ok"}}, probes, {}, {}, {"gpu_peak_mb": 3.5})
    done = Done("x", "done", "", "", 0.1)
    on_gpu = cell_result.cell(CellId("lora", "v061", "current", "cuda"), golden, now, done)
    assert (str(on_gpu.verdict) == "no-device") is its_doing
    if its_doing:
        assert "busy or too small" in on_gpu.reason
        assert "3.5 MB" in on_gpu.reason
    assert str(cell_result.cell(CellId("lora", "v061", "current"), golden, now, done).verdict) == "run-error"
