"""Makes numbers portable: a golden that was made on one x86-64 machine is bit-equal on another.

Most of it are variables that must be set before torch is imported (`process.process_variables`). The controller sets
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

from ..process import process_variables


def missing(environ: Mapping[str, str], hash_seed: str | None = None) -> dict[str, str]:
    """The variables that are missing or different in this environment; empty if it is right."""
    return {name: value for name, value in process_variables(environ, hash_seed).items() if environ.get(name) != value}


def facts() -> dict[str, Any]:
    """Facts of this process and machine that a golden's bits can depend on; stored with it."""
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
    """Set what needs torch (one thread, deterministic algorithms); returns the state after that.

    If this torch can, uninitialised memory is filled with NaN, so that a parameter that was never filled shows.
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
    """Make each forked child create its own pool of threads first.

    Torch lets the first thread that needs the pool replace the one that the fork broke. If several threads need it at
    once, as in Transformers 5 when it loads weights, some fail with "Invalid thread pool!".
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def exact_integers(torch: Any) -> None:
    """Sum products of int8 matrices exactly, for the rest of this process.

    oneDNN, limited to an instruction set that every processor has, sums them in 16 bits, which overflow; bitsandbytes
    up to 0.47 uses it. Without oneDNN torch's own loop is exact on every machine.
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
