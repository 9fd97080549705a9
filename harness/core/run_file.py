"""Reads and writes `report.json`, the file of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from harness.core.errors import UsageError
from harness.core.files import write_atomically
from harness.core.model import Model
from harness.core.run import FORMAT, Run
from harness.core.text import encodable
from harness.worker.files import read_json

_ALWAYS_IN_RUN = ("format", "id", "created", "tool_version", "plan", "cells", "counts", "exit_code")
_ALWAYS_IN_CELL = ("device", "verdict", "expected", "probes", "findings", "duration_s")
"""Written even at their default value, so that a reader of the file need not know the defaults."""
_CHECK_AGAIN = ("a report.json that `check` wrote", "run the check again")


def portable(model: Model) -> Any:
    """A part of a run as strict JSON values."""
    format_ = {"format": model.format} if hasattr(model, "format") else {}
    return strict(model.model_dump(mode="json", exclude_defaults=True) | format_)


def dump(run: Run, path: Path) -> None:
    """Write `report.json` atomically."""
    write_atomically(path, content(run))


def content(run: Run) -> bytes:
    """The content of `report.json`: one cell per line."""
    fields = [f"{json.dumps(name)}: {_laid_out(value)}" for name, value in _dumped(run).items()]
    return ("{\n " + ",\n ".join(fields) + "\n}\n").encode()


def load(path: Path) -> Run:
    """Read a `report.json`, or the one in a run's folder.

    Raises:
        UsageError: the file cannot be read, or has a format that this version does not read.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        data = read_json(file, links=True)
    except FileNotFoundError:
        where = "a run's folder or its report.json"
        raise UsageError(f"no report at {file}", where, "list the runs with `ls reports/`") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}", *_CHECK_AGAIN) from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON that can be read: {error}", *_CHECK_AGAIN) from error
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != FORMAT:
        raise UsageError(
            f"{file}: report format {found!r}", f"format {FORMAT}", "use the version of peft-regress that wrote it"
        )
    try:
        return Run.model_validate(data)
    except pydantic.ValidationError as error:
        raise UsageError(f"{file}: {error}", *_CHECK_AGAIN) from error


def _dumped(run: Run) -> dict[str, Any]:
    found = run.model_dump(mode="json", exclude_defaults=True)
    data = {name: found.get(name, getattr(run, name)) for name in _ALWAYS_IN_RUN[:4]} | found
    data |= {name: getattr(run, name) for name in _ALWAYS_IN_RUN if name not in data}
    for cell, values in zip(run.cells, data["cells"], strict=True):
        values |= {name: getattr(cell, name) for name in _ALWAYS_IN_CELL if name not in values}
    return data


def strict(value: Any, shown: Callable[[str], str] = encodable) -> Any:
    """The value with infinities and NaN, which JSON does not have, as strings, and each text as `shown` gives it."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {strict(key, shown): strict(item, shown) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item, shown) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _laid_out(value: Any) -> str:
    """JSON with one line per item of a list, so that `grep` and `diff` show single cells."""
    if not isinstance(value, list) or not value:
        return _text(value)
    return "[\n  " + ",\n  ".join(map(_text, value)) + "\n ]"


def _text(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(strict(value), allow_nan=False)
    return json.dumps(strict(value), allow_nan=False) if "\\ud" in text else text  # rarely: an escaped surrogate
