"""A wheel unpacked in a folder: its package, and packing it again (no build, no network)."""

from __future__ import annotations

import email.parser
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from harness.core.files import read_text
from harness.core.versions import version_of
from harness.envs.environment import EnvFailed

_INFO = ".dist-info"
_ANY = "Wheel-Version: 1.0\nGenerator: peft-regress\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def dist_info(tree: Path) -> Path | None:
    """The `*.dist-info` folder of an unpacked wheel; None if the folder is none, or holds several packages."""
    try:
        found = [path for path in tree.iterdir() if path.name.endswith(_INFO) and (path / "METADATA").is_file()]
    except OSError:
        return None
    return found[0] if len(found) == 1 else None


def package_of(tree: Path) -> tuple[str, str] | None:
    """Canonical name and version of an unpacked wheel; None if the folder is none."""
    info = dist_info(tree)
    if info is None:
        return None
    try:
        said = email.parser.Parser().parsestr(read_text(info / "METADATA", errors="replace"))
    except OSError:
        return None
    name, version = said.get("Name"), said.get("Version")
    if not name or not version or version_of(version) is None:
        return None
    return canonicalize_name(name), str(Version(version))


def files(tree: Path) -> Iterator[str]:
    """Names of its files, without byte code."""
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if name not in ("__pycache__", ".git")]
        yield from (str((Path(folder) / name).relative_to(tree)) for name in names if not name.endswith(".pyc"))


def pack(tree: Path, folder: Path) -> Path:
    """Pack the tree, edited or not, as a wheel in `folder`. Changes the tree's metadata.

    Raises:
        EnvFailed: `wheel pack` cannot pack it.
    """
    info, package = dist_info(tree), package_of(tree)
    assert info is not None
    assert package is not None
    info = info.rename(tree / f"{package[0].replace('-', '_')}-{package[1]}{_INFO}")  # the version may have been edited
    if not (info / "WHEEL").is_file():
        (info / "WHEEL").write_text(_ANY, encoding="utf-8")
    for written_by_installers in ("INSTALLER", "REQUESTED"):
        (info / written_by_installers).unlink(missing_ok=True)
    command = [sys.executable, "-m", "wheel", "pack", str(tree), "--dest-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise EnvFailed(
            package[0], "build", f"`wheel pack` failed with exit code {done.returncode}", "an unpacked wheel",
            "read its last lines below; then unpack the wheel again", tail=done.stderr,
        )  # fmt: skip
    return next(folder.glob("*.whl"))
