"""The files of a built environment: they are its own, as the wheels' RECORDs say, and unchanged since the build.

Where a file system cannot clone files, uv installs hard links to its cache, and an edit in one environment would change
all others. So each file is copied, except those that need most of the space and that nobody edits: native code, C
headers, and data over 1 MiB. A snapshot of sizes and times shows at each use whether a file changed.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.text import enumerated
from harness.envs import record

_NOT_INSTALLED = {"peft-regress.json", "peft-regress.files.gz", ".lock", ".gitignore", "CACHEDIR.TAG"}
"""Files at the top that uv and this program write."""
_OF_UV = ("_virtualenv.py", "_virtualenv.pth")
_LARGE = 1 << 20
_HEADERS = (".h", ".hpp", ".cuh")
_NATIVE = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
"""How programs and libraries of Linux and macOS begin."""
_SAID = {"differs": "differs", "missing": "is missing", "further": "was added"}


@dataclass(frozen=True)
class Difference:
    """A file that is not as it was installed."""

    path: str
    """Relative to the environment's directory."""
    how: str
    """`differs`, `missing`, or `further`: no wheel has it."""
    package: str = ""
    """`peft 0.6.1`; empty if no wheel has it."""

    def __str__(self) -> str:
        return f"{self.path}{f' ({self.package})' if self.package else ''} {_SAID[self.how]}"


@dataclass(frozen=True)
class Verified:
    """What reading all files of a build found."""

    name: str
    """Its directory's name."""
    spec: str
    files: int
    differences: tuple[Difference, ...]


def shown(differences: Iterable[Difference]) -> str:
    """The first differences, in one line."""
    return enumerated(map(str, differences), 3)


def settle(directory: Path) -> list[Difference]:
    """Replace the hard links of a new build by copies; returns what differs from the RECORDs."""
    return list(_compare(directory, own=True))


def differences(directory: Path) -> list[Difference]:
    """What differs from the RECORDs or the snapshot. Reads every file."""
    found = {one.path: one for one in (*(changes(directory) or ()), *_compare(directory, own=False))}
    return sorted(found.values(), key=lambda one: one.path)


def verify(directory: Path, spec: str) -> Verified:
    """Read every file. A build of an earlier version that is as installed gets its snapshot."""
    found = differences(directory)
    if not found and not snapshot(directory).exists():
        with contextlib.suppress(OSError):
            write_snapshot(directory)
    return Verified(directory.name, spec, sum(1 for _ in _files(directory)), tuple(found))


def changes(directory: Path) -> list[Difference] | None:
    """What changed since the snapshot; None if there is no snapshot that can be read.

    A file of another time is read. If its content is as installed, it is no change: archives and images cut times.
    """
    try:
        before = gzip.decompress(snapshot(directory).read_bytes()).decode(errors="surrogateescape")
    except (OSError, EOFError, ValueError):
        return None
    now = _list(directory)
    if before == now:
        return []
    found = list(_between(directory, _by_path(before), _by_path(now)))
    if not found:
        with contextlib.suppress(OSError):  # else the files are read each time
            write_snapshot(directory)
    return found


def snapshot(directory: Path) -> Path:
    """Where the list of a build's files is: beside it."""
    return directory.with_name(f".{directory.name}.files.gz")


def write_snapshot(directory: Path) -> None:
    """Store the list of a build's files."""
    content = gzip.compress(_list(directory).encode(errors="surrogateescape"), 1)
    part = snapshot(directory).with_suffix(".part")
    part.write_bytes(content)
    part.replace(snapshot(directory))


def _list(directory: Path) -> str:
    """Size, mark and path of each file."""
    entries = ((os.lstat(path), path, name) for path, name in _files(directory))
    return "\0".join(sorted(f"{status.st_size} {_mark(status, path, name)} {name}" for status, path, name in entries))


