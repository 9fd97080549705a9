"""Makes numbers portable: a golden that was made on one x86-64 machine is bit-equal on another.

Most of it are variables that must be set before torch is imported (`shared.process_variables`). The controller sets
them for the workers that it starts; a worker that is started by hand sets them and restarts itself (`missing`).
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..shared import process_variables


def missing(environ: Mapping[str, str], hash_seed: str | None = None) -> dict[str, str]:
    """The variables that are absent or otherwise in this environment; empty where it is as it must be."""
    return {name: value for name, value in process_variables(environ, hash_seed).items() if environ.get(name) != value}


def facts() -> dict[str, Any]:
    """What a golden's bits may hang on, of this process and machine: to be stored with what is observed."""
    return {
        "environ": {name: os.environ.get(name) for name in sorted(process_variables(os.environ))},
        "hash_seed": os.environ.get("PYTHONHASHSEED"),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
    }


def after_import(torch: Any) -> dict[str, Any]:
    """Sets what can only be set once torch is there (one thread, deterministic algorithms), and returns what it found.

    Uninitialised memory is filled with NaN where this torch can, so that a parameter that nobody filled shows at once.
    """
    torch.set_num_threads(1)
    with contextlib.suppress(RuntimeError):  # it can be set only once, before the first parallel work
        torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic = getattr(torch.utils, "deterministic", None)  # absent before 2.2
    if deterministic is not None:
        deterministic.fill_uninitialized_memory = True
    _renew_pool_in_children(torch)
    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": _capability(torch),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fills_uninitialized_memory": deterministic is not None,
    }


def _renew_pool_in_children(torch: Any) -> None:
    """Have each forked child make its own pool of threads before anything else.

    Torch lets the first thread that asks replace the pool that the fork broke. Where several ask at once, as those do
    in which Transformers 5 loads weights, some find none for a moment, and fail: "Invalid thread pool!".
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def exact_integers(torch: Any) -> None:
    """Have products of int8 matrices summed in whole numbers, for the rest of this process.

    oneDNN, held to an instruction set that every processor has, adds them up in 16 bits that overflow; bitsandbytes up
    to 0.47 multiplies with it. Without oneDNN torch's own loop is exact on every machine.
    """
    torch.backends.mkldnn.set_flags(False)


def _capability(torch: Any) -> str | None:
    get = getattr(getattr(torch.backends, "cpu", None), "get_cpu_capability", None)
    return str(get()) if get is not None else None


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(names, "") or platform.processor()
    except OSError:
        return platform.processor()
