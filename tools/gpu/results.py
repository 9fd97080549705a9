"""The results of a session: the figures for its log, and at most eight files to carry home."""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.gpu.steps import STEPS, Step

LOG = "1-session.log"
LARGEST = 16 * 2**20
"""Bytes of one file."""
_SMALL = frozenset({"report.json", "output.txt"})
_WHOLE = _SMALL | {"report.html", "report.md", "cells.jsonl"}


class TooFull(Exception):
    """An archive could not be written: the disk of the results is full or read-only."""


@dataclass(frozen=True)
class Archives:
    """The archives of a session, one for each `Step.file`, the most valuable first.

    Attributes:
        work: holds a folder for each step.
        fixtures: adapters and goldens that the session created.
        out: gets the archives.
    """

    work: Path
    fixtures: Path
    out: Path

    def pack(self, name: str) -> str:
        """Write one archive with the results of all its steps so far: whole, or not at all.

        Returns:
            what was left out, for the log; empty if nothing was.

        Raises:
            TooFull: it cannot be written; an earlier version of it is kept.
        """
        target = self.out / f"{2 + _FILES.index(name)}-{name}.tar.gz"
        partial, hidden = self.work / f"{target.name}.partial", self.out / f".{target.name}"
        try:
            left_out = self._written(name, partial)
            shutil.copyfile(partial, hidden)
            hidden.replace(target)
        except OSError as error:
            raise TooFull(f"{target.name} cannot be written: {error.strerror}") from error
        finally:
            for each in (partial, hidden):
                with contextlib.suppress(OSError):
                    each.unlink(missing_ok=True)
        return left_out

    def _written(self, name: str, partial: Path) -> str:
        self._write(name, partial, _WHOLE)
        size = partial.stat().st_size
        if size <= LARGEST:
            return ""
        self._write(name, partial, _SMALL)
        return f"{name} would have {size / 2**20:.1f} MiB, so it has the reports only"

    def _write(self, name: str, partial: Path, kept: frozenset[str]) -> None:
        with tarfile.open(partial, "w:gz") as archive:
            for step in STEPS:
                for path, inside in self._files(step, kept) if step.file == name else ():
                    archive.add(path, inside)
            if name == "goldens" and kept is _WHOLE and self.fixtures.is_dir():
                archive.add(self.fixtures, "fixtures")

    def _files(self, step: Step, kept: frozenset[str]) -> Iterator[tuple[Path, str]]:
        folder = self.work / step.name
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and path.name in kept:
                yield path, f"{step.name}/{path.relative_to(folder)}"


_FILES = list(dict.fromkeys(step.file for step in STEPS))


def figures(folder: Path, before: Mapping[str, Any] | None = None) -> str:
    """The figures of a step's report, each with what it is of.

    Args:
        folder: the results of the step.
        before: the report of an equal step, to compare figures with.
    """
    run = report(folder)
    if run is None:
        lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"Its last line: {lines[-1]}" if len(lines) > 1 else "No output."
    text = [str(run.get("sentence") or f"{len(run['cells'])} adapters")]
    sizes = [(cell["worst_ratio"], cell["scenario"]) for cell in run["cells"]
             if cell["verdict"] == "close" and cell.get("worst_ratio") is not None]  # fmt: skip
    if sizes:
        text.append(f"Greatest error ÷ allowance of a close adapter: {max(sizes)[0]:.2f} ({max(sizes)[1]}).")
    memory = [(cell["gpu_peak_mb"], cell["scenario"]) for cell in run["cells"] if cell.get("gpu_peak_mb")]
    if memory:
        text.append(f"Peak GPU memory of one adapter's tensors: {max(memory)[0]:,.1f} MB ({max(memory)[1]}).")
    seconds = [cell["compute_s"] for cell in run["cells"] if cell.get("compute_s")]
    if seconds:
        text.append(f"Seconds per adapter in the worker: median {sorted(seconds)[len(seconds) // 2]:.2f}, "
                    f"greatest {max(seconds):.2f}.")  # fmt: skip
    if before is not None:
        text.append(repeated(before, run))
    return " ".join(text)


def report(folder: Path) -> dict[str, Any] | None:
    """The report of a step; None where there is none."""
    for path in sorted(folder.rglob("report.json")):
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
    return None


def repeated(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """How many adapters have equal verdicts and figures in two runs."""
    sides = [{cell["id"]: (cell["verdict"], _sizes(cell)) for cell in run["cells"]} for run in (first, second)]
    both = sorted(sides[0].keys() & sides[1].keys())
    verdicts = [name for name in both if sides[0][name][0] != sides[1][name][0]]
    figures = [name for name in both if sides[0][name] != sides[1][name]]
    return (
        f"Compared with cuda-float32: {len(both) - len(figures)} of {len(both)} adapters have equal figures, "
        f"{len(verdicts)} have another verdict{': ' + ', '.join(verdicts[:3]) if verdicts else ''}."
    )


def _sizes(cell: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [one["max_abs"] for one in probe["figures"]] for name, probe in cell["probes"].items()}
