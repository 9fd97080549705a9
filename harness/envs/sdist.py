"""Extracts files of a package's sdist from the index. The package is neither built nor installed."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from harness.envs.environment import EnvFailed

FOLDER = "source"
"""Where the files are in an environment's directory."""
LARGEST = 64 << 20
"""Bytes of all extracted files together."""

Download = Callable[[str, str], bytes]
"""The sdist of a package's version."""


def extract(name: str, package: str, version: str, digest: str, globs: Sequence[str], download: Download,
            directory: Path) -> int:  # fmt: skip
    """Download the sdist, check it, and extract the files that match; returns their number.

    Args:
        name: the environment, for errors.
        digest: SHA-256 of the sdist, as locked.
        globs: relative to the sdist's own folder; `*` matches `/` too.
        directory: gets the files, in the folders that they have in the sdist.

    Raises:
        EnvFailed: it cannot be downloaded, is another file, is damaged, or has none of the files.
    """
    what = f"the sdist of {package} {version}"
    content = download(package, version)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise EnvFailed(
            name, "build", f"{what} has SHA-256 {found}", f"{digest}, as locked",
            "lock it again if the index replaced the file",
        )  # fmt: skip
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            return _write(name, archive, globs, directory, what)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise EnvFailed(name, "build", f"{what}: {error}", "an archive and a disk with room", "run it again") from error


def _write(name: str, archive: tarfile.TarFile, globs: Sequence[str], directory: Path, what: str) -> int:
    count, size = 0, 0
    for member, path in _matching(archive, globs):
        size += member.size
        if size > LARGEST:
            raise EnvFailed(
                name, "build", f"the files to extract from {what} are over {LARGEST >> 20} MiB", "only what is used",
                "make `consumer.extract` narrower",
            )  # fmt: skip
        source = archive.extractfile(member)
        assert source is not None
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
        count += 1
    if not count:
        raise EnvFailed(name, "build", f"{what} has no file that matches {', '.join(globs)}", "at least one", "fix `consumer.extract`")  # noqa: E501  # fmt: skip
    return count


def _matching(archive: tarfile.TarFile, globs: Sequence[str]) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    """The regular files that match, each with its path inside of the sdist's own folder."""
    for member in archive:
        parts = PurePosixPath(member.name).parts[1:]
        if not member.isfile() or not parts or ".." in parts or "\\" in member.name:
            continue
        inner = "/".join(parts)
        if any(fnmatch.fnmatchcase(inner, glob) for glob in globs):
            yield member, Path(inner)
