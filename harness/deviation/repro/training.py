"""An adapter that TRL's SFTTrainer trains for two steps, as Python (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.deviation.repro.loading import Loading
from harness.deviation.repro.python_text import Part, joined, part

STEPS = ("constructed", "trained", "reloaded")
"""The steps after which the model is compared."""

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def trained(loading: Loading, base: Part, step: str) -> Part:
    """Lines that assign `model` after a step.

    Args:
        base: lines that load the base into `base`, in the dtype for training.
    """
    declared: Mapping[str, Any] = loading.side.scenario["sft"]
    parts = [base, loading.config(loading.side.scenario["adapter"]), _tokenizer(loading)]
    if declared["wrapped"]:
        wrap = f"base = get_peft_model(base, config{loading.side.named})"
        parts.append(part(wrap, imports=["from peft import get_peft_model"]))
    parts.append(_trainer(loading, declared))
    if step != "constructed":
        parts.append(part("torch.set_grad_enabled(True)", "trainer.train()"))
    if step == "reloaded":
        parts += [loading.save("again"), base]
        parts.append(loading.load(folder=loading.saved_in("again"), base="base"))
    return joined(parts)


def _tokenizer(loading: Loading) -> Part:
    """A tokenizer with one token for each word."""
    size = int(loading.side.base.get("args", {}).get("vocab_size", 48))
    first = len(_SPECIAL)
    names = ("pad_token", "bos_token", "eos_token", "unk_token")
    given = ", ".join(f'{name}="{word}"' for name, word in zip(names, _SPECIAL, strict=True))
    return part(
        f"words = {list(_SPECIAL)!r} + [f\"w{{n}}\" for n in range({first}, {size})]",
        'made = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))',
        "made.pre_tokenizer = WhitespaceSplit()",
        f"tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, {given})",
        f'texts = [" ".join(f"w{{{first} + (7 * row + n) % {size - first}}}" for n in range(7)) for row in range(4)]',
        imports=["from tokenizers import Tokenizer", "from tokenizers.models import WordLevel",
                 "from tokenizers.pre_tokenizers import WhitespaceSplit",
                 "from transformers import PreTrainedTokenizerFast"],
    )  # fmt: skip


def _trainer(loading: Loading, declared: Mapping[str, Any]) -> Part:
    release = loading.side.release
    kind = "SFTConfig" if release.has_sft_config else "TrainingArguments"
    own = f'dataset_text_field="text", {release.length_argument}=32, packing=False'
    cpu = ", use_cpu=True" if release.at_least("transformers", "4.34") else ", no_cuda=True"
    lines = [
        f"arguments = {kind}(",
        '    output_dir="trained", max_steps=2, per_device_train_batch_size=2, learning_rate=0.01, report_to="none",',
        f"    bf16={declared['bf16']}, gradient_checkpointing={declared['gradient_checkpointing']},"
        f' save_strategy="no"{cpu},',
        *([f"    {own},"] if release.has_sft_config else []),
        ")",
        "trainer = SFTTrainer(",
        '    model=base, args=arguments, train_dataset=Dataset.from_dict({"text": texts}),',
        f"    peft_config={'None' if declared['wrapped'] else 'config'}, {release.tokenizer_argument}=tokenizer,",
        *([] if release.has_sft_config else [f"    {own},"]),
        ")",
        "model = trainer.model",
    ]
    library = "trl" if release.has_sft_config else "transformers"
    return part(
        *lines, imports=["from datasets import Dataset", "from trl import SFTTrainer", f"from {library} import {kind}"]
    )
