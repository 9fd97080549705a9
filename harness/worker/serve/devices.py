"""The device that cells run on: its facts, whether it works, and how much of its memory a cell uses.

A worker on the CPU calls none of this: its processes are forked, which fails once a GPU is initialised.
"""

from __future__ import annotations

import gc
import os
from typing import Any, Dict, Optional

from ..process import VISIBLE_GPUS

_MB = 2.0**20


def describe(torch: Any, device: str) -> Dict[str, Any]:
    """Facts of a device. If a cell could not run there, `usable` is false and `why` has the reason.

    A small product in both precisions shows whether it works: the GPU may be reserved by another process, out of
    memory, or of an architecture that this torch has no kernels for.
    """
    kind = device.partition(":")[0]
    found: Dict[str, Any] = {"kind": kind, "usable": False, "why": "", "visible": os.environ.get(VISIBLE_GPUS)}
    module: Any = getattr(torch, kind, None)
    if not hasattr(module, "is_available"):
        return {**found, "why": f"torch {torch.__version__} knows no device {kind!r}"}
    if not module.is_available():
        return {**found, "why": _why_there_is_none(torch, module, found["visible"])}
    try:
        found.update(_properties(module, device))
        _try_out(torch, module, device)
    except Exception as error:  # noqa: BLE001 - drivers raise anything; it is the answer
        return {**found, "why": f"{type(error).__name__}: {first_line(error)}"}
    return {**found, "usable": True}


def _why_there_is_none(torch: Any, module: Any, visible: Optional[str]) -> str:
    if getattr(torch.version, "cuda", None) is None and module is getattr(torch, "cuda", None):
        return f"torch {torch.__version__} is built without CUDA"
    try:
        module.init()
    except Exception as error:  # noqa: BLE001 - it names what is missing, usually a driver
        return first_line(error)
    return "no GPU is visible" + (f" ({VISIBLE_GPUS}={visible})" if visible is not None else "")


def _properties(module: Any, device: str) -> Dict[str, Any]:
    index = int(device.partition(":")[2] or 0)
    found: Dict[str, Any] = {"count": int(module.device_count()), "name": str(module.get_device_name(index))}
    if hasattr(module, "get_device_capability"):
        found["capability"] = "%d.%d" % tuple(module.get_device_capability(index))
    free, total = module.mem_get_info(index)
    return {**found, "free_mb": round(free / _MB), "total_mb": round(total / _MB)}


def _try_out(torch: Any, module: Any, device: str) -> None:
    for precision in ("float32", "float64"):
        ones = torch.ones(64, 64, dtype=getattr(torch, precision), device=device)
        if float((ones @ ones).sum()) != 64.0**3:
            raise RuntimeError(f"ones times ones is not what it is elsewhere ({precision})")
    module.synchronize()


def begin(torch: Any, device: str) -> None:
    """Begin to measure a cell's memory."""
    module = _module(torch, device)
    if hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats()


def peak_mb(torch: Any, device: str) -> Dict[str, float]:
    """The cell's greatest use of the device's memory, for the timings; empty on a CPU."""
    module = _module(torch, device)
    return {"gpu_peak_mb": round(module.max_memory_allocated() / _MB, 3)} if module is not None else {}


def end(torch: Any, device: str) -> None:
    """Release the cell's memory for the next one."""
    module = _module(torch, device)
    if module is not None:
        gc.collect()
        module.empty_cache()


def is_sound(torch: Any, device: str) -> bool:
    """False if the process can no longer use its device: after some faults every later call fails too."""
    module = _module(torch, device)
    if module is None:
        return True
    try:
        _try_out(torch, module, device)
    except Exception as error:  # noqa: BLE001 - any error would also fail the next cell
        print(f"the device can't be used any more: {first_line(error)}")
        return False
    return True


def _module(torch: Any, device: str) -> Any:
    """`torch.cuda` for `cuda:1`; None for the CPU."""
    kind = device.partition(":")[0]
    return None if kind == "cpu" else getattr(torch, kind, None)


def first_line(error: BaseException) -> str:
    """The first line of a message: CUDA's continue with advice for debugging kernels."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
