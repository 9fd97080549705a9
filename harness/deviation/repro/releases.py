"""How scripts differ between releases of the libraries, with the release that made each difference necessary (pure).

The worker's own branches are in `harness/worker/compat/`. A script has no branches: it is written for one environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import Version

from harness.core.versions import version_of


@dataclass(frozen=True)
class Release:
    """The versions of one environment, and what they require in a script."""

    versions: Mapping[str, str]

    def at_least(self, package: str, version: str) -> bool:
        """True if the package is at least this new; a development version counts as the release that it leads to."""
        found = version_of(self.versions.get(package, "0"))
        return found is None or Version(found.base_version) >= Version(version)

    @property
    def loader_quantises(self) -> bool:
        """`BitsAndBytesConfig` works on the CPU: since Transformers 4.53."""
        return self.at_least("transformers", "4.53")

    @property
    def dtype_argument(self) -> str:
        """The argument of `from_pretrained` for the dtype: `dtype` since Transformers 4.56."""
        return "dtype" if self.at_least("transformers", "4.56") else "torch_dtype"

    @property
    def names_first_adapter(self) -> bool:
        """`get_peft_model` takes a name since PEFT 0.4."""
        return self.at_least("peft", "0.4")

    @property
    def asks_hub_on_saving(self) -> bool:
        """PEFT 0.8 looks for the base on the Hub when it saves, and raises without network."""
        return self.at_least("peft", "0.8") and not self.at_least("peft", "0.9")

    @property
    def value_head_module(self) -> str:
        """The module of TRL's model with a value head: moved in 1.0."""
        return "trl.experimental.ppo" if self.at_least("trl", "1.0") else "trl"

    @property
    def has_sft_config(self) -> bool:
        """TRL's trainer has its own configuration since 0.9."""
        return self.at_least("trl", "0.9")

    @property
    def length_argument(self) -> str:
        """TRL's argument for the maximum length: `max_length` since 0.16."""
        return "max_length" if self.at_least("trl", "0.16") else "max_seq_length"

    @property
    def tokenizer_argument(self) -> str:
        """TRL's argument for the tokenizer: `processing_class` since 0.12."""
        return "processing_class" if self.at_least("trl", "0.12") else "tokenizer"

    @property
    def combines_in_many_ways(self) -> bool:
        """`add_weighted_adapter` takes a `combination_type` since PEFT 0.5."""
        return self.at_least("peft", "0.5")

    @property
    def owns_weights(self) -> bool:
        """bitsandbytes' 4-bit weights refer to their layer since 0.43."""
        return self.at_least("bitsandbytes", "0.43")
