"""Files named by the SHA-256 of their content, compressed if that saves space."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from harness.core.files import write_durably
from harness.store.manifest import StoredFile, stored_file
from harness.worker.files import LARGEST, open_regular, read_regular

PACKED = ".gz"
"""The suffix of a compressed blob. The name before it is still the SHA-256 of the uncompressed content."""
WORTH_PACKING = 0.9
"""A blob is compressed if this leaves less than this share of its size."""
UNPACKING = (EOFError, zlib.error, gzip.BadGzipFile)
"""The errors that a damaged compressed file raises."""


class Blobs:
    """The blobs of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """The file of a content, compressed or not; the uncompressed name if there is none yet."""
        plain, packed = self.places(sha256)
        return packed if packed.exists() and not plain.exists() else plain

    def places(self, sha256: str) -> tuple[Path, Path]:
        """The two files that a content may be in: uncompressed, and compressed."""
        plain = self.folder / sha256[:2] / sha256
        return plain, plain.with_name(plain.name + PACKED)

    def files(self) -> Iterator[Path]:
        """Every file in the folder, whatever its name."""
        return (path for path in self.folder.rglob("*") if path.is_file())

    def write(self, stored: StoredFile, data: bytes, compress: bool) -> None:
        """Store a content, unless it is there already and intact.

        Args:
            compress: if that saves space. What a library wrote is not compressed, so that people can read it.
        """
        path = self.path(stored.sha256)
        # an existing blob is checked: if it is damaged, the right bytes replace it
        if _is(path, stored):
            return
        path.unlink(missing_ok=True)
        plain, packed = self.places(stored.sha256)
        small = gzip.compress(data, mtime=0) if compress else data
        if len(small) < WORTH_PACKING * len(data):
            write_durably(packed, small)
        else:
            write_durably(plain, data)


def content(path: Path, size: int) -> bytes:
    """The content of a blob's file, uncompressed.

    Args:
        size: the bytes that the content should have. Of more, only one is unpacked: a few kilobytes can hold gigabytes.

    Raises:
        OSError: there is no such file, or it cannot be read.
        EOFError, zlib.error: it is compressed and damaged; see `UNPACKING`.
    """
    if not path.name.endswith(PACKED):
        return read_regular(path)
    with open_regular(path, links=True) as file, gzip.open(file) as unpacked:
        return unpacked.read(min(size, LARGEST) + 1)


def _is(path: Path, stored: StoredFile) -> bool:
    try:
        return stored_file(content(path, stored.size)) == stored
    except (OSError, *UNPACKING):
        return False
