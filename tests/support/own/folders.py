"""The same adapter in the folders that people have it in."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

COMMIT = "3f2a" * 10


def hub_cache(files: Path, cache: Path, name: str) -> Path:
    """A repository in the hub's cache, as `huggingface_hub` downloads it: every file is a link to a blob.

    Args:
        files: the repository's files.
        name: `owner/model`.

    Returns:
        The snapshot's folder.
    """
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for path in sorted(files.rglob("*")):
        if path.is_file():
            blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            link = snapshot / path.relative_to(files)
            for folder in (blob.parent, link.parent):
                folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, blob)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT, encoding="ascii")
    return snapshot


def awkward(files: Path, parent: Path) -> Path:
    """A copy whose path has spaces, quotes, letters of other scripts, a leading dash and brackets."""
    copy = parent / "Mein Ordner" / '-l\'adaptateur "final" [v2] été 模型'
    shutil.copytree(files, copy)
    return copy


def read_only(files: Path, parent: Path) -> Path:
    """A copy that nobody may write to. (Root may all the same: compare `listing` before and after.)"""
    copy = parent / "read-only"
    shutil.copytree(files, copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return copy


def listing(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Everything in a folder: path → mode, time of change, and content or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = str(path.readlink()) if path.is_symlink() else _digest(path)
        found[path.relative_to(folder).as_posix()] = (status.st_mode, status.st_mtime_ns, what)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
