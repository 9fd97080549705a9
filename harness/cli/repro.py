"""`repro CELL`: a folder that shows a deviation without this project, ready for an issue upstream."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safetensors.numpy import save

from harness.cli import common, one_cell
from harness.core import matrix, observation
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.files import new_folder
from harness.core.run import Cell
from harness.core.verdict import Verdict
from harness.deviation.repro import aspects, bases, loading, python_text, readme, scripts
from harness.deviation.repro.aspects import Aspect
from harness.deviation.repro.pins import Pinned
from harness.deviation.repro.readme import Ran
from harness.deviation.repro.releases import Release
from harness.deviation.repro.subject import Side, Subject, output_names
from harness.envs import source_tree
from harness.envs.environment import EnvFailed
from harness.envs.environments import Environments
from harness.judge import causes
from harness.runner.plan import Planned
from harness.store.fixtures import Manifest, Store

TRIED = 6
"""How many ways to show a deviation are tried at most; the first one does, as a rule."""
LIMIT_S = 600.0
OWN = frozenset({"before.py", "after.py", "README.md"})
"""What a folder must hold that `--force` replaces: it was made by this command."""


class CannotWrite(HarnessError):
    """The folder can't be written; nothing of it is left behind."""


@dataclass(frozen=True)
class _Case:
    """All that is known of what is to be shown."""

    cell: Cell
    planned: Planned
    subject: Subject
    store: Store
    manifest: Manifest
    before: Pinned
    after: Pinned
    pythons: tuple[Path | None, Path | None]


def repro(arguments: argparse.Namespace) -> int:
    """Write the folder, run its scripts in both environments, and say whether the deviation shows."""
    target = Path(arguments.output).expanduser().absolute() if arguments.output else None
    if target is not None:
        _refuse_existing(target, arguments.force)
    with one_cell.found(arguments) as found:
        _refuse_sound(found.cell)
        target = target or Path.cwd() / _folder_name(found.cell.id)
        _refuse_existing(target, arguments.force)
        case = _case(found, verify=arguments.verify)
        with _written(target, arguments.force) as folder:
            ran, aspect = _made(case, folder, verify=arguments.verify)
    _tell(case.cell, target, ran, aspect, arguments)
    return ExitCode.CLEAN if ran is None or ran.shown else ExitCode.CANNOT_TELL


def _tell(cell: Cell, target: Path, ran: Ran | None, aspect: Aspect, arguments: argparse.Namespace) -> None:
    shown = None if ran is None else ran.shown
    if arguments.json:
        common.out_json({"cell": cell.id, "folder": str(target), "compares": aspect.title, "shown": shown,
                         "why_not": ran.why_not if ran else "not run"})  # fmt: skip
        return
    common.out(str(target))
    if ran is None:
        common.say(f"not run (--no-verify); the scripts compare {aspect.title}")
    elif ran.shown:
        common.say(f"run in both environments: the deviation shows; the scripts compare {aspect.title}")
        if (main := causes.main_finding(cell)) is not None and aspect.finding not in (None, main):
            common.say(f"they show another finding of the cell than its main one, which is: {main.message}")
    else:
        common.say(
            f"peft-regress: the deviation of {cell.id} does not show in the scripts: {ran.why_not}\n"
            f"  expected: that {aspect.title} deviate when they are run\n"
            "  next: its README says so too; do not hand it on, `peft-regress show` tells how it was seen"
        )


def _refuse_sound(cell: Cell) -> None:
    if cell.verdict.cannot_tell or cell.verdict is Verdict.UNSUPPORTED:
        raise HarnessError(
            f"{cell.id} is {cell.verdict}: {cell.reason or 'it was not compared'}",
            "a cell that deviates",
            "mend what keeps it from being compared, and check it again",
        )
    if not cell.verdict.is_deviation and cell.verdict is not Verdict.WARNED:
        raise UsageError(
            f"{cell.id} is {cell.verdict}: there is nothing to show",
            "a cell that deviates, expected or not, or that warns of something new",
            "`peft-regress check` lists them",
        )


