"""What the two scripts load: the scenario, resolved for each side's libraries, and the inputs (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.observation import Array
from harness.deviation.repro.releases import Release

PEFT = "peft"
"""The entry in a list of wrappers that stands for the adapter."""


@dataclass(frozen=True)
class Side:
    """One of the two environments.

    Attributes:
        scenario: resolved for its libraries (`matrix.resolve`).
        release: what its libraries need differently from others.
        when: which of the scenario's wrappings it uses: `saved` or `loaded`.
    """

    scenario: Mapping[str, Any]
    release: Release
    when: str

    @property
    def base(self) -> Mapping[str, Any]:
        """The resolved base."""
        base: Mapping[str, Any] = self.scenario["base"]
        return base

    @property
    def adapter_name(self) -> str:
        """The name of the adapter."""
        return str(self.scenario["adapter"]["name"])

    @property
    def named(self) -> str:
        """The argument with the adapter's name, after others; empty for PEFT's default."""
        return f', adapter_name="{self.adapter_name}"' if self.adapter_name != "default" else ""

    @property
    def quantize(self) -> Mapping[str, Any]:
        """How the base is quantised; empty if it is not."""
        return self.base.get("quantize") or {}

    def wrappers(self) -> tuple[list[str], list[str]]:
        """The wrappers between base and adapter, and those around the adapted model."""
        kinds = list((self.scenario.get("wrap") or {}).get(self.when, []))
        at = kinds.index(PEFT) if PEFT in kinds else len(kinds)
        return kinds[:at], kinds[at + 1 :]


@dataclass(frozen=True)
class Subject:
    """Both sides, and what they have in common.

    Attributes:
        inputs: the golden's inputs.
        outputs: fields of the model's result that are compared; `output` if the model returns a tensor.
        adapter_only: inputs that the base without an adapter does not accept.
        files: names of the fixture's files: `adapter/…`, `base/…`.
        facts: the golden's facts by probe.
    """

    before: Side
    after: Side
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    adapter_only: frozenset[str]
    files: frozenset[str]
    facts: Mapping[str, Any]
    device: str = "cpu"

    @property
    def weights(self) -> str:
        """The adapter's file of weights."""
        names = [name for name in sorted(self.files) if name.startswith("adapter/adapter_model.")]
        return names[0] if names else "adapter/adapter_model.safetensors"

    @property
    def has_own_format(self) -> bool:
        """True if the base was saved by its own `save_pretrained`, so that a configuration is beside the weights."""
        return "base/config.json" in self.files


def output_names(arrays: Mapping[str, Array]) -> tuple[str, ...]:
    """The names of a golden's outputs: those of `forward`, or of the base if `forward` has none."""
    for probe in ("forward", "base"):
        start = f"{probe}/float32/"
        names = [name.removeprefix(start) for name in arrays if name.startswith(start)]
        found = [name for name in sorted(names) if name != "sketch" and not name.startswith("disabled.")]
        if found:
            return tuple(found)
    return ("output",)
