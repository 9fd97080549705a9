"""The protocol between controller and worker: the one module that both import.

It holds the names of what is observed, the shapes of requests and replies, the format numbers, and the environment
variables of a worker process. Standard library only, syntax of Python 3.8: every pinned environment runs it.

To add a name, write it here with its words, and write the function that does it in the worker:

    PROBES      observe/probes.py; observe/probes_declared.py where not every scenario has it
    LOAD_PATHS  compat/load_paths.py
    WRAPPERS    model/wrappers.py
    STEPS       observe/steps.py

`tests/worker/test_shared.py` fails if one of the two is missing.
"""

from __future__ import annotations

import platform
import signal
import subprocess
from typing import Any, Callable, Dict, Iterable, List, Literal, Mapping, NamedTuple, Optional, TypedDict

# --- What is observed -------------------------------------------------------------------------------------------------


class ProbeWords(NamedTuple):
    """How a report speaks of a probe.

    Attributes:
        state: the state of the model that is looked at, as in "the outputs STATE"; empty if `repro` cannot show it.
        action: what the worker does, as in "ACTION raised ValueError"; empty where the probe's name reads well there.
            Manifests quote it in standing defects, so it cannot change without replacing fixtures.
    """

    state: str
    action: str = ""


PROBES: Mapping[str, ProbeWords] = {
    "forward": ProbeWords("the loaded adapter"),
    "layers": ProbeWords("the loaded adapter"),
    "base": ProbeWords("the base", "running the base and the model with its adapter disabled"),
    "accounting": ProbeWords("as loaded", "looking for the checkpoint's tensors"),
    "structure": ProbeWords("as loaded", "reading the model's structure"),
    "train": ProbeWords("in train mode"),
    "gradients": ProbeWords("gradients"),
    "merged": ProbeWords("after `merge_adapter()`"),
    "unmerged": ProbeWords("after `merge_adapter()` and `unmerge_adapter()`"),
    "safe_merged": ProbeWords("after `merge_and_unload(safe_merge=True)`"),
    "unloaded": ProbeWords("after `unload()`"),
    "merge_and_unload": ProbeWords("after `merge_and_unload()`"),
    "merged_saved": ProbeWords("merged, saved and read again"),
    "roundtrip": ProbeWords("saved again and loaded from there"),
    "renamed": ProbeWords("loaded under another adapter name", "loading under another adapter name"),
    "second": ProbeWords("after switching to another adapter and back", "adding a second adapter and switching"),
    "generate": ProbeWords("generated tokens"),
    "fresh": ProbeWords("a new adapter of the same configuration and fixed values", "creating the scenario anew"),
    "merged_after_run": ProbeWords("merged after it was run"),
    "steps": ProbeWords(""),
    "sft": ProbeWords(""),
}
"""Every probe, in the order in which the worker runs them."""


class Equal(NamedTuple):
    """What a probe's outputs must be equal to.

    Attributes:
        probe: the other probe.
        broken: the meaning if they are not. Manifests quote it in standing defects.
    """

    probe: str
    broken: str


EQUALS: Mapping[str, Equal] = {
    "merged": Equal("forward", "merging in place changes the output"),
    "merged_after_run": Equal("merged", "merged after it was run, it computes something else than merged before"),
    "unmerged": Equal("forward", "merging and unmerging does not bring the output back"),
    "safe_merged": Equal("forward", "the safe merge changes the output"),
    "merge_and_unload": Equal("forward", "merge_and_unload changes the output"),
    "merged_saved": Equal("merge_and_unload", "the merged model, saved and read again, computes something else"),
    "roundtrip": Equal("forward", "saved again and reloaded, the adapter computes something else"),
    "renamed": Equal("forward", "loaded under another adapter name, it computes something else"),
    "second": Equal("forward", "after switching to another adapter and back, it computes something else"),
    "unloaded": Equal("base", "unloading does not give the base back"),
}
"""Probe → what its outputs must be equal to within one library, in the order of the checks."""

LOAD_PATHS: Mapping[str, str] = {
    "auto": "AutoPeftModel….from_pretrained",
    "transformers": "Transformers' model.load_adapter",
    "transformers-auto": "Transformers' AutoModel….from_pretrained",
    "inject": "inject_adapter_in_model and set_peft_model_state_dict",
    "low-cpu-mem": "PeftModel.from_pretrained with low_cpu_mem_usage",
    "load-adapter": "PeftModel.load_adapter beside another adapter",
    "weighted-linear": "add_weighted_adapter (linear)",
    "weighted-svd": "add_weighted_adapter (svd)",
    "weighted-cat": "add_weighted_adapter (cat)",
    "hotswap": "hotswap_adapter",
    "hotswap-prepared": "hotswap_adapter in a model prepared to be compiled",
    "mixed": "PeftMixedModel.from_pretrained",
}
"""Every way to load an adapter besides `PeftModel.from_pretrained`, with the calls that it makes; in order."""

WITHOUT_AUTOCAST = ("transformers", "transformers-auto", "inject", "weighted-linear", "weighted-svd", "weighted-cat")
"""Load paths whose functions do not promise `autocast_adapter_dtype`: there an adapter may take the base's type."""

NOT_LOADED = "not loaded"
"""Where a tensor is that the creator's own library refused to load (`found` in the probe `accounting`)."""

LOAD_PATH = "door."
"""The prefix of a load path's probe: `door.auto`. The word is the one that stored observations have."""

RELOADED = "reloaded."
"""The prefix of the probe `fresh`'s outputs after the new adapter was saved and read again; in replays only."""