def _refuse_existing(target: Path, force: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    replaceable = target.is_dir() and (not any(target.iterdir()) or {p.name for p in target.iterdir()} >= OWN)
    if force and replaceable and not target.is_symlink():
        return
    if force:
        raise UsageError(f"{target} is there, and was not made by `repro`", "a folder that it may replace",
                         "name another with --output")  # fmt: skip
    raise UsageError(f"{target} is there already", "a folder that is not", "name another with --output, or --force")


def _folder_name(cell: str) -> str:
    return "repro-" + re.sub(r"[^A-Za-z0-9.=+]+", "-", cell.replace("[cpu]", "")).strip("-")[:150]


# -- what is to be shown ---------------------------------------------------------------------------------------------


def _case(found: one_cell.Found, verify: bool) -> _Case:
    planned, manifest = found.planned, found.manifest
    if planned.id.settings.request:
        raise UsageError(
            f"{planned.id} is computed with {planned.id.settings}, which a script of `repro` does not know",
            "a cell without settings", f"take {str(planned.id).replace(planned.id.place, planned.id.device)}, or "
            "`show` and the line that reproduces it",
        )  # fmt: skip
    golden = observation.parse(
        found.store.folder / manifest.creator / manifest.scenario,
        found.store.content(manifest, "golden/observation.json"),
        found.store.content(manifest, "golden/arrays.safetensors"),
    )
    environments = found.environments
    loader = environments.describe(planned.loader_spec)
    subject = Subject(
        Side(manifest.resolved, Release(manifest.versions), "saved"),
        Side(matrix.resolve(planned.declared, loader.versions), Release(loader.versions), "loaded"),
        {name.removeprefix("inputs/"): a for name, a in golden.arrays.items() if name.startswith("inputs/")},
        output_names(golden.arrays),
        frozenset(manifest.resolved.get("adapter_inputs") or {}),
        frozenset(manifest.files),
        golden.facts,
        planned.id.device,
    )
    pythons = (_python(environments, planned.creator_spec), _python(environments, planned.loader_spec))
    return _Case(
        found.cell, planned, subject, found.store, manifest, _pinned_creator(environments, planned, manifest),
        _pinned(environments, planned.loader_spec), pythons if verify else (None, None),
    )  # fmt: skip


def _python(environments: Environments, spec: str) -> Path | None:
    try:
        return environments.build(spec).python
    except (EnvFailed, UsageError) as error:
        common.say(f"{error.found}: the scripts can't be run there")
        return None


def _pinned_creator(environments: Environments, planned: Planned, manifest: Manifest) -> Pinned:
    """As its lock says, where the fixture was made from that lock; else as the fixture itself says."""
    python = str(manifest.facts.get("python", ""))
    with contextlib.suppress(UsageError, EnvFailed):
        described = _pinned(environments, planned.creator_spec)
        if environments.describe(planned.creator_spec).lock_digest == manifest.lock_digest:
            return Pinned(described.versions, python or described.python, described.source, described.notes)
    return Pinned(manifest.versions, python, {}, ())


def _pinned(environments: Environments, spec: str) -> Pinned:
    described = environments.describe(spec)
    overlay = described.overlay
    if overlay is None:
        return Pinned(described.versions, described.python, {})
    package = overlay.package
    if described.kind == "git":
        return Pinned(described.versions, described.python, {package: f"{package} @ git+{overlay.source}"})
    commit, remote = source_tree.commit_of(overlay.tree)
    if commit and remote:
        return Pinned(described.versions, described.python, {package: f"{package} @ git+{remote}@{commit}"})
    note = f"{package} is a working tree of this machine{f' at commit {commit}' if commit else ', with changes'}"
    return Pinned(described.versions, described.python, {package: f"-e {overlay.tree}"}, (note,))


# -- the folder ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _written(target: Path, force: bool) -> Iterator[Path]:
    """A temporary folder that replaces the target if all goes well.

    Raises:
        CannotWrite: the disk is full, or the place is not writable.
    """
    try:
        with new_folder(target, last=lambda: _refuse_existing(target, force)) as folder:
            yield folder
    except OSError as error:
        raise CannotWrite(
            f"{target} can't be written: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename and not str(error.filename).startswith(str(target)) else ""),
            "a place that can be written, with room for a few hundred kilobytes",
            "free some space, or name another place with --output; nothing is left of it",
        ) from error


def _made(case: _Case, folder: Path, verify: bool) -> tuple[Ran | None, Aspect]:
    """Write everything; of several ways to show the deviation the first that does, when the scripts are run."""
    _write_loaded(case, folder)
    found = list(islice(aspects.candidates(case.cell, case.subject), TRIED))
    if not found:
        kinds = ", ".join(sorted({f"{f.probe}: {f.kind}" for f in case.cell.findings})) or str(case.cell.verdict)
        raise HarnessError(
            f"{case.cell.id}: what deviates can't be told in two short scripts ({kinds})",
            "outputs, tensors, structure, or an error of loading, running, merging or saving",
            "`peft-regress show` tells what was seen, and has a line that shows it again",
        )
    first: tuple[Ran, Aspect] | None = None
    for aspect in found:
        _write_scripts(case, folder, aspect)
        if not verify:
            _write_readme(case, folder, aspect, None)
            return None, aspect
        ran = _run(case, folder, aspect)
        first = first or (ran, aspect)
        if ran.shown:
            _write_readme(case, folder, aspect, ran)
            return ran, aspect
        if None in case.pythons:
            break
    assert first is not None
    ran, aspect = first
    _write_scripts(case, folder, aspect)
    _write_readme(case, folder, aspect, ran)
    return ran, aspect


def _write_loaded(case: _Case, folder: Path) -> None:
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


def _write_scripts(case: _Case, folder: Path, aspect: Aspect) -> None:
    (folder / "before.py").write_text(scripts.before(case.subject, aspect), encoding="utf-8")
    (folder / "after.py").write_text(scripts.after(case.subject, aspect), encoding="utf-8")


def _write_readme(case: _Case, folder: Path, aspect: Aspect, ran: Ran | None) -> None:
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "README.md"
    }
    base = case.subject.before.base
    hub = f"{base['repo']} at {base['revision']}" if base["kind"] == "hub" else ""
    said = readme.text(
        case.cell, aspect.finding or causes.main_finding(case.cell), aspect, case.before, case.after, ran, digests, hub
    )  # fmt: skip
    (folder / "README.md").write_text(said, encoding="utf-8", errors="backslashreplace")


