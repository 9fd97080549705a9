"""The protocol between controller and worker: with `process.py` all that both import.

It holds the names of what is observed, the shapes of requests and replies, and the format numbers. Standard library
only, syntax of Python 3.8: every pinned environment runs it.

To add a name, write it here with its words, and write the function that does it in the worker:

    PROBES      observe/probes.py; observe/probes_declared.py where not every scenario has it; observe/further/ where
                no golden has it
    LOAD_PATHS  compat/load_paths.py
    WRAPPERS    model/wrappers.py
    STEPS       observe/steps.py

`tests/worker/test_shared.py` fails if one of the two is missing.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Literal, Mapping, NamedTuple, Optional, TypedDict

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
    "several": ProbeWords("", "using two adapters at once"),
    "together": ProbeWords("", "using two methods in one layer"),
    "dimensions": ProbeWords("", "feeding layers inputs of other dimensions"),
    "named": ProbeWords("", "loading under a name from its own keys"),
    "narrow": ProbeWords("", "using the adapter on a base in bfloat16"),
    "odd_files": ProbeWords("", "loading a damaged checkpoint"),
    "files": ProbeWords("", "saving in both formats"),
    "config": ProbeWords("", "making the config"),
}
"""Every probe, in the order in which the worker runs them."""

FURTHER = ("several", "together", "dimensions", "named", "narrow", "odd_files", "files", "config")
"""Probes of a replay that is asked for more (`further`). No golden has them: they are compared within the loader, and
between the two sides of a change."""


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

CONSUMER = "consumer"
"""The prefix of the arrays and the name of the facts that a consumer's cell has (`consume/cell.py`)."""

CELLS = ("observe", "consume")
"""The folders of the worker with a `cell.py`: PEFT's own reading of a fixture, and another library's."""

INPUTS = "inputs/"
"""The prefix of the arrays that are the model's inputs; a replay runs on the golden's own."""

LAYER_INPUTS = "layers/input/"
"""The prefix of the arrays that each adapter layer was fed in the golden run."""

TRAINER = "SFTTrainer"
"""The name to preload for cells that train with TRL."""

EXECUTED = "executed.json"
"""The file in a cell's folder that says which code of the libraries it executed."""

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

Outcome = Literal["done", "died", "timeout", "starved", "error"]
"""How a request ended. died: its process ended early. timeout: it had the machine for longer than its limit. starved:
the machine did not let it run, for lack of processors, disk or memory. error: the worker itself is at fault."""

PATIENCE = 10
"""A cell that has not ended after this many times its limit, by the clock, is stopped as `starved`."""


class Greeting(TypedDict):
    """The first request: import the libraries. Its reply carries `facts` of the process."""

    id: str
    kind: Literal["hello"]
    device: str
    preload: List[str]


class Hello(Greeting, total=False):
    """The first request, with what it may have besides."""

    executed: bool
    """Record what the imports execute, because cells will be asked for what they execute."""


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
    further: bool
    """`replay`: run the probes of `FURTHER` too."""
    executed: bool
    """`replay`: record which code of the libraries is executed (`EXECUTED`)."""
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
    """That a request is served now (`started`), or how it ended. What was observed is in the scratch folder."""

    id: Optional[str]
    """The request's; None for a line that is no request."""
    started: bool
    """True in the line that comes before the process of the request begins."""
    outcome: Outcome
    detail: str
    duration_s: float
    facts: Dict[str, Any]
    """Of `hello`: versions, platform, numerics, and the GPU if there is one."""
    signal: Optional[int]
    exit: Optional[int]
    max_rss_mb: Optional[float]


# --- Names in libraries -----------------------------------------------------------------------------------------------

FROM_FILE = "AutoConfig"
"""The class of a base's configuration whose entries are those of a model's own `config.json`, `model_type` too."""

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
