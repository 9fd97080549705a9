"""The process of a worker: the environment variables that it needs, the GPUs that it may use, and how it ended.

Controller and worker both import it. Standard library only, syntax of Python 3.8: every pinned environment runs it.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from typing import Any, Callable, Dict, Mapping

HASH_SEED_VARIABLE = "PEFT_REGRESS_HASH_SEED"
"""Another hash seed than 0, for breaks that depend on the order of a set."""

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"

_LIST_LIMIT_S = 20.0
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
    # float32 on a GPU must be float32: by default convolutions use TF32 (ten bits).
    "NVIDIA_TF32_OVERRIDE": "0",
}

_ARITHMETIC_X86 = {
    # NumPy's OpenBLAS picks its kernels by processor; Nehalem is the oldest that all wheels have.
    "OPENBLAS_CORETYPE": "Nehalem",
}

# glibc's sin, cos, exp, log, pow and atan have variants with fused multiply-add that differ in the last bit (seen with
# 2.36). glibc 2.33 and later name the features bare, older ones with `_Usable`; each ignores the other's names.
_HWCAPS_OFF = "-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable,-FMA4_Usable"

_OFFLINE = {
    # Hub clients: nothing is fetched; a missing model fails at once, without retries.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "DIFFUSERS_OFFLINE": "1",
    # No telemetry: it waits for a network that may be absent.
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
    # Progress bars are noise in a log; their monitor is a thread, which does not survive a fork.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    # Warnings are observed: one that a user's own settings hide would look absent.
    "TRANSFORMERS_VERBOSITY": "warning",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "",
    "DATASETS_VERBOSITY": "warning",
    # Transformers and Accelerate must not start TensorFlow or JAX where an environment happens to have them.
    "USE_TF": "0",
    "USE_FLAX": "0",
    # A library that plots must not look for a display.
    "MPLBACKEND": "Agg",
    # What a library prints before the process dies shows why it died; a buffer would be lost with the process.
    "PYTHONUNBUFFERED": "1",
    # Every text can be printed, whatever the machine's locale is.
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}


def process_variables(environ: Mapping[str, str], hash_seed: str | None = None) -> dict[str, str]:
    """The variables that a worker process needs, so that numbers are portable and clients stay offline.

    Args:
        environ: the environment to add them to; its PEFT_REGRESS_HASH_SEED and glibc's other tunables are kept.
        hash_seed: overrides the environment's.
    """
    variables = {**_ARITHMETIC, **_OFFLINE, **_BEHAVIOUR}
    if platform.machine().lower() in ("x86_64", "amd64"):
        variables.update(_ARITHMETIC_X86)
        variables["GLIBC_TUNABLES"] = _tunables(environ.get("GLIBC_TUNABLES", ""))
    # The order of a set of strings follows the hash seed, and at least one known break depends on that order.
    variables["PYTHONHASHSEED"] = hash_seed or environ.get(HASH_SEED_VARIABLE) or "0"
    return variables


def _tunables(present: str) -> str:
    others = [part for part in present.split(":") if part and not part.startswith(_HWCAPS)]
    return ":".join([*others, f"{_HWCAPS}={_HWCAPS_OFF}"])


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; `signal N` if it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _list_gpus() -> str:
    options: Dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": _LIST_LIMIT_S}
    try:
        done = subprocess.run(["nvidia-smi", "-L"], check=False, **options)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def visible_gpus(environ: Mapping[str, str], list_gpus: Callable[[], str] = _list_gpus) -> list[str]:
    """The value of CUDA_VISIBLE_DEVICES for each process, one GPU of the caller's each.

    Empty if the number of GPUs is unknown or the caller shows none: then one process takes what it finds.
    """
    named = environ.get(VISIBLE_GPUS)
    if named is not None:
        found: list[str] = []
        for name in named.split(","):
            if name.strip() in ("", "-1") or name.strip() in found:
                break  # CUDA also stops at the first name that is empty or invalid
            found.append(name.strip())
        return found
    gpus: list[list[str]] = []
    for line in list_gpus().splitlines():
        mark = line.rpartition("UUID: ")[2].rstrip(")").strip()
        if line.startswith("GPU "):
            gpus.append([mark])
        elif "MIG" in line and gpus:
            gpus[-1].append(mark)  # a GPU that is divided into slices is used by its slices alone
    return [name for gpu in gpus for name in (gpu[1:] or gpu)]


def busy() -> float:
    """Processes that want to run, for each core, over the last minute; 0 where the system does not say."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return 0.0
