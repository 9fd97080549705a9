"""The store as one file: what a release publishes, and what `fixtures fetch` unpacks.

The archive is a gzipped tar of the folder. The same folder always gives the same bytes. Its SHA-256 is in a file beside
it that ends in `.sha256`, as `sha256sum` writes it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import IO

from harness import __version__
from harness.core.errors import HarnessError, UsageError
from harness.core.files import expanded, must_be_new, new_folder, write_atomically
from harness.core.progress import Log

NAME = f"peft-regress-fixtures-{__version__}.tar.gz"
DIGEST = ".sha256"
_PAGE = "Releases"
_TIMEOUT_S = 60


def release_asset() -> str:
    """The address of this release's archive: an asset of the release page that the package's metadata names.

    Raises:
        UsageError: the metadata names no release page.
    """
    try:
        urls = importlib.metadata.metadata("peft-regress").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        urls = []
    pages = {label.strip(): address.strip() for label, _, address in (url.partition(",") for url in urls)}
    if _PAGE not in pages:
        raise UsageError(
            "this build of peft-regress names no release page", f"`{_PAGE}` under [project.urls] in pyproject.toml",
            f"pass --from with the address or path of {NAME}",
        )  # fmt: skip
    return f"{pages[_PAGE].rstrip('/')}/download/v{__version__}/{NAME}"


def pack(folder: Path, archive: Path) -> str:
    """Write the archive of a store and its SHA-256 file; returns the SHA-256."""
    names = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not names:
        raise UsageError(f"{folder} holds no fixtures", "a folder of fixtures", "pass --fixtures DIR")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in names:
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                tar.addfile(entry, content)
    digest = _digest(archive)
    write_atomically(archive.with_name(archive.name + DIGEST), f"{digest}  {archive.name}\n".encode())
    return digest


def fetch(source: str, target: Path, log: Log) -> int:
    """Unpack an archive into a new folder, after its SHA-256 is checked; returns the number of files.

    Args:
        source: an address (`https://…`, `file://…`) or a path; the same with `.sha256` at its end holds the digest.
            Empty for this release's asset.

    Raises:
        UsageError: the folder exists already.
        HarnessError: the archive cannot be read, or its SHA-256 differs.
    """
    must_be_new(target)
    source = source or release_asset()
    address = source if "://" in source else expanded(source).resolve().as_uri()
    with new_folder(target) as folder, tempfile.TemporaryFile() as file:
        expected = _read(address + DIGEST).split()
        log(f"fetching {address}")
        _download(address, file)
        found = _digest(file)
        if expected[:1] != [found]:
            raise HarnessError(
                f"{address} has SHA-256 {found}", f"{' '.join(expected[:1]) or 'a SHA-256'}, as {address}{DIGEST} says",
                "fetch it again; if it still differs, the archive or its .sha256 file is damaged",
            )  # fmt: skip
        return _unpack(file, folder, address)


def _read(address: str) -> str:
    with tempfile.TemporaryFile() as file:
        _download(address, file)
        return file.read().decode(errors="replace")


def _download(address: str, file: IO[bytes]) -> None:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise HarnessError(
            f"cannot fetch {address}: {error}", "an archive of fixtures and its .sha256 file",
            "check the address and the network, or pass --from with the path of a downloaded archive",
        ) from error  # fmt: skip
    file.seek(0)


def _digest(where: Path | IO[bytes]) -> str:
    if isinstance(where, Path):
        with where.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.file_digest(where, "sha256").hexdigest()  # type: ignore[arg-type]
    where.seek(0)
    return digest


def _unpack(file: IO[bytes], folder: Path, address: str) -> int:
    """Write the archive's files. Only plain files inside the folder: no link, no device, no path that leads out."""
    count = 0
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as tar:
            for entry in tar:
                place = PurePosixPath(entry.name)
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None or place.is_absolute() or ".." in place.parts:
                    raise HarnessError(
                        f"{address}: {entry.name} is not a plain file inside the folder", "plain files only",
                        "do not use this archive",
                    )  # fmt: skip
                path = folder / place
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    shutil.copyfileobj(content, out)
                count += 1
    except (tarfile.TarError, EOFError) as error:
        raise HarnessError(
            f"{address}: {error}", "a gzipped tar", "name an archive that `fixtures pack` wrote"
        ) from error
    return count
