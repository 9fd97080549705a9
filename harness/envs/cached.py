"""The builds in the cache: finding them with their stamps, and deleting those that no process builds or uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import filelock

from harness.core.lock import file_lock
from harness.core.progress import Log
from harness.envs import build, source_tree
from harness.worker import in_use


def builds(root: Path) -> list[tuple[Path, Mapping[str, object]]]:
    """Every build of a folder with its stamp, which is empty for an incomplete build."""
    folders = [path for path in sorted(root.glob("*")) if path.is_dir()] if root.is_dir() else []
    return [(path, build.read_stamp(path) or {}) for path in folders]


def delete(directory: Path, log: Log) -> bool:
    """Delete a build or a tree, unless another process builds or uses it."""
    in_use.release(str(directory))
    try:
        with file_lock(in_use.lock_path(str(directory)), timeout=0):
            if free := not in_use.marked_by(str(directory)):
                build.remove(directory)
    except filelock.Timeout:
        free = False
    if not free:
        log(f"kept, because another process builds or uses it: {directory}")
    return free


def tree(stamp: Mapping[str, object]) -> Mapping[str, str]:
    """The source tree that a build was made with; empty if it has none."""
    found = stamp.get("tree")
    return found if isinstance(found, dict) else {}


def is_still(stamp: Mapping[str, object]) -> bool:
    """True if the environment was built from a checkout that has not changed since."""
    found = tree(stamp)
    path = Path(found.get("path", ""))
    return stamp.get("kind") == "checkout" and path.is_dir() and source_tree.digest(path) == found.get("digest")
