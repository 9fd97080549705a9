"""The manifests of one folder on disk: a file for each creator, and in older stores a file for each fixture."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.core.files import write_durably
from harness.store import creator_file
from harness.store.creator_file import CRLF, SUFFIX, CreatorFile, Line
from harness.store.manifest import BLOBS, BadFixture, Manifest, checked_part
from harness.store.manifest_text import Place, ReadBlob, parse
from harness.worker.files import read_regular

_A_LINE = "the line as peft-regress wrote it"
_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Found:
    """A manifest's text and where it is.

    Attributes:
        problem: why it cannot be used; empty if no damage is known.
    """

    place: Place
    text: bytes
    problem: str = ""

    def manifest(self, read: ReadBlob) -> Manifest:
        """The checked manifest.

        Raises:
            BadFixture: it cannot be used.
        """
        if self.problem == CRLF:
            raise BadFixture(
                f"{self.place.file}: {CRLF}",
                "lines that end with LF",
                f"add `fixtures/*.jsonl -text` to .gitattributes, and restore it with `git restore {self.place.file}`",
            )
        if self.problem:
            raise self.place.bad(self.problem, _A_LINE if self.place.line else "a readable, regular file")
        return parse(self.place, self.text, read)


class Manifests:
    """Finds and writes the manifests of a folder. Only the holder of the store's lock may write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, tuple[_Stamp, CreatorFile]] = {}

    def creators(self) -> set[str]:
        """Creators that have a fixture, or a damaged file."""
        with_file = {path.name.removesuffix(SUFFIX) for path in self._creator_files()}
        return with_file | {path.parent.name for path in self.singles()}

    def scenarios(self, creator: str) -> set[str]:
        """Scenarios that the creator has a fixture of, whatever its state.

        Raises:
            BadFixture: the creator's file is not readable.
        """
        if not _plain(creator):
            return set()
        return {*self.read(creator).fixtures, *(path.stem for path in self.singles(creator))}

    def has(self, creator: str, scenario: str) -> bool:
        """True if there is a fixture, whatever its state."""
        return scenario in self.read(creator).fixtures or self.single(creator, scenario).is_file()

    def find(self, creator: str, scenario: str) -> Found | None:
        """The text of one manifest, or of a damaged line that may be it; None if there is none.

        Raises:
            BadFixture: the file is not readable.
        """
        file = self.read(creator)
        if line := file.fixtures.get(scenario):
            return self._found(creator, line)
        single = self.single(creator, scenario)
        try:
            return Found(Place(creator, scenario, single), read_regular(single, links=False))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise unreadable(single, error) from error
        if file.strays:
            stray = file.strays[0]
            place = Place(creator, scenario, self.file(creator), stray.number)
            return Found(place, stray.raw, f"no line of {scenario}; it may be this one: {stray.problem}")
        return None

    def every(self, creator: str) -> Iterator[Found]:
        """All manifests of a creator, damaged ones included. A fixture that is stored twice appears twice.

        Raises:
            BadFixture: the creator's file is not readable.
        """
        for line in self.read(creator).lines:
            yield self._found(creator, line)
        yield from self.every_single(creator)

    def every_single(self, creator: str) -> Iterator[Found]:
        """All manifests of formats 1 and 2 of a creator, damaged ones included."""
        for path in self.singles(creator):
            place = Place(creator, path.stem, path)
            try:
                yield Found(place, read_regular(path, links=False))
            except OSError as error:
                yield Found(place, b"", f"cannot be read: {error.strerror}")

    def damage(self, creator: str) -> list[BadFixture]:
        """What is wrong with the creator's file and belongs to no fixture that is known."""
        try:
            strays = self.read(creator).strays
        except BadFixture as error:
            return [error]
        return [Place(creator, "", self.file(creator), line.number).bad(line.problem, _A_LINE) for line in strays]

    def put(self, creator: str, scenario: str, text: bytes) -> None:
        """Write a manifest of the present format: the whole file, or nothing of it."""
        write_durably(self.file(creator), self.read(creator).put(scenario, text).text)
        self.forget()

    def forget(self) -> None:
        """Read all files again when they are needed next."""
        self._known.clear()

    def remove_single(self, path: Path) -> None:
        """Remove a manifest of its own file, and the folder if that was the last one."""
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def file(self, creator: str) -> Path:
        """The creator's file."""
        return self.folder / f"{creator}{SUFFIX}"

    def single(self, creator: str, scenario: str) -> Path:
        """Where formats 1 and 2 keep the manifest."""
        return self.folder / creator / f"{scenario}.json"

    def paths(self, creator: str, scenario: str) -> tuple[Path, Path]:
        """The files that `put` may change: the creator's, and the manifest of an older format."""
        return self.file(creator), self.single(creator, scenario)

    def singles(self, creator: str = "") -> list[Path]:
        """Manifests of formats 1 and 2, of this creator or of all."""
        if creator and not _plain(creator):
            return []
        found = self.folder.glob(f"{glob.escape(creator) or '*'}/*.json")
        return sorted(p for p in found if p.parent.name != BLOBS and p.parent.name[0] != "." and p.name[0] != ".")

    def files(self) -> list[Path]:
        """Every file with a manifest."""
        return [*self._creator_files(), *self.singles()]

    def temporary(self) -> Iterator[Path]:
        """Files that a killed process left."""
        yield from self.folder.glob(".*.tmp")
        yield from self.folder.glob("*/.*.tmp")

    def _creator_files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*{SUFFIX}") if path.name[0] != ".")

    def _found(self, creator: str, line: Line) -> Found:
        return Found(Place(creator, line.scenario, self.file(creator), line.number), *line.opened())

    def read(self, creator: str) -> CreatorFile:
        """The lines of the creator's file; none if there is no file.

        Raises:
            BadFixture: the file is not readable.
        """
        path = self.file(creator)
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            known = self._known.get(path)
            if known is None or known[0] != stamp:
                known = self._known[path] = (stamp, creator_file.read(read_regular(path, links=False)))
            return known[1]
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not path.is_symlink():
                return CreatorFile()
            raise unreadable(path, error) from error


def checked_names(creator: str, scenario: str) -> None:
    """Refuse names that lead out of the store.

    Raises:
        BadFixture: one of them is not a plain name.
    """
    for name in (creator, scenario):
        try:
            checked_part(name)
        except ValueError as error:
            raise BadFixture(f"{name!r} cannot name a fixture: {error}", "a plain name", "correct the name") from None


def unreadable(path: Path, error: OSError) -> BadFixture:
    """The error for a file that the system does not let us read."""
    return BadFixture(
        f"{path}: cannot be read: {error.strerror}",
        "a readable, regular file",
        f"check its permissions, or restore it with `git restore {path}`",
    )


def _plain(name: str) -> bool:
    """False for a specification such as `../peft`."""
    return Path(name).name == name and os.sep not in name
