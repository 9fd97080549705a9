"""Checks everything that is declared: scenarios, bases, environments with their locks, known breaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from harness.core import lint, toml_files
from harness.core.errors import HarnessError, UsageError
from harness.core.lint import Complaint
from harness.core.matrix import Declared, Matrix
from harness.core.scenario import Base
from harness.envs import declared, lock
from harness.judge import breaks
from harness.judge.breaks import Break

_GLOBS = (
    "scenarios/*.toml",
    "bases/*.toml",
    "envs/*.toml",
    "consumers/*.toml",
    f"{breaks.FOLDER}/*.toml",
    breaks.OLD_FILE,
)


def matrix(folder: Path, fallback: Path | None = None) -> list[Complaint]:
    """What is wrong in a folder laid out as `matrices/`; every file is read, whatever the others hold.

    Args:
        folder: with `scenarios/`, and `bases/`, `envs/` and known breaks where there are some.
        fallback: a folder that has the bases which this one lacks.

    Raises:
        UsageError: there is no such folder, or nothing in it to check.
    """
    if folder.is_dir() and not any(path.is_file() for glob in _GLOBS for path in folder.glob(glob)):
        raise UsageError(
            f"nothing to check in {folder}", f"a folder with {', '.join(_GLOBS[:-1])} or {_GLOBS[-1]}",
            "check --matrices",
        )  # fmt: skip
    found: list[Complaint] = []
    own = Matrix(folder, fallback)
    declared = list(_scenarios(own, found))
    bases = sorted((folder / "bases").glob("*.toml"))
    for path in bases:
        with _noting(path, found):
            toml_files.validated(Base, toml_files.read(path), path)
    locked = dict(_locks(folder, found)) or (dict(_locks(fallback, [])) if fallback else {})
    for path in breaks.files(folder):
        with _noting(path, found):
            found += _without_scenario(path, breaks.read(path), [one.name for one in declared])
    with _noting(folder / breaks.OLD_FILE, found):
        found += _declared_twice(folder, [one.id for one in breaks.read_old(folder)])
    found += lint.scenarios(declared, locked)
    found += lint.unused_bases(bases, declared)
    return sorted(found)


def without_rule(folder: Path) -> list[str]:
    """The known breaks of a folder that do not say which adapters they are about; damaged ones are left out."""
    readable: list[Break] = []
    for path in breaks.files(folder):
        with _noting(path, []):
            readable.append(breaks.read(path))
    return breaks.without_rule(readable)


def _without_scenario(path: Path, known: Break, names: Sequence[str]) -> list[Complaint]:
    """The globs of a known break that match no scenario: it was renamed or removed."""
    globs = dict.fromkeys(glob for one in known.condition for glob in one.scenarios)
    return [
        Complaint(str(path), 0, "no-scenario", f"no scenario matches {glob!r}; expected at least one")
        for glob in globs
        if not any(fnmatchcase(name, glob) for name in names)
    ]


def _declared_twice(folder: Path, old: Sequence[str]) -> Iterator[Complaint]:
    """The ids in the old file of known breaks that another entry or a file has too."""
    files = {path.stem for path in breaks.files(folder)}
    for id in dict.fromkeys(old):
        if id in files or old.count(id) > 1:
            where = f"{folder / breaks.FOLDER / id}.toml" if id in files else "another entry"
            says = f"{id!r} is the id of {where} too; expected one id for one known break"
            yield Complaint(str(folder / breaks.OLD_FILE), 0, "unique", says)


class _noting:
    """A context in which an error of a file becomes a complaint about it."""

    def __init__(self, path: Path, found: list[Complaint]) -> None:
        self._path, self._found = path, found

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, HarnessError):
            return False
        expected = f"; expected {error.expected}" if error.expected else ""
        says = error.found.removeprefix(f"{self._path}: ")
        self._found.append(Complaint(str(self._path), 0, "valid", f"{says}{expected}"))
        return True


def _scenarios(own: Matrix, found: list[Complaint]) -> Iterator[Declared]:
    seen: dict[str, Path] = {}
    for path in own.scenario_files():
        with _noting(path, found):
            for one in own.read(path):
                if one.name in seen:
                    says = f"scenario name {one.name!r} is already used in {seen[one.name]}; expected unique names"
                    found.append(Complaint(str(path), 0, "unique", says))
                seen[one.name] = path
                yield one


def _locks(folder: Path, found: list[Complaint]) -> Iterator[tuple[str, Mapping[str, str]]]:
    for path in sorted((*(folder / "envs").glob("*.toml"), *(folder / "consumers").glob("*.toml"))):
        with _noting(path, found):
            asked = declared.load(path)
            locked = lock.read(path.parent / "locks" / f"{path.stem}.txt", path.stem, asked)
            found += lint.not_as_pinned(path, asked.exact(), locked.packages)
            if asked.consumer is None:
                found += lint.missing_packages(path, locked.packages)
                yield path.stem, locked.packages
