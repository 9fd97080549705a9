"""Byte code of a new environment, taken from one that has the same source files.

Environments with the same version of a package have copies of the same files. Their byte code is not copied: the first
import of torch, transformers and PEFT compiles some 2,700 files, which is most of what a new environment costs. Where a
source has the same size and the same time to the nanosecond, its byte code fits too, and Python accepts it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_CACHE = "__pycache__"


def most_alike(versions: Mapping[str, str], others: Iterable[tuple[Path, Mapping[str, str]]]) -> Path | None:
    """The environment that has most packages in the same version; None where none has one.

    Args:
        versions: package → version, of the new environment.
        others: directory and versions of each built environment of the same Python.
    """
    ranked = [(len(versions.items() & other.items()), directory.name, directory) for directory, other in others]
    best = max(ranked, default=None)
    return best[2] if best is not None and best[0] else None


def share(source: Path, target: Path) -> int:
    """Link the byte code of one environment into another, for the source files that both have; returns how many.

    What can't be linked is left out: Python compiles it when it is imported.
    """
    linked = 0
    for folder, names in _compiled(source):
        inner = folder.relative_to(source)
        if not (target / inner).is_dir():
            continue
        for name in names:
            linked += _link(folder, target / inner, name)
    return linked


def take_over(source: Path, target: Path) -> None:
    """Link the byte code of a source file to another file of the same content, which gets the source's time.

    Python looks at the time and the size of a source file, so an equal file of another time would be compiled again.
    """
    for compiled in (source.parent / _CACHE).glob(f"{source.stem}.*.pyc"):
        try:
            (target.parent / _CACHE).mkdir(exist_ok=True)
            os.link(compiled, target.parent / _CACHE / compiled.name)
            os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
        except OSError:
            continue


def _compiled(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder of an environment that has byte code, with the names of its files."""
    for folder, folders, _ in os.walk(root / "lib"):
        if _CACHE in folders:
            folders.remove(_CACHE)
            yield Path(folder), [name for name in os.listdir(Path(folder) / _CACHE) if name.endswith(".pyc")]  # noqa: PTH208


def _link(source: Path, target: Path, name: str) -> bool:
    module = f"{name.partition('.')[0]}.py"
    try:
        if _written(source / module) != _written(target / module):
            return False
        (target / _CACHE).mkdir(exist_ok=True)
        os.link(source / _CACHE / name, target / _CACHE / name)
    except OSError:
        return False
    return True


def _written(path: Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - a plain call, thousands of times
    return status.st_size, status.st_mtime_ns
