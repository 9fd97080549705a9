"""What an adapter's files say without the libraries that wrote them: a user's folder, or the adapter of a fixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Adapter:
    """The facts of one saved adapter. Values of tensors are not among them.

    Attributes:
        config: `adapter_config.json`, whole.
        shapes: key → shape, of every tensor of the checkpoint.
        dtypes: key → Torch's name of the type (`float32`).
        files: names of all files in the folder.
        card: the model card (`README.md`); PEFT writes its own version into it. Empty if there is none.
        base: the base model's `config.json`; None if it is not known.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    card: str = ""
    base: Mapping[str, Any] | None = None

    @property
    def method(self) -> str:
        """PEFT's name of the method: `LORA`; empty if the config does not say it."""
        return str(self.config.get("peft_type") or "")
