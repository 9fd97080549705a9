"""Fixtures on disk: a manifest for each (creator, scenario), and files in blobs. Every read checks sizes and digests.

`fixtures/FORMAT.md` describes the format, and how to read a fixture by hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import filelock

from harness.core.errors import HarnessError
from harness.core.lock import file_lock
from harness.core.text import did_you_mean
from harness.store import blobs
from harness.store.manifest import (
    BLOBS,
    PARTS,
    BadFixture,
    Manifest,
    NoFixture,
    StoredFile,
    stored_file,
)
from harness.store.manifest_text import packed
from harness.store.manifests import Found, Manifests, checked_names
from harness.store.succession import differences, successor, with_files
from harness.worker.files import read_regular

LOCK_TIMEOUT_S = 120.0
Origin = Literal["committed", "created"]


class Store:
    """The fixtures of a folder, and of a fallback folder for those that it lacks. Only the folder is written."""

    def __init__(self, folder: Path, *, fallback: Path | None = None, origin: Origin = "committed") -> None:
        self.folder = folder
        self.origin = origin
        other = fallback if fallback and fallback.resolve() != folder.resolve() else None
        self.fallback = Store(other) if other else None
        self.blobs = blobs.Blobs(folder / BLOBS)
        self.manifests = Manifests(folder)
        self._shared: dict[str, bytes] = {}

    def creators(self) -> list[str]:
        """Names of the creators that have a fixture."""
        return sorted(self.manifests.creators().union(self.fallback.creators() if self.fallback else ()))

    def scenarios(self, creator: str) -> list[str]:
        """Names of the scenarios that the creator has a fixture of; empty for an unknown creator.

        Raises:
            BadFixture: the creator's file is not readable.
        """
        own = self.manifests.scenarios(creator)
        return sorted(own.union(self.fallback.scenarios(creator) if self.fallback else ()))

    def damage(self, creator: str) -> list[BadFixture]:
        """What is wrong with the creator's file and belongs to no fixture that is known."""
        return self.manifests.damage(creator) + (self.fallback.damage(creator) if self.fallback else [])

    def has(self, creator: str, scenario: str) -> bool:
        """True if there is a fixture, whatever its state."""
        checked_names(creator, scenario)
        own = self.manifests.has(creator, scenario)
        return own or bool(self.fallback and self.fallback.has(creator, scenario))

    def manifest(self, creator: str, scenario: str) -> Manifest:
        """The manifest of one fixture.

        Raises:
            NoFixture: there is none.
            BadFixture: it cannot be used: it is damaged, has unsafe names, or is of a newer format.
        """
        checked_names(creator, scenario)
        if found := self.manifests.find(creator, scenario):
            return found.manifest(self.read_shared)
        if self.fallback and scenario in self.fallback.scenarios(creator):
            return self.fallback.manifest(creator, scenario)
        raise self.no_fixture(creator, scenario)

    def origin_of(self, manifest: Manifest) -> Origin:
        """Where a manifest is: the origin of the folder, or that of the fallback (`committed`)."""
        own = self.manifests.has(manifest.creator, manifest.scenario)
        return self.origin if own or not self.fallback else self.fallback.origin

    def content(self, manifest: Manifest, name: str, device_class: str = "cpu") -> bytes:
        """One checked file of a fixture, such as `adapter/adapter_config.json` or `golden/observation.json`.

        Raises:
            NoFixture: it has no such file, or no golden for this device class.
            BadFixture: the blob is missing, truncated or altered.
        """
        fixture, files = f"{manifest.creator}/{manifest.scenario}", manifest.laid_out(device_class)
        if name not in files:
            raise NoFixture(f"{fixture} has no file {name!r}", f"one of {', '.join(sorted(files))}", "correct the name")
        return self.read_blob(files[name], fixture, name)

    def materialise(self, manifest: Manifest, target: Path, device_class: str = "cpu") -> dict[str, bytes]:
        """Write `adapter/`, `base/` and `golden/` under `target`, after checking size and SHA-256 of each file.

        The files are copies, never links, so that a library under test cannot alter a blob. Files of the fixture are
        overwritten. Any other file in these folders is an error, because a library might load it.

        Returns:
            the content of each file, as it is in the store.

        Raises:
            BadFixture: a blob is missing, truncated or altered.
            NoFixture: no golden for this device class.
        """
        files = manifest.laid_out(device_class)
        contents: dict[str, bytes] = {}
        for part in (*PARTS, "golden"):
            (target / part).mkdir(parents=True, exist_ok=True)
        _refuse_other_files(target, set(files))
        for name, stored in files.items():
            data = contents[name] = self.read_blob(stored, f"{manifest.creator}/{manifest.scenario}", name)
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(data)
        return contents

    def save(
        self,
        manifest_without_files: Manifest,
        adapter: Path,
        base: Path,
        golden: Path,
        *,
        device_class: str = "cpu",
        replace: str | None = None,
    ) -> Manifest:
        """Store a fixture: blobs first, manifest last, each atomically, so that nobody sees half a fixture.

        Saving the same content again changes nothing. A golden for another device class is added to the same adapter
        and base. Any other difference is an error, unless `replace` gives a reason.

        Returns:
            the manifest that is stored now.
        """
        folders = {"adapter": adapter, "base": base, "golden": golden}
        data = {f"{part}/{name}": content for part, folder in folders.items() for name, content in _read_folder(folder)}
        stored = {name: stored_file(content) for name, content in data.items()}
        new = with_files(manifest_without_files, stored, device_class)
        checked_names(new.creator, new.scenario)
        with self.locked():
            before = self.manifests.find(new.creator, new.scenario)
            after = successor(before, new, device_class, replace, self.read_shared)
            for name, content in data.items():
                self.blobs.write(stored[name], content, compress=name.startswith("golden/"))
            return self.put(before, after)

    def put(self, before: Found | None, after: Manifest) -> Manifest:
        """Write a manifest that follows `before`, if it differs; the caller has the lock and has written the files.

        A manifest of an older format that is replaced is first converted, so that the store never has two that differ.
        """
        old = self._usable(before)
        if after == old:
            return after  # nothing changes, not even the format of an old manifest
        single = before.place.file if before and not before.place.line else None
        if single and old:
            self._write(old)
            self.manifests.remove_single(single)
        written = self._write(after)
        if single:
            self.manifests.remove_single(single)
        return written

    def _write(self, manifest: Manifest) -> Manifest:
        whole, text, shared = packed(manifest)
        for key, content in shared.items():
            self.blobs.write(whole.shared[key], content, compress=True)
        self.manifests.put(whole.creator, whole.scenario, text)
        return whole

    def _usable(self, found: Found | None) -> Manifest | None:
        try:
            return found.manifest(self.read_shared) if found else None
        except BadFixture:
            return None

    def compare(
        self, manifest: Manifest, adapter: Path, base: Path, golden: Path, device_class: str = "cpu"
    ) -> list[str]:
        """One line for each file of these folders that differs from the fixture by a byte or more."""
        folders = {"adapter": adapter, "base": base, "golden": golden}
        now = {
            f"{part}/{name}": stored_file(content)
            for part, folder in folders.items()
            for name, content in _read_folder(folder)
        }
        return differences(manifest.laid_out(device_class), now)

    def find_blob(self, sha256: str) -> Path:
        """The file of a content, in the folder or in the fallback."""
        own = self.blobs.path(sha256)
        return self.fallback.find_blob(sha256) if self.fallback and not own.exists() else own

    def read_shared(self, stored: StoredFile) -> bytes:
        """The checked content of a blob that many fixtures share; read once.

        Raises:
            BadFixture: it is missing, truncated or altered.
        """
        if stored.sha256 not in self._shared:
            self._shared[stored.sha256] = self.read_blob(stored, "many fixtures", "shared content")
        return self._shared[stored.sha256]

    def read_blob(self, stored: StoredFile, fixture: str, name: str) -> bytes:
        """The checked content of a blob.

        Args:
            fixture: whose file it is, for messages.
            name: of the file, for messages.

        Raises:
            BadFixture: it is missing, truncated or altered.
        """
        path = self.find_blob(stored.sha256)
        try:
            data = blobs.content(path, stored.size)
            if (now := stored_file(data)) == stored:
                return data
            found = f"{'altered' if now.size == stored.size else 'of another size'}: {now}"
        except blobs.UNPACKING as error:
            found = f"altered or truncated: {error}"
        except OSError as error:
            found = f"no such file, or not readable: {error.strerror}"
        raise BadFixture(
            f"{path} ({name} of {fixture}): {found}",
            str(stored),
            f"restore it with `git restore {path}`, or create the fixture again with a reason to replace it",
        )

    def no_fixture(self, creator: str, scenario: str) -> NoFixture:
        """The error for a fixture that is not there; names one that is spelled alike."""
        creators, scenarios = self.creators(), self.scenarios(creator)
        asked, known = (scenario, scenarios) if scenarios else (creator, creators)
        what = (
            f"no scenario {scenario!r} by creator {creator!r}" if scenarios else f"no fixtures by creator {creator!r}"
        )
        return NoFixture(
            f"{self.folder}: {what}{did_you_mean(asked, known)}",
            f"one of {', '.join(known)}" if known else "a fixture; the store is empty",
            "create the fixture, or correct the name",
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Allow one writer at a time. The lock ends with its process, so a killed one blocks nobody."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ".lock"
        try:
            with file_lock(path, timeout=LOCK_TIMEOUT_S):
                self.manifests.forget()  # another process may have written them
                yield
        except filelock.Timeout as error:
            raise HarnessError(
                f"{path}: another process has been writing fixtures for {LOCK_TIMEOUT_S:g} s",
                "one writer at a time, each for a moment",
                "look for a hanging peft-regress process, end it and try again",
            ) from error


def recorded_versions(store: Store, creator: str) -> Mapping[str, str]:
    """The versions that made a creator's fixtures, according to the first usable one; empty if there is none."""
    with contextlib.suppress(BadFixture):  # the file is not readable
        for scenario in store.scenarios(creator):
            with contextlib.suppress(BadFixture):
                return store.manifest(creator, scenario).versions
    return {}


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(relative POSIX name, content) of each file in a folder."""
    if not folder.is_dir():
        raise HarnessError(
            f"no folder {folder}", "a folder with the files to store", "check what the worker left there"
        )
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise HarnessError(
                f"{path}: not a plain file", "plain files and folders", "store the file itself, not a link"
            )
        if path.is_file():
            yield path.relative_to(folder).as_posix(), read_regular(path, links=False)


def _refuse_other_files(target: Path, known: set[str]) -> None:
    for part in (*PARTS, "golden"):
        for path in sorted((target / part).rglob("*")):
            if (path.is_symlink() or not path.is_dir()) and path.relative_to(target).as_posix() not in known:
                raise HarnessError(
                    f"{path} is not a file of the fixture", "a folder with nothing else in it", "choose another folder"
                )
