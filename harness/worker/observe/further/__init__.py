"""Probes of a replay that is asked for more (`further`): uses of an adapter that no golden has a record of.

Each consists of steps. A step that raises ends alone: its outcome is a fact, so that two releases can be compared.
"""

from __future__ import annotations

from typing import Mapping

from ..probes import Probe
from . import configs, dimensions, files, names, narrow, several, together

PROBES: Mapping[str, Probe] = {
    "several": several.observe,
    "together": together.observe,
    "dimensions": dimensions.observe,
    "named": names.observe,
    "narrow": narrow.observe,
    "odd_files": files.odd,
    "files": files.written,
    "config": configs.observe,
}
"""In the order in which they run."""
