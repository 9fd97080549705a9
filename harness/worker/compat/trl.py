"""Branches on what a version of TRL has, and of Transformers' trainer below it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from typing import Any, Mapping, Sequence

from . import libraries

LENGTH = 32
"""Greatest length of a text in tokens; all of ours are shorter."""


def is_there() -> bool:
    """True if TRL is installed; it may still fail to import."""
    return "trl" in libraries.versions()


def preload() -> None:
    """Import TRL, if it is installed. If that fails, the cell that needs it reports the error."""
    if is_there():
        with contextlib.suppress(Exception):
            _ = importlib.import_module("trl").SFTTrainer
            importlib.import_module("datasets")


def trainer(
    torch: Any,
    model: Any,
    peft_config: Any,
    texts: Sequence[str],
    tokenizer: Any,
    settings: Mapping[str, Any],
    device: str = "cpu",
) -> Any:
    """An SFTTrainer of a model, which it may wrap; the texts are taken in order, in float32 unless `bf16` is set.

    Args:
        peft_config: None if the model is a PeftModel already.
        settings: arguments of `TrainingArguments` that every release knows.
    """
    library, datasets = importlib.import_module("trl"), importlib.import_module("datasets")
    plain = library.SFTTrainer
    known = inspect.signature(plain.__init__).parameters
    # a configuration of its own since 0.9; before, the trainer itself takes what is in it
    configuration = getattr(library, "SFTConfig", None)
    kind = configuration or importlib.import_module("transformers").TrainingArguments
    fields = inspect.signature(kind.__init__).parameters
    own: dict[str, Any] = {}
    direct: dict[str, Any] = {}
    for names, value in _ARGUMENTS:
        name = next((name for name in names if name in fields), None)
        if name is not None:
            own[name] = value
        elif name := next((name for name in names if name in known), None):
            direct[name] = value
    if device == "cpu":  # called `no_cuda` up to Transformers 4.33
        own["use_cpu" if "use_cpu" in fields else "no_cuda"] = True
    # called `tokenizer` up to 0.12
    direct["processing_class" if "processing_class" in known else "tokenizer"] = tokenizer
    return _in_order(torch, plain)(
        model=model,
        args=kind(**settings, **own),
        train_dataset=datasets.Dataset.from_dict({"text": list(texts)}),
        peft_config=peft_config,
        **direct,
    )


_ARGUMENTS: Sequence[tuple[Sequence[str], Any]] = (
    (("dataset_text_field",), "text"),  # an argument of the trainer up to 0.12
    (("max_length", "max_seq_length"), LENGTH),  # `max_seq_length` up to 0.15, of the trainer up to 0.12
    (("packing",), False),  # of the trainer up to 0.12
)
"""TRL's own arguments: their names over time → value; this release gets them where it has them."""


def _in_order(torch: Any, plain: Any) -> Any:
    """The trainer without shuffling, which draws from a generator that releases seed differently."""

    class InOrder(plain):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:  # takes the dataset since Transformers 4.52
            return torch.utils.data.SequentialSampler(self.train_dataset)

    InOrder.__name__ = plain.__name__
    return InOrder
