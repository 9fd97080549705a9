"""Writes a folder that shows a deviation without this project, ready for an issue upstream.

Example:
    written = folder.write(CellRequest("lokr-alpha-differs"), Path("issue-1234"))
    assert written.shows
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safetensors.numpy import save

from harness.core.errors import HarnessError, UsageError
from harness.core.files import new_folder
from harness.core.progress import Log, quiet
from harness.core.run import Cell
from harness.deviation import one_cell
from harness.deviation.one_cell import CellRequest
from harness.deviation.repro import aspects, bases, loading, python_text, readme, run_scripts, scripts
from harness.deviation.repro.aspects import Aspect
from harness.deviation.repro.case import Case, case_of, refuse_sound
from harness.deviation.repro.readme import Ran
from harness.judge import causes

TRIED = 6
"""At most this many ways to show a deviation are tried; usually the first one works."""
OWN = frozenset({"before.py", "after.py", "README.md"})
"""A folder with these files was written by `repro` and may be replaced by `--force`."""


class CannotWrite(HarnessError):
    """The folder cannot be written. Nothing of it is left behind."""


@dataclass(frozen=True)
class Written:
    """A folder that was written.

    Attributes:
        aspect: what the scripts compare.
        ran: the result of running them; None if they were not run.
    """

    cell: Cell
    folder: Path
    aspect: Aspect
    ran: Ran | None

    @property
    def shows(self) -> bool | None:
        """True if the deviation shows when the scripts are run; None if they were not run."""
        return None if self.ran is None else self.ran.shown


def write(
    request: CellRequest, output: Path | None = None, *, force: bool = False, verify: bool = True, log: Log = quiet
) -> Written:
    """Write two scripts, requirements, adapter, base and README for a cell that deviates.

    Args:
        output: the folder; default: `repro-CELL` in the current folder.
        force: replace a folder that was written before.
        verify: run the scripts in both environments. If the first way to show the deviation fails, others are tried.

    Raises:
        UsageError: there is no such cell, it does not deviate, or the folder exists.
        CannotWrite: the folder cannot be written.
        HarnessError: the cell was not compared, its fixture is damaged, or scripts cannot show its deviation.
    """
    if output is not None:
        _refuse_existing(output, force)
    with one_cell.opened(request, log) as found:
        refuse_sound(found.cell)
        target = output or Path.cwd() / _folder_name(found.cell.id)
        case = case_of(found, verify=verify, log=log)
        with _folder(target, force) as folder:
            ran, aspect = _made(case, folder, verify=verify)
    return Written(case.cell, target, aspect, ran)


def _refuse_existing(target: Path, force: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    replaceable = target.is_dir() and (not any(target.iterdir()) or {p.name for p in target.iterdir()} >= OWN)
    if force and replaceable and not target.is_symlink():
        return
    if force:
        raise UsageError(
            f"{target} exists and was not made by `repro`", "a folder that it may replace", "choose another --output"
        )
    raise UsageError(f"{target} exists", "a new folder", "choose another --output, or use --force")


def _folder_name(cell: str) -> str:
    return "repro-" + re.sub(r"[^A-Za-z0-9.=+]+", "-", cell.replace("[cpu]", "")).strip("-")[:150]


@contextlib.contextmanager
def _folder(target: Path, force: bool) -> Iterator[Path]:
    _refuse_existing(target, force)
    try:
        with new_folder(target, last=lambda: _refuse_existing(target, force)) as folder:
            yield folder
    except OSError as error:
        elsewhere = error.filename and not str(error.filename).startswith(str(target))
        raise CannotWrite(
            f"{target} cannot be written: {error.strerror or error}" + (f" ({error.filename})" if elsewhere else ""),
            "a writable place with a few hundred free kilobytes",
            "free some space, or choose another --output; nothing was written",
        ) from error


def _made(case: Case, folder: Path, verify: bool) -> tuple[Ran | None, Aspect]:
    """Write everything, with the first aspect whose scripts show the deviation."""
    _write_loaded(case, folder)
    candidates = _candidates(case)
    if not verify:
        return _finished(case, folder, candidates[0], None)
    ran = []
    for aspect in candidates:
        _write_scripts(case, folder, aspect)
        ran.append(run_scripts.run(case.pythons, folder, aspect, case.planned.id.device))
        if ran[-1].shown or None in case.pythons:
            return _finished(case, folder, aspect, ran[-1])
    return _finished(case, folder, candidates[0], ran[0])


def _candidates(case: Case) -> list[Aspect]:
    found = list(islice(aspects.candidates(case.cell, case.subject), TRIED))
    if not found:
        kinds = ", ".join(sorted({f"{f.probe}: {f.kind}" for f in case.cell.findings})) or str(case.cell.verdict)
        raise HarnessError(
            f"{case.cell.id}: two short scripts cannot show this deviation ({kinds})",
            "outputs, tensors, structure, or an error of loading, running, merging or saving",
            "`peft-regress show` says what was seen, and has a line that reproduces it",
        )
    return found


def _finished(case: Case, folder: Path, aspect: Aspect, ran: Ran | None) -> tuple[Ran | None, Aspect]:
    _write_scripts(case, folder, aspect)
    _write_readme(case, folder, aspect, ran)
    return ran, aspect


def _write_loaded(case: Case, folder: Path) -> None:
    """Write everything that the scripts load."""
    hub = case.subject.before.base["kind"] == "hub"
    for name in case.manifest.files:
        if not (hub and name.startswith("base/")):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(case.store.content(case.manifest, name))
    large = {name: array for name, array in case.subject.inputs.items() if not python_text.is_literal(array)}
    if large:
        (folder / loading.INPUTS_FILE).write_bytes(save(large))
    if model := bases.model_file(case.subject.after.base):
        (folder / "model.py").write_text(model, encoding="utf-8")
    for name, pinned in (("before", case.before), ("after", case.after)):
        (folder / f"requirements-{name}.txt").write_text(pinned.text(), encoding="utf-8")


def _write_scripts(case: Case, folder: Path, aspect: Aspect) -> None:
    (folder / "before.py").write_text(scripts.before(case.subject, aspect), encoding="utf-8")
    (folder / "after.py").write_text(scripts.after(case.subject, aspect), encoding="utf-8")


def _write_readme(case: Case, folder: Path, aspect: Aspect, ran: Ran | None) -> None:
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "README.md"
    }
    base = case.subject.before.base
    hub = f"{base['repo']} at {base['revision']}" if base["kind"] == "hub" else ""
    finding = aspect.finding or causes.main_finding(case.cell)
    text = readme.text(case.cell, finding, aspect, case.before, case.after, ran, digests, hub)
    (folder / "README.md").write_text(text, encoding="utf-8", errors="backslashreplace")