# -- running it ------------------------------------------------------------------------------------------------------


def _run(case: _Case, folder: Path, aspect: Aspect) -> Ran:
    """Run the two scripts in the environments, in a copy of the folder."""
    before, after = case.pythons
    if before is None or after is None:
        return Ran(False, why_not="an environment can't be had here, so the scripts were not run")
    with tempfile.TemporaryDirectory(prefix="peft-regress-") as scratch:
        place = Path(scratch) / "repro"
        shutil.copytree(folder, place)
        environ = _environ(case.planned.id.device)
        code_before, out_before, error_before = _script(before, "before.py", place, environ)
        if code_before != 0:
            said = causes.last_line(error_before)
            return Ran(False, out_before + error_before, "", code_before, 0, f"before.py itself fails ({said})")
        code, out, error = _script(after, "after.py", place, environ)
    why = why_not(aspect, code, out, error)
    shown = error if code not in (0, 1) or scripts.DEVIATES not in out else ""
    return Ran(not why, out_before, out + _last(shown), code_before, code, why)


def why_not(aspect: Aspect, code: int, out: str, error: str) -> str:
    """Why what `after.py` did is not the deviation; empty where it is."""
    if aspect.dies:
        return "" if code < 0 or code >= 128 else f"after.py ends with exit code {code}"
    if aspect.raises:
        name = aspect.raises.rpartition(".")[2]
        if code != 0 and re.search(rf"^(?:\w+\.)*{re.escape(name)}(?::|$)", error, re.MULTILINE):
            return ""  # a message may have lines of its own after the first
        return f"after.py does not raise {name} but ends with exit code {code} ({causes.last_line(error) or 'silent'})"
    if code == 1 and scripts.DEVIATES in out:
        return ""
    return f"after.py ends with exit code {code} ({causes.last_line(error if code else out)})"


def _environ(device: str) -> Mapping[str, str]:
    """The user's own variables, but that nothing is fetched; no numerics are pinned, as nobody pins them upstream."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    return {**kept, **offline, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})}


def _script(python: Path, name: str, place: Path, environ: Mapping[str, str]) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            [str(python), name], cwd=place, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 137, "", f"{name} did not end within {LIMIT_S:.0f} s"
    return done.returncode, _plain(done.stdout, place), _plain(done.stderr, place)


def _plain(said: bytes, place: Path) -> str:
    """What was printed, without paths of this machine."""
    found = said.decode("utf-8", "replace").replace(str(place.resolve()) + os.sep, "").replace(str(place) + os.sep, "")
    found = re.sub(r"\r[^\n]*\r", "", found)
    return re.sub(r"(?:/[\w.@+~-]+)+/(?=site-packages/|python3\.\d+/)", "…/", found)


def _last(error: str, lines: int = 8) -> str:
    return "\n".join(error.rstrip().splitlines()[-lines:]) + "\n" if error.strip() else ""
