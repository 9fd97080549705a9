"""An adapter made by TRL's SFTTrainer, and how the trainer prepares the model.

The trainer gets a base in the declared dtype, wrapped or with the adapter's configuration. Trainable parameters are
then filled as always, so that nothing depends on a random generator, and two steps run on fixed texts in a fixed order.
The structure is recorded after the trainer is constructed, after training, and after plain PEFT has read the
checkpoint.
"""

from __future__ import annotations

from typing import Any, Mapping

from ..compat import libraries, trl
from ..model import adapters, fill
from . import accounting, steps
from .capture import Skip
from .context import Context

STEPS = ("constructed", "trained", "reloaded")
TAKEN = 2
_BATCH, _WORDS = 2, 7
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_FOLDER = "sft"


class Training:
    """One run of the trainer on its own base.

    Attributes:
        model: the trainer's model.
        initial: trainable parameters before training, by canonical name.
        losses: of each step.
        constructed: the structure before training.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx, declared = ctx, ctx.scenario["sft"]
        trainer = _trainer(ctx, declared)
        self.model = trainer.model
        self.constructed = steps.of(self.model, ctx.adapter_name)
        adapters.fill_adapter(ctx.torch, self.model, ctx.scenario, ctx.adapter_name)
        self.initial = self.tensors()
        trainer.train()
        self.losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
        self.model.eval()

    def tensors(self) -> dict[str, Any]:
        """A copy of the adapter's trainable parameters, by canonical name."""
        named = adapters.trainable(self.model, self.ctx.adapter_name)
        return {name: p.detach().clone() for name, p in named if not libraries.is_of_base(name)}

    def unchanged(self) -> list[str]:
        """Trainable parameters that training did not change."""
        after = self.tensors()
        return sorted(
            name for name, value in self.initial.items() if self.ctx.torch.equal(value, after.get(name, value))
        )


def create(ctx: Context) -> tuple[Any, Any, list[str]]:
    """Train an adapter.

    Returns:
        the model that saves it; a plain PeftModel with the same values, whose outputs every loader must give; and the
        canonical names of the filled parameters.
    """
    training = Training(ctx)
    if unchanged := training.unchanged():
        raise RuntimeError(f"two steps of training left as they were: {', '.join(unchanged)}")
    twin, filled = adapters.create(ctx.torch, ctx.base("saved"), ctx.scenario)
    own = dict(adapters.trainable(twin, ctx.adapter_name))
    with ctx.torch.no_grad():
        for name, value in training.tensors().items():
            own[name].copy_(value)
    return training.model, twin, filled


def observe(ctx: Context) -> None:
    """Train, save, and read with plain PEFT; record the structure after each."""
    ctx.only_in_float32()
    if not trl.is_there():
        raise Skip("TRL is not installed here")
    training = Training(ctx)
    trained = steps.of(training.model, ctx.adapter_name)
    folder = ctx.folder("trained")
    adapters.save(training.model, folder, ctx.adapter_name)
    loaded = adapters.load(steps.base(ctx, ctx.scenario["sft"]["dtype"]), ctx.adapter_name, folder)
    structures = (training.constructed, trained, steps.of(loaded, ctx.adapter_name))
    ctx.fact("sft", "steps", {name: {"outcome": "ok", **found} for name, found in zip(STEPS, structures)})
    ctx.fact("sft", "unchanged", training.unchanged())
    ctx.fact("sft", "lost", _lost(ctx, training, loaded))
    ctx.fact("sft", "losses", training.losses)
    ctx.fact("sft", "apart", _apart(folder))
    ctx.record("sft", {"losses": ctx.torch.tensor(training.losses, dtype=ctx.torch.float64)})


def _lost(ctx: Context, training: Training, loaded: Any) -> list[str]:
    """Trained tensors whose values are not in the reloaded model."""
    found = accounting.account(ctx.torch, training.tensors(), loaded, ctx.adapter_name)
    return sorted(name for name, place in found.items() if place["found"] == "nowhere")


def _apart(folder: str) -> float:
    """The greatest difference from the stored checkpoint; infinite if a key or a shape differs."""
    stored, now = libraries.load_adapter_tensors(adapters.ADAPTER_FOLDER), libraries.load_adapter_tensors(folder)
    if {key: value.shape for key, value in stored.items()} != {key: value.shape for key, value in now.items()}:
        return float("inf")
    return max([0.0, *(float((stored[key].double() - now[key].double()).abs().max()) for key in stored)])


def _trainer(ctx: Context, declared: Mapping[str, Any]) -> Any:
    adapter = ctx.scenario["adapter"]
    model = steps.base(ctx, declared["dtype"])
    config = None if declared["wrapped"] else adapters.make_config(adapter)
    if declared["wrapped"]:
        model = adapters.wrap(model, adapter)
    size = int(libraries.base_of(model).config.vocab_size)
    settings = {
        "output_dir": ctx.folder(_FOLDER),
        "max_steps": TAKEN,
        "per_device_train_batch_size": _BATCH,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "bf16": declared["bf16"],
        "gradient_checkpointing": declared["gradient_checkpointing"],
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 0,
        "dataloader_pin_memory": False,
    }
    ctx.torch.manual_seed(0)
    return trl.trainer(ctx.torch, model, config, _texts(size), _tokenizer(size), settings, ctx.device)


def _texts(size: int) -> list[str]:
    """Enough texts for the steps, all with the same number of words."""
    first = len(_SPECIAL)
    numbers = fill.integers("sft", "texts", TAKEN * _BATCH * _WORDS, first, size)
    return [" ".join(f"w{n}" for n in row) for row in numbers.reshape(-1, _WORDS)]


def _tokenizer(size: int) -> Any:
    """One token per word; made here, since nothing is downloaded."""
    import tokenizers
    import transformers

    words = {word: place for place, word in enumerate(_SPECIAL)}
    words.update({f"w{n}": n for n in range(len(_SPECIAL), size)})
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token=_SPECIAL[3]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), _SPECIAL))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)
