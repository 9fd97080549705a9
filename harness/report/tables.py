"""A run as a pandas data frame, and the frame as a file. pandas is an optional extra: `peft-regress[tables]`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import HarnessError, UsageError
from harness.core.files import must_take_files, write_atomically
from harness.core.run import Cell, EnvironmentReport, Run
from harness.core.text import encodable, field
from harness.core.versions import FIRST_PACKAGES

if TYPE_CHECKING:
    import pandas as pd

_PACKAGES = FIRST_PACKAGES[:6]
_TYPES = {
    "expected": "bool",
    "deviates": "bool",
    "worst_ratio": "float64",
    "adapter_delta": "float64",
    "base_delta": "float64",
    "duration_s": "float64",
    "compute_s": "float64",
    "severity": "int64",
    "tensors": "Int64",
    "arrived": "Int64",
    "lost": "Int64",
}
"""Types of the columns that are not text. A run without rows has them too: frames can be concatenated."""


def cells(run: Run) -> pd.DataFrame:
    """One row per cell. A missing figure is NaN, a missing text is an empty string.

    Raises:
        HarnessError: pandas is not installed.
    """
    known = {environment.name: environment for environment in run.environments}
    change = {comparison.cell: comparison.change for comparison in run.comparisons}
    rows = [_cell(run, cell, known) | {"change": change.get(cell.id, "")} for cell in run.cells]
    texts = (
        {name: encodable(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
    )
    frame = _pandas().DataFrame(list(texts), columns=list(_COLUMNS))
    typed: pd.DataFrame = frame.astype({name: _TYPES.get(name, "str") for name in _COLUMNS})
    return typed


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame atomically as `.csv` or `.parquet`.

    In CSV, untrusted text is escaped and cannot become a formula. Parquet stores it unchanged.

    Raises:
        UsageError: the file name has another suffix.
        HarnessError: the format is parquet and pyarrow is not installed.
    """
    writers: dict[str, Callable[[pd.DataFrame], bytes]] = {".csv": csv, ".parquet": parquet}
    if path.suffix not in writers:
        raise UsageError(
            f"no table format for {path.name!r}", "a name that ends in .csv or .parquet", "rename the file"
        )
    must_take_files(path.parent)
    write_atomically(path, writers[path.suffix](frame))


def csv(frame: pd.DataFrame) -> bytes:
    """The frame as CSV in UTF-8."""
    safe = frame.copy()
    for name in safe.columns:
        if not _pandas().api.types.is_numeric_dtype(safe[name]):
            safe[name] = [field(str(value)) for value in safe[name]]
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text.encode()


def parquet(frame: pd.DataFrame) -> bytes:
    """The frame as parquet."""
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False, engine="pyarrow")
    except ImportError as error:
        raise _missing("pyarrow", "parquet", ", or write .csv") from error
    return buffer.getvalue()


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise _missing("pandas", "tables") from error
    return pandas


def _missing(package: str, extra: str, otherwise: str = "") -> HarnessError:
    return HarnessError(
        f"{package} is not installed", f"{package}, an optional dependency",
        f"run `pip install 'peft-regress[{extra}]'`{otherwise}",
    )  # fmt: skip


_IDENTITY = ("id", "scenario", "family", "method", "creator", "loader", "device", "settings")
_SIDES = tuple(f"{side}_{name}" for side in ("creator", "loader") for name in ("python", *_PACKAGES))
_COLUMNS = (
    *("run", "created", *_IDENTITY, "verdict", "severity", "expected", "deviates", "change", "expectation", "reason"),
    *("worst_ratio", "adapter_delta", "base_delta", "first_difference", "error_stage", "error_type"),
    *("tensors", "arrived", "lost", "duration_s", "compute_s", *_SIDES, "fixture", "reproduce"),
)


def _cell(run: Run, cell: Cell, known: dict[str, EnvironmentReport]) -> dict[str, Any]:
    return {
        "run": run.id,
        "created": run.created,
        **{name: getattr(cell, name) for name in _IDENTITY},
        "verdict": str(cell.verdict),
        "severity": cell.verdict.severity,
        "expected": cell.expected,
        "deviates": cell.deviates,
        "expectation": cell.expectation,
        "reason": cell.reason,
        "worst_ratio": cell.worst_ratio,
        "adapter_delta": cell.adapter_delta,
        "base_delta": cell.base_delta,
        "first_difference": cell.first_difference,
        "error_stage": cell.error.stage if cell.error else "",
        "error_type": cell.error.type if cell.error else "",
        "tensors": cell.keys.total if cell.keys else None,
        "arrived": cell.keys.arrived if cell.keys else None,
        "lost": len(cell.keys.lost) if cell.keys else None,
        "duration_s": cell.duration_s,
        "compute_s": cell.compute_s,
        **_versions("creator", known.get(cell.creator)),
        **_versions("loader", known.get(cell.loader)),
        "fixture": cell.fixture,
        "reproduce": cell.reproduce,
    }


def _versions(side: str, environment: EnvironmentReport | None) -> dict[str, str]:
    versions = environment.versions if environment else {}
    python = environment.python if environment else ""
    return {f"{side}_python": python} | {f"{side}_{name}": versions.get(name, "") for name in _PACKAGES}
