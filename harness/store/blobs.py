"""Contents in files that are named by their own SHA-256, packed where that is worth it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from harness.core.files import write_durably
from harness.store.manifest import StoredFile, stored_file

PACKED = ".gz"
"""Ends the name of a blob whose file is packed; the name before it is still the content's own SHA-256."""
WORTH_PACKING = 0.9
"""A content is packed where that leaves less than this share of it."""
UNPACKING = (EOFError, zlib.error, gzip.BadGzipFile)
"""What a damaged packed file raises."""


class Blobs:
    """The blobs of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """The file of a content: as it is, or packed; where there is none yet, as it is."""
        plain, packed = self.places(sha256)
        return packed if packed.exists() and not plain.exists() else plain

    def places(self, sha256: str) -> tuple[Path, Path]:
        """Where a content may be: as it is, and packed."""
        plain = self.folder / sha256[:2] / sha256
        return plain, plain.with_name(plain.name + PACKED)

    def files(self) -> Iterator[Path]:
        """Every file of the folder, whatever it is called."""
        return (path for path in self.folder.rglob("*") if path.is_file())

    def write(self, stored: StoredFile, data: bytes, compress: bool) -> None:
        """Put a content there, if it is not there whole already.

        Args:
            compress: pack it where that saves something; what a library wrote is kept as it is, for whoever looks.
        """
        path = self.path(stored.sha256)
        # a blob that is there is believed only after a look: a damaged one is mended by who has the right bytes
        if _is(path, stored):
            return
        path.unlink(missing_ok=True)
        plain, packed = self.places(stored.sha256)
        small = gzip.compress(data, mtime=0) if compress else data
        if len(small) < WORTH_PACKING * len(data):
            write_durably(packed, small)
        else:
            write_durably(plain, data)


def content(path: Path) -> bytes:
    """What a blob's file holds, unpacked where it is packed.

    Raises:
        OSError: there is no such file.
        EOFError, zlib.error: it is packed and damaged; see `UNPACKING`.
    """
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(PACKED) else data


def _is(path: Path, stored: StoredFile) -> bool:
    try:
        return stored_file(content(path)) == stored
    except (OSError, *UNPACKING):
        return False
