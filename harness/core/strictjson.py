"""Values as strict JSON, for files that others read and that people look into (pure)."""

from __future__ import annotations

import json
import math
from typing import Any


def portable(value: Any) -> Any:
    """JSON has no word for infinity (they become `"Infinity"`, `"-Infinity"`, `"NaN"`), UTF-8 none for surrogates."""
    if isinstance(value, dict):
        return {portable(key): portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def laid_out(value: Any) -> str:
    """JSON with a line for each item of a list, so that a cell can be found with `grep` and read in a difference."""
    if not isinstance(value, list) or not value:
        return _text(value)
    return "[\n  " + ",\n  ".join(map(_text, value)) + "\n ]"


def _text(value: Any) -> str:
    """Strict JSON. Hardly a value needs to be made portable, and to look for those that do is the encoder's work."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(portable(value), allow_nan=False)
    return json.dumps(portable(value), allow_nan=False) if "\\ud" in text else text