def _mark(status: os.stat_result, path: str, name: str) -> str:
    """The file's time. Of links their target, and of what no RECORD has a digest of, a digest."""
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path).replace(" ", "%20")  # noqa: PTH115
    if name.endswith((".dist-info/RECORD", *_OF_UV)) or "/site-packages/" not in name:
        return _digest(path, "sha256")
    return str(status.st_mtime_ns)


def _by_path(snapshot: str) -> dict[str, str]:
    marks = (line.split(" ", 2) for line in snapshot.split("\0") if line)
    return {name: f"{size} {mark}" for size, mark, name in marks}


def _between(directory: Path, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    recorded = _recorded(directory)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) == now.get(name):
            continue
        entries = {digest: package for digest, package in recorded.get(name, {}).items() if digest}
        how = "missing" if name not in now else "further" if name not in before else "differs"
        path = str(directory / name)
        if how == "differs" and not os.path.islink(path) and any(_matches(path, digest) for digest in entries):  # noqa: PTH114
            continue
        yield Difference(name, how, _package(recorded.get(name)))


def _compare(directory: Path, *, own: bool) -> Iterator[Difference]:
    """Read every file, and compare it with the RECORDs.

    Args:
        own: replace hard links by copies.
    """
    recorded = _recorded(directory)
    built = snapshot(directory).exists()  # then the snapshot shows what was added
    seen = set()
    for path, name in _files(directory):
        seen.add(name)
        entries = recorded.get(name, {})
        if own and os.lstat(path).st_nlink > 1:
            _separate(path)
        if entries and not any(_matches(path, digest) for digest in entries):
            yield Difference(name, "differs", _package(entries))
        elif not entries and not built and not own and _further(path):
            yield Difference(name, "further")
    yield from (Difference(name, "missing", _package(recorded[name])) for name in sorted(recorded.keys() - seen))


def _further(path: str) -> bool:
    return "/site-packages/" in path and not path.endswith(_OF_UV) and not os.path.islink(path)  # noqa: PTH114


def _separate(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123 - thousands of times
        native = file.read(4) in _NATIVE
    if native or path.endswith(_HEADERS) or (os.path.getsize(path) > _LARGE and not path.endswith(".py")):  # noqa: PTH202
        return
    part = f"{path}.part"
    shutil.copy2(path, part)
    os.replace(part, path)  # noqa: PTH105


def _files(directory: Path) -> Iterator[tuple[str, str]]:
    """Path and name of each installed file and link; byte code, which Python writes and checks itself, is left out."""
    root = str(directory)
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != "__pycache__"]
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]  # noqa: PTH114 - thousands of times
        for name in (*names, *links):
            if folder != root or name not in _NOT_INSTALLED:
                path = f"{folder}/{name}"
                yield path, path[len(root) + 1 :]


def _recorded(directory: Path) -> dict[str, dict[str, str]]:
    """Path → {`sha256=…`: package} of all RECORDs. A path has several entries where packages share a file.

    A RECORD that is a link belongs to the environment below, as do the files that it lists.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for info in directory.glob("lib/python*/site-packages/*.dist-info"):
        if info.is_symlink() or (info / "RECORD").is_symlink():
            continue
        package = info.name.removesuffix(".dist-info").replace("-", " ", 1)
        site = info.parent.relative_to(directory)
        for line in record.rows(info):
            if "__pycache__" not in line[0] and not line[0].endswith(".pyc"):
                name = os.path.normpath(site / line[0])
                found[name][line[1] if len(line) > 1 else ""] = package
    return found


def _package(entries: Mapping[str, str] | None) -> str:
    return next(iter(entries.values()), "") if entries else ""


def _matches(path: str, recorded: str) -> bool:
    """True if the file has this digest. RECORDs have none for themselves and for what installers write."""
    algorithm, _, digest = recorded.partition("=")
    if not digest:
        return True
    with contextlib.suppress(OSError, ValueError):
        return _digest(path, algorithm) == digest
    return False


def _digest(path: str, algorithm: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - thousands of times
        found = hashlib.file_digest(file, algorithm).digest()
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode()
