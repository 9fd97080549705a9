"""An environment that has one package of its own, and links to all others of a built environment.

A link costs nothing, an installed package does: 27,000 files, and byte code of them. Only what belongs to no other
package is linked as a whole; a folder that several packages share is made anew, with links in it. So nothing is ever
written into the other environment but the byte code of its own files.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from packaging.utils import canonicalize_name

from harness.envs import byte_code, record

_OF_INTERPRETER = {"__pycache__", "_virtualenv.py", "_virtualenv.pth"}
"""Never linked: Python and uv write these for each environment."""
_METADATA = (".dist-info", ".egg-info")
"""Folders of these names are made anew: uv takes no links for them."""


def site_packages(environment: Path) -> Path:
    """The folder of an environment's packages."""
    return next(environment.glob("lib/python*/site-packages"))


def lay_under(base: Path, target: Path, package: str) -> None:
    """Link the packages of a built environment into another, but for one package, which the other has.

    Args:
        base: the built environment.
        target: has nothing installed but the package.
        package: its canonical name.
    """
    below, above = site_packages(base), site_packages(target)
    replaced = _of_package(below, package)
    folders = {str(parent) for name in replaced for parent in Path(name).parents} - {"."}
    _link(below, above, "", replaced, folders)
    _take_byte_code(below, above, _files(above, package))


def _link(below: Path, above: Path, inner: str, replaced: Collection[str], folders: Collection[str]) -> None:
    for entry in os.scandir(below / inner):
        name = f"{inner}{entry.name}"
        if entry.name in _OF_INTERPRETER or name in replaced:
            continue
        target = above / name
        mixed = name in folders or os.path.lexists(target) or entry.name.endswith(_METADATA)
        if not mixed or entry.is_file():
            if os.path.lexists(target):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(below / name)
        elif target.is_dir() or not os.path.lexists(target):
            _link(below, above, f"{name}/", replaced, folders)


def _of_package(site: Path, package: str) -> set[str]:
    """The names of a package's files, and its folder of metadata."""
    return {*_files(site, package), *(info.name for info in _infos(site, package))}


def _files(site: Path, package: str) -> set[str]:
    names = (row[0] for info in _infos(site, package) for row in record.rows(info))
    return {name for name in names if not name.startswith(("../", "/"))}


def _infos(site: Path, package: str) -> Iterator[Path]:
    for info in site.iterdir():
        if info.name.endswith(_METADATA) and canonicalize_name(info.stem.partition("-")[0]) == package:
            yield info


def _take_byte_code(below: Path, above: Path, names: Collection[str]) -> None:
    """Take over the byte code of the package's own files that did not change."""
    for name in names:
        if name.endswith(".py") and _same(below / name, above / name):
            byte_code.take_over(below / name, above / name)


def _same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
