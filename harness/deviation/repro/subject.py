"""What the two scripts load: the scenario as each side's libraries need it said, and the inputs (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.observation import Array
from harness.deviation.repro.releases import Release

PEFT = "peft"
"""Where in a list of wrappers the adapter is put (see the worker's `wrappers`)."""


@dataclass(frozen=True)
class Side:
    """One of the two environments.

    Attributes:
        scenario: as resolved for its libraries (`matrix.resolve`).
        release: what its libraries want otherwise than others.
        when: which of the scenario's wrappings it has: `saved` or `loaded`.
    """

    scenario: Mapping[str, Any]
    release: Release
    when: str

    @property
    def base(self) -> Mapping[str, Any]:
        """The base, as resolved."""
        base: Mapping[str, Any] = self.scenario["base"]
        return base

    @property
    def adapter_name(self) -> str:
        """What the adapter is loaded as."""
        return str(self.scenario["adapter"]["name"])

    @property
    def quantize(self) -> Mapping[str, Any]:
        """How the base is quantised; empty where it is not."""
        return self.base.get("quantize") or {}

    def wrappers(self) -> tuple[list[str], list[str]]:
        """What stands between the base and the adapter, and what stands around the adapted model."""
        kinds = list((self.scenario.get("wrap") or {}).get(self.when, []))
        at = kinds.index(PEFT) if PEFT in kinds else len(kinds)
        return kinds[:at], kinds[at + 1 :]


@dataclass(frozen=True)
class Subject:
    """Both sides, and what they have in common.

    Attributes:
        inputs: as the golden has them.
        outputs: names of what is compared: fields of the model's result, or `output` for a model that returns a tensor.
        adapter_only: inputs that the adapter takes and the base alone does not.
        files: names of the fixture's files: `adapter/…`, `base/…`.
        facts: of the golden: `accounting`, …
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
        """The adapter's file of tensors."""
        names = [name for name in sorted(self.files) if name.startswith("adapter/adapter_model.")]
        return names[0] if names else "adapter/adapter_model.safetensors"

    @property
    def has_own_format(self) -> bool:
        """True for a base that its own `save_pretrained` wrote: there is a configuration beside the weights."""
        return "base/config.json" in self.files


def output_names(arrays: Mapping[str, Array]) -> tuple[str, ...]:
    """Which outputs a golden holds: the names of the arrays of `forward`, or of the base where there are none."""
    for probe in ("forward", "base"):
        start = f"{probe}/float32/"
        names = [name.removeprefix(start) for name in arrays if name.startswith(start)]
        found = [name for name in sorted(names) if name != "sketch" and not name.startswith("disabled.")]
        if found:
            return tuple(found)
    return ("output",)
