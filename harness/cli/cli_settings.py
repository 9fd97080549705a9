"""The options that say what a loader computes with: of `check`, `pair` and `matrix`, and of the pytest plugin."""

from __future__ import annotations

import argparse
from typing import Any

from harness.core.cell_settings import ATTENTIONS, DTYPES, Settings

_DTYPE = (
    "load the base in this precision too, put the adapter on it as people do, and hold what it computes against the "
    "same model in float64; how far it may be away is measured, operator by operator (docs/settings.md)"
)
_ATTENTION = (
    "have Transformers' models compute with this attention (attn_implementation); a release or model that declares "
    "that it has none is unsupported, flash attention without GPU or package is no-device"
)


def add_to(one: argparse.ArgumentParser) -> None:
    """Declare them for a command."""
    group = one.add_argument_group("what loaders compute with", "written behind the device: [cpu+bfloat16+sdpa]")
    group.add_argument("--dtype", default="", choices=DTYPES, help=_DTYPE)
    group.add_argument("--attention", default="", choices=ATTENTIONS, help=_ATTENTION)


def add_options(group: Any) -> None:
    """Declare them for pytest."""
    group.addoption("--dtype", default="", choices=DTYPES, help=_DTYPE)
    group.addoption("--attention", default="", choices=ATTENTIONS, help=_ATTENTION)


def of(config: Any) -> Settings:
    """What pytest was told."""
    return Settings(config.getoption("--dtype"), config.getoption("--attention"))
