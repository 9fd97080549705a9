"""A wheel unpacked in a folder: what package it is, and the wheel made of it again (no build, no network)."""

from __future__ import annotations

import base64
import email.parser
import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from harness.core.versions import version_of

_INFO = ".dist-info"
_ANY = "py3-none-any"


def dist_info(tree: Path) -> Path | None:
    """The one `*.dist-info` folder of an unpacked wheel; None where the folder is none, or holds several packages."""
    try:
        found = [path for path in tree.iterdir() if path.name.endswith(_INFO) and (path / "METADATA").is_file()]
    except OSError:
        return None
    return found[0] if len(found) == 1 else None


def package_of(tree: Path) -> tuple[str, str] | None:
    """Canonical name and version of an unpacked wheel; None where the folder is none."""
    info = dist_info(tree)
    if info is None:
        return None
    said = email.parser.Parser().parsestr((info / "METADATA").read_text(encoding="utf-8", errors="replace"))
    name, version = said.get("Name"), said.get("Version")
    if not name or not version or not _is_version(version):
        return None
    return canonicalize_name(name), str(Version(version))


def files(tree: Path) -> Iterator[str]:
    """Names of its files: all but byte code."""
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if name not in ("__pycache__", ".git")]
        yield from (str((Path(folder) / name).relative_to(tree)) for name in names if not name.endswith(".pyc"))


def pack(tree: Path, folder: Path) -> Path:
    """A wheel in `folder` of what the tree holds, edited as it may be: hashes and sizes are those of the files."""
    info, package = dist_info(tree), package_of(tree)
    assert info is not None
    assert package is not None
    path = folder / f"{package[0].replace('-', '_')}-{package[1]}-{_tag(info)}.whl"
    record = f"{_installed(package)}/RECORD"
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files(tree)):
            data = (tree / name).read_bytes()
            inside = name.replace(f"{info.name}/", f"{_installed(package)}/", 1) if _under(name, info) else name
            if inside == record or inside.endswith((f"{_INFO}/INSTALLER", f"{_INFO}/REQUESTED")):
                continue
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f'"{inside}",sha256={digest},{len(data)}\n')
            entry = zipfile.ZipInfo(inside)
            entry.external_attr = ((tree / name).stat().st_mode & 0o777) << 16
            archive.writestr(entry, data)
        archive.writestr(record, "".join([*lines, f'"{record}",,\n']))
    return path


def _under(name: str, info: Path) -> bool:
    return name.startswith(f"{info.name}/")


def _installed(package: tuple[str, str]) -> str:
    """The folder of the metadata as a wheel must call it: somebody may have edited the version."""
    return f"{package[0].replace('-', '_')}-{package[1]}{_INFO}"


def _tag(info: Path) -> str:
    """For which machines it is, as the wheel says itself."""
    try:
        said = email.parser.Parser().parsestr((info / "WHEEL").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return _ANY
    tags = [tag.split("-") for tag in said.get_all("Tag") or [] if tag.count("-") == 2]
    if not tags:
        return _ANY
    return "-".join(".".join(dict.fromkeys(tag[part] for tag in tags)) for part in range(3))


def _is_version(text: str) -> bool:
    return version_of(text) is not None
