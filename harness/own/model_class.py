"""Which class of Transformers an adapter's base is, and how many labels its head has (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.core.errors import UsageError
from harness.own.layers import Config, Shapes

_BY_TASK = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
"""The task in an adapter's configuration → the class that its user most likely loaded."""
_LIBRARY = "transformers."
_CLASS = re.compile(r"[A-Za-z_]\w*")
_HEADS = re.compile(r"(?:^|\.)(score|classifier|classification_head|logits_proj|head|fc)(\.|$)")
_LAST = re.compile(r"(?:^|\.)(score|classifier|dense|out_proj|head|fc|\d+)(?:\.modules_to_save(?:\.\w+)?)?\.weight$")
_LABELLED = ("ForSequenceClassification", "ForTokenClassification", "ForImageClassification")


def of(base: Config, adapter: Config, *, own_code: bool = False) -> str:
    """The class of the base: `LlamaForCausalLM`, or `AutoModelForCausalLM` where the configuration decides.

    Args:
        own_code: its classes are in files beside its configuration.

    Raises:
        UsageError: it is no class of Transformers.
    """
    if own_code:
        return _of_own_code(base, adapter)
    mapping = adapter.get("auto_mapping")
    if isinstance(mapping, Mapping):  # PEFT writes it if the adapter has no task
        name, library = str(mapping.get("base_model_class") or ""), str(mapping.get("parent_library") or "")
        if name and library and not library.startswith(_LIBRARY):
            raise UsageError(
                f"the base of the adapter is {library}.{name}, which is no model of Transformers",
                "a model of Transformers, built from its config.json",
                "describe it as a scenario with `base_file`: see CONTRIBUTING.md",
            )  # fmt: skip
        if _CLASS.fullmatch(name):
            return name
    own, task = _architecture(base), str(adapter.get("task_type") or "")
    if own.endswith("ForConditionalGeneration") and task in ("CAUSAL_LM", "SEQ_2_SEQ_LM", ""):
        return own  # a model of text and images is no AutoModelForCausalLM in most releases
    return _BY_TASK.get(task) or own or "AutoModel"


def _of_own_code(base: Config, adapter: Config) -> str:
    """The class that the adapter's task needs, else the first that the base has."""
    mapping = base.get("auto_map")
    known = [key for key in mapping if key.startswith("AutoModel")] if isinstance(mapping, Mapping) else []
    wanted = _BY_TASK.get(str(adapter.get("task_type") or ""), "")
    return wanted if wanted in known or not known else known[-1]


def _architecture(base: Config) -> str:
    names = base.get("architectures")
    name = names[0] if isinstance(names, list) and names else ""
    return name if isinstance(name, str) and _CLASS.fullmatch(name) else ""


def labels(model: str, shapes: Shapes) -> int | None:
    """The number of labels of the head that the adapter saved; None if it saved none, or the model has none."""
    if not model.endswith(_LABELLED):
        return None
    heads = [(key, shape) for key, shape in shapes.items() if _HEADS.search(key) and _LAST.search(key)]
    sizes = [shape[0] for key, shape in heads if len(shape) == 2 and "lora_" not in key]
    return min(sizes, default=None)


def with_labels(base: Config, count: int | None) -> dict[str, object]:
    """The configuration with a number of labels; their names would contradict it."""
    if count is None:
        return dict(base)
    return {key: value for key, value in base.items() if key not in ("id2label", "label2id")} | {"num_labels": count}