WRAPPERS: Mapping[str, bool] = {
    **dict.fromkeys(("attribute", "delegating"), True),
    **dict.fromkeys(("compile", "data-parallel", "accelerate", "value-head"), False),
    **dict.fromkeys(("adapter",), True),
    **dict.fromkeys(("peft",), False),
}
"""What can be put around a model → whether it takes a name, as in `attribute:model`."""

ADAPTER_PLACE = "peft"
"""The wrapper that is none: it marks where in the list the adapter is put."""

STEPS: Mapping[str, str] = {
    "base": "the base as loaded",
    "prepared": "prepare_model_for_kbit_training",
    "wrapped": "prepared, then get_peft_model",
    "wrapped-as-is": "prepared, then get_peft_model with autocast_adapter_dtype=False",
    "loaded": "PeftModel.from_pretrained",
    "loaded-as-is": "PeftModel.from_pretrained with autocast_adapter_dtype=False",
    "loaded-for-training": "prepared, then PeftModel.from_pretrained with is_trainable=True",
}
"""Steps of preparing a model after which a scenario can have its structure recorded."""

TYPES, AUTOCASTS = "types", "autocasts"
"""Facts of a replay. Precision → load path → canonical name → type of the adapter's parameters; and whether
`from_pretrained` promises `autocast_adapter_dtype`."""
AS_SAVED = "as_saved"
"""The fact with the types of a base that is saved in a narrow type and loaded without one, and of the adapter on it."""
FROM_PRETRAINED, FOR_TRAINING, NEW = "", "is_trainable", "get_peft_model"
"""What the types have besides load paths: the reference, the same for training, and a new adapter."""

PRECISIONS = ("float32", "float64")
"""What every golden is observed in."""

NARROW = ("bfloat16", "float16")
"""What a replay can be asked to compute in besides; no golden is in these."""

INPUTS = "inputs/"
"""The prefix of the arrays that are the model's inputs; a replay runs on the golden's own."""

LAYER_INPUTS = "layers/input/"
"""The prefix of the arrays that each adapter layer was fed in the golden run."""

TRAINER = "SFTTrainer"
"""The name to preload for cells that train with TRL."""

# --- Requests and replies, one JSON object a line ---------------------------------------------------------------------

OBSERVATION_FORMAT = 1
"""Format of `observation.json`. Raise it when a reader of the old format would misread a new file."""

PLAN_FORMAT = 1
"""Format of the plan that a worker without a controller works through."""

Kind = Literal["create", "replay", "trace", "identify"]
"""What a request can ask for, besides `hello` and `stop`.

create: make `base/` and `adapter/`, observe them, write `golden/`. replay: load `base/` and `adapter/`, observe them on
the inputs of `golden/`, write `now/`. trace: like replay, with each layer's input and parameters. identify: write
`identities.json`, in which configurations that this environment reads alike have equal values.
"""

KINDS = ("create", "replay", "trace", "identify")

Outcome = Literal["done", "died", "timeout", "error"]
"""How a request ended. died: its process ended early. error: the worker itself is at fault."""


class Hello(TypedDict):
    """The first request: import the libraries. Its reply carries `facts` of the process."""

    id: str
    kind: Literal["hello"]
    device: str
    preload: List[str]


class Task(TypedDict, total=False):
    """What the worker does for one cell."""

    kind: Kind
    device: str
    scenario: Dict[str, Any]
    """The resolved scenario, for `create`, `replay` and `trace`."""
    stored: bool
    """`create`: `base/` and `adapter/` are there already; observe them on this device."""
    settings: Dict[str, str]
    """`replay`: `dtype` and `attention` to compute with besides."""
    adapters: List[str]
    """`identify`: folders of adapters, below `adapters/`."""
    bases: Dict[str, str]
    """`identify`: folder of a base, below `bases/` → class of its configuration, empty if it is not Transformers'."""
    time_limit_s: float


class Request(Task):
    """A task with its place."""

    id: str
    scratch: str
    """The folder to work in, with an absolute path."""


class Reply(TypedDict, total=False):
    """How a request ended. What was observed is in the scratch folder."""

    id: Optional[str]
    """The request's; None for a line that is no request."""
    outcome: Outcome
    detail: str
    duration_s: float
    facts: Dict[str, Any]
    """Of `hello`: versions, platform, numerics, and the GPU if there is one."""
    signal: Optional[int]
    exit: Optional[int]
    max_rss_mb: Optional[float]


# --- Names in libraries -----------------------------------------------------------------------------------------------

AUTO_BY_TASK: Mapping[str, str] = {
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction",
}
"""The task in an adapter's configuration → PEFT's class that loads base and adapter; `AutoPeftModel` without a task."""

_DROP = frozenset({"base_layer"})
_PREFIXES = ("base_model.model.", "base_model.")


def canonical(name: str, adapter_names: Iterable[str] = ("default",)) -> str:
    """The name of a parameter or layer without what differs between releases.

    0.6.1 calls the query's weight `base_model.model.….q_proj.weight`, 0.7 and later `….q_proj.base_layer.weight`. The
    adapter's name is in the middle of its parameters' names. DoRA's magnitude is a parameter up to 0.11, and a module's
    `weight` since.
    """
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            name = name[len(prefix) :]
            break
    adapters = frozenset(adapter_names)
    parts = [part for part in name.split(".") if part not in _DROP and part not in adapters]
    if parts[-2:] == ["lora_magnitude_vector", "weight"]:
        parts.pop()
    return ".".join(parts)


# --- The environment of a worker process ------------------------------------------------------------------------------

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
