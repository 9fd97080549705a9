"""A node's cache of files, each under the SHA-256 of its content."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.core.errors import HarnessError
from harness.core.files import write_atomically
from harness.worker.files import read_regular

FOLDER = "cluster"
"""The folder in the cache."""
LIMIT = 4 << 30
"""Bytes. Beyond it, the files that were not used for the longest time are deleted."""
_KEPT = 0.8


class Contents:
    """The files in a folder."""

    def __init__(self, folder: Path, *, limit: int = LIMIT) -> None:
        self.folder = folder
        self._limit = limit

    def path(self, sha256: str) -> Path:
        """Where a content is, if it is there."""
        return self.folder / sha256[:2] / sha256

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Those of these contents that are not here. The others count as used now."""
        return [sha256 for sha256 in wanted if not self._used(self.path(sha256))]

    def add(self, contents: Mapping[str, bytes]) -> None:
        """Keep contents.

        Raises:
            HarnessError: one of them is not what its digest says, or the disk is full.
        """
        for sha256, data in contents.items():
            must_be(sha256, data, "what arrived on the node")
            try:
                self.path(sha256).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path(sha256), data)
            except OSError as error:
                raise HarnessError(
                    f"{self.folder}: {error}", "a cache on the node with some free megabytes",
                    "free some space there, or set PEFT_REGRESS_CACHE to another folder before you start the node",
                ) from error  # fmt: skip
        self._shrink()

    def read(self, sha256: str) -> bytes:
        """A content.

        Raises:
            HarnessError: it is damaged, and deleted now, or it is not here.
        """
        path = self.path(sha256)
        try:
            data = read_regular(path, links=False)
            must_be(sha256, data, str(path))
        except OSError as error:
            raise HarnessError(f"{path}: {error}", "a file that was sent before", "run it again") from error
        except HarnessError:
            path.unlink(missing_ok=True)
            raise
        return data

    def lay_out(self, files: Mapping[str, str], folder: Path) -> None:
        """Write files into a folder.

        Args:
            files: name in the folder → SHA-256.

        Raises:
            HarnessError: a content is not here, or is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, sha256 in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(sha256))

    def _used(self, path: Path) -> bool:
        try:
            os.utime(path)
        except OSError:
            return False
        return True

    def _shrink(self) -> None:
        found = []
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self._limit:
            return
        for _, size, path in sorted(found, key=lambda one: one[0]):
            if total <= self._limit * _KEPT:
                break
            path.unlink(missing_ok=True)
            total -= size


def must_be(sha256: str, data: bytes, what: str) -> None:
    """Refuse a content that is not what its digest says.

    Raises:
        HarnessError: it is not.
    """
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise HarnessError(f"{what}: SHA-256 {found}", f"SHA-256 {sha256}", "run it again; the file is sent again")
