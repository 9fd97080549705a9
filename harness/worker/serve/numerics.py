"""Makes numbers portable and clients stay offline: the variables that must be set before torch is imported.

With them a golden that was made on one x86-64 machine is bit-equal on another. The controller sets them for the workers
that it starts; a worker that was started by hand sets them and starts itself anew (`missing`).
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HASH_SEED_VARIABLE = "PEFT_REGRESS_HASH_SEED"
"""Another hash seed than 0, for breaks that depend on the order of a set."""

_HWCAPS = "glibc.cpu.hwcaps"

_ARITHMETIC = {
    # Torch's own kernels exist for several instruction sets, which sum in different orders.
    "ATEN_CPU_CAPABILITY": "default",
    # MKL (matmul, LAPACK): one code path for all processors, Intel's or not.
    "MKL_CBWR": "COMPATIBLE",
    # oneDNN (convolutions, bfloat16 matmul) compiles kernels for the processor that it finds.
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    # The number of threads decides how sums are split.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    # cuBLAS repeats itself to the bit only with a fixed workspace; Torch's deterministic mode asks for it.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # float32 on a GPU is to be float32: convolutions use TF32 (ten bits) unless told otherwise.
    "NVIDIA_TF32_OVERRIDE": "0",
}

_ARITHMETIC_X86 = {
    # NumPy's OpenBLAS picks its kernels by processor; Nehalem is the oldest that all wheels have.
    "OPENBLAS_CORETYPE": "Nehalem",
}

# glibc's sin, cos, exp, log, pow, atan have variants with fused multiply-add that differ in the last bit (seen with
# 2.36). 2.33 and newer spell the features bare, older ones with `_Usable`; each ignores the other's spelling.
_HWCAPS_OFF = "-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable,-FMA4_Usable"

_OFFLINE = {
    # Hub clients: nothing may be fetched, a model that is not there must fail at once and not after retries.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "DIFFUSERS_OFFLINE": "1",
    # No telemetry: it waits for a network that may not be there.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    # Trainers switch on every experiment tracker that is installed.
    "WANDB_MODE": "offline",
    "WANDB_DISABLED": "true",
    "COMET_MODE": "disabled",
    "NEPTUNE_MODE": "offline",
    "CLEARML_OFFLINE_MODE": "1",
}

_BEHAVIOUR = {
    # The tokenizers' thread pool does not survive a fork (and warns about it).
    "TOKENIZERS_PARALLELISM": "false",
    # Progress bars are noise in a log, and their monitor is a thread, which a fork would lose.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    # Warnings are observed: what a user's own settings hide would look like an absent one.
    "TRANSFORMERS_VERBOSITY": "warning",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "",
    "DATASETS_VERBOSITY": "warning",
    # Transformers and Accelerate must not start TensorFlow or JAX where an environment happens to have them.
    "USE_TF": "0",
    "USE_FLAX": "0",
    # A library that draws must not look for a display.
    "MPLBACKEND": "Agg",
    # What is printed must be writable whatever the machine's locale is.
    # what a library prints before it takes the process down is what tells why; a buffer would go down with it
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}


def wanted(environ: Mapping[str, str], hash_seed: str | None = None) -> dict[str, str]:
    """The variables as they must be, given the environment that they are to be added to.

    Args:
        environ: looked at for PEFT_REGRESS_HASH_SEED, and for other tunables of glibc, which are kept.
        hash_seed: in place of what the environment says.
    """
    variables = {**_ARITHMETIC, **_OFFLINE, **_BEHAVIOUR}
    if platform.machine().lower() in ("x86_64", "amd64"):
        variables.update(_ARITHMETIC_X86)
        variables["GLIBC_TUNABLES"] = _tunables(environ.get("GLIBC_TUNABLES", ""))
    # The order of a set of strings follows the hash seed, and at least one known break follows that order.
    variables["PYTHONHASHSEED"] = hash_seed or environ.get(HASH_SEED_VARIABLE) or "0"
    return variables


def missing(environ: Mapping[str, str], hash_seed: str | None = None) -> dict[str, str]:
    """The variables that are absent or otherwise in this environment; empty where it is as it must be."""
    return {name: value for name, value in wanted(environ, hash_seed).items() if environ.get(name) != value}


def facts() -> dict[str, Any]:
    """What a golden's bits may hang on, of this process and machine: to be stored with what is observed."""
    return {
        "environ": {name: os.environ.get(name) for name in sorted(wanted(os.environ))},
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


def _tunables(present: str) -> str:
    others = [part for part in present.split(":") if part and not part.startswith(_HWCAPS)]
    return ":".join([*others, f"{_HWCAPS}={_HWCAPS_OFF}"])


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(names, "") or platform.processor()
    except OSError:
        return platform.processor()
