"""What a replay is computed with besides its device: a precision and an attention that people use (pure).

They are written behind the device, in a cell's id too: `[cpu+bfloat16+sdpa]`. What is not given is not written, so a
cell without settings is called as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.core.errors import UsageError

DTYPES = ("float16", "bfloat16")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
SEPARATOR = "+"


@dataclass(frozen=True)
class Settings:
    """A precision and an attention; empty where a replay has its own: float32 and float64, the release's default."""

    dtype: str = ""
    attention: str = ""

    def __str__(self) -> str:
        return SEPARATOR.join(word for word in (self.dtype, self.attention) if word)

    @property
    def request(self) -> Mapping[str, str]:
        """What the worker's request contains; empty if there are no settings."""
        return {name: value for name, value in (("dtype", self.dtype), ("attention", self.attention)) if value}

    @property
    def options(self) -> list[str]:
        """The command line's words for it."""
        return [word for name, value in self.request.items() for word in (f"--{name}", value)]


OWN = Settings()
"""Nothing asked for: the loader's own."""


def parse(text: str) -> Settings:
    """Settings from what stands behind a device.

    Raises:
        UsageError: a word is no setting, or there are two of a kind.
    """
    words = [word for word in text.split(SEPARATOR) if word]
    dtypes, attentions = ([w for w in words if w in known] for known in (DTYPES, ATTENTIONS))
    if len(dtypes) > 1 or len(attentions) > 1 or len(dtypes) + len(attentions) < len(words):
        raise UsageError(
            f"{text!r} are no settings of a cell",
            f"one of {', '.join(DTYPES)}, one of {', '.join(ATTENTIONS)}, or both: bfloat16+sdpa",
            "see docs/settings.md",
        )
    return Settings("".join(dtypes), "".join(attentions))


def place(device: str, settings: str) -> str:
    """A device with its settings, as a report and an id show it."""
    return SEPARATOR.join(word for word in (device, settings) if word)


def placed(text: str) -> tuple[str, Settings]:
    """The device and the settings of such a place."""
    device, _, rest = text.partition(SEPARATOR)
    return device, parse(rest)
