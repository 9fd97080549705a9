"""Fixtures on disk: content-addressed blobs, a manifest for each (creator, scenario), integrity checked at every read.

`harness.store.manifest` says what a fixture is, and `fixtures/FORMAT.md` how to read one by hand.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from harness.core.errors import HarnessError
from harness.core.files import write_durably
from harness.store import blobs
from harness.store.manifest import (
    BLOBS,
    FORMAT,
    PARTS,
    BadFixture,
    Circumstances,
    Manifest,
    NoFixture,
    ReadBlob,
    Replacement,
    StoredFile,
    checked_part,
    differences,
    packed,
    parse,
    stored_file,
    successor,
    with_files,
)

__all__ = [
    "FORMAT",
    "BadFixture",
    "Circumstances",
    "Manifest",
    "NoFixture",
    "Problem",
    "Replacement",
    "Store",
    "StoredFile",
    "recorded_versions",
]

LOCK_TIMEOUT_S = 120.0
Origin = Literal["committed", "created"]


@dataclass(frozen=True)
class Problem:
    """One thing that `verify` found."""

    path: Path
    kind: Literal["manifest", "blob", "orphan"]
    """`orphan`: nothing names the file. It harms nothing; `prune` removes it."""
    message: str
    fixtures: tuple[str, ...] = ()
    """`creator/scenario` of every fixture that it spoils."""


class Store:
    """Fixtures in a folder, over a fallback folder for what that one does not have. Writes go to the folder alone."""

    def __init__(self, folder: Path, *, fallback: Path | None = None, origin: Origin = "committed") -> None:
        self.folder = folder
        self.origin = origin
        other = fallback if fallback and fallback.resolve() != folder.resolve() else None
        self.fallback = Store(other) if other else None
        self._blobs = blobs.Blobs(folder / BLOBS)
        self._shared: dict[str, bytes] = {}

    def creators(self) -> list[str]:
        """Names of the creators that have a fixture."""
        own = {path.parent.name for path in self._manifest_files()}
        return sorted(own.union(self.fallback.creators() if self.fallback else ()))

    def scenarios(self, creator: str) -> list[str]:
        """Names of the scenarios that the creator has a fixture of; empty for an unknown creator."""
        own = {path.stem for path in self._manifest_files(creator)}
        return sorted(own.union(self.fallback.scenarios(creator) if self.fallback else ()))

    def has(self, creator: str, scenario: str) -> bool:
        """True where there is a fixture, whatever state it is in."""
        path = self._manifest_path(creator, scenario)
        return path.is_file() or bool(self.fallback and self.fallback.has(creator, scenario))

    def manifest(self, creator: str, scenario: str) -> Manifest:
        """The manifest of one fixture.

        Raises:
            NoFixture: there is none.
            BadFixture: it can't be used: damaged, unsafe names, or of a newer format.
        """
        path = self._manifest_path(creator, scenario)
        try:
            return parse(path, path.read_bytes(), self._read_shared)
        except (FileNotFoundError, NotADirectoryError):
            if self.fallback and scenario in self.fallback.scenarios(creator):
                return self.fallback.manifest(creator, scenario)
            raise self._no_fixture(creator, scenario) from None
        except OSError as error:
            raise BadFixture(
                f"{path}: cannot be read: {error}", "a readable file", "check the file's rights"
            ) from error

    def origin_of(self, manifest: Manifest) -> Origin:
        """Where a manifest was found: the folder's origin, or the fallback's (`committed`)."""
        own = self._manifest_path(manifest.creator, manifest.scenario).is_file()
        return self.origin if own or not self.fallback else self.fallback.origin

    def content(self, manifest: Manifest, name: str, device_class: str = "cpu") -> bytes:
        """One file of a fixture, checked: `adapter/adapter_config.json`, `golden/observation.json`.

        Raises:
            NoFixture: it has no such file, or no golden for this device class.
            BadFixture: the blob is missing, truncated or altered.
        """
        fixture, files = f"{manifest.creator}/{manifest.scenario}", manifest.laid_out(device_class)
        if name not in files:
            raise NoFixture(f"{fixture} has no file {name!r}", f"one of {', '.join(sorted(files))}", "mend the name")
        return self._read_blob(files[name], fixture, name)

    def materialise(self, manifest: Manifest, target: Path, device_class: str = "cpu") -> None:
        """Write `adapter/`, `base/` and `golden/` under `target`, each file checked against size and SHA-256.

        They are copies, never links: a library under test must not be able to alter a blob. A file that is there
        already is overwritten if it is the fixture's, and refused if not, as a library might load it with the rest.

        Raises:
            BadFixture: a blob is missing, truncated or altered.
            NoFixture: no golden for this device class.
        """
        files = manifest.laid_out(device_class)
        for part in (*PARTS, "golden"):
            (target / part).mkdir(parents=True, exist_ok=True)
        _refuse_strangers(target, set(files))
        for name, stored in files.items():
            data = self._read_blob(stored, f"{manifest.creator}/{manifest.scenario}", name)
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(data)

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
        """Store a fixture: blobs first, manifest last, each atomically, so that half a fixture is never seen.

        Content that is there already is left as it is. A golden for a further device class is added to the same adapter
        and base. Anything else that differs from what is there is refused, unless `replace` gives a reason.

        Returns:
            the manifest as it now stands in the store.
        """
        folders = {"adapter": adapter, "base": base, "golden": golden}
        data = {f"{part}/{name}": content for part, folder in folders.items() for name, content in _read_folder(folder)}
        stored = {name: stored_file(content) for name, content in data.items()}
        new = with_files(manifest_without_files, stored, device_class)
        path = self._manifest_path(new.creator, new.scenario)
        with self._locked():
            before = _read_or_none(path)
            after = successor(path, before, new, device_class, replace, self._read_shared)
            for name, content in data.items():
                self._blobs.write(stored[name], content, compress=name.startswith("golden/"))
            if before is not None and after == _parsed_or_none(path, before, self._read_shared):
                return after  # nothing changes, not even an old manifest's format
            after, text, shared = packed(after)
            for key, content in shared.items():
                self._blobs.write(after.shared[key], content, compress=True)
            write_durably(path, text)
        return after

    def verify(self, creators: Iterable[str] | None = None) -> list[Problem]:
        """Read every manifest and every blob (of these creators, or all) and tell what is wrong.

        Orphans are told only where all creators are looked at and every manifest could be read. A creator that has no
        fixture is a problem too: nothing that was not looked at is sound.
        """
        chosen = None if creators is None else set(creators)
        unknown = sorted((chosen or set()).difference(self.creators()))
        no_fixtures = [Problem(self.folder / name, "manifest", str(self._no_fixture(name, ""))) for name in unknown]
        return no_fixtures + self._verify(chosen)

    def compare(
        self, manifest: Manifest, adapter: Path, base: Path, golden: Path, device_class: str = "cpu"
    ) -> list[str]:
        """Which files of these folders are not, byte for byte, what the manifest says; empty where all are."""
        folders = {"adapter": adapter, "base": base, "golden": golden}
        now = {
            f"{part}/{name}": stored_file(content)
            for part, folder in folders.items()
            for name, content in _read_folder(folder)
        }
        return differences(manifest.laid_out(device_class), now)

    def orphans(self) -> list[Path]:
        """Files of the folder that no manifest names: replaced content, and what a killed process left.

        Raises:
            BadFixture: a manifest can't be read, so that nobody knows what it names.
        """
        manifests, problems = self._all_manifests(None)
        if problems:
            raise BadFixture(
                f"{problems[0].path}: cannot be read, so nobody knows which blobs it needs",
                "every manifest readable",
                "see `verify`; mend or remove the manifest first",
            )
        named = {self._blobs.path(stored.sha256) for manifest in manifests for _, stored in manifest.contents()}
        there = set(self._blobs.files())
        return sorted((there - named).union(self.folder.glob("*/.*.tmp")))

    def prune(self, dry_run: bool = True) -> list[Path]:
        """Remove the orphans; only tell them where `dry_run`. No save can be under way meanwhile."""
        if dry_run or not self.folder.is_dir():
            return self.orphans()
        with self._locked():
            orphans = self.orphans()
            for path in orphans:
                path.unlink()
                with contextlib.suppress(OSError):  # other blobs are in it
                    path.parent.rmdir()
        return orphans

    def size(self) -> int:
        """Bytes of all manifests and blobs of the folder (not of the fallback)."""
        return sum(path.stat().st_size for path in (*self._manifest_files(), *self._blobs.files()))

    def _verify(self, chosen: set[str] | None) -> list[Problem]:
        manifests, problems = self._all_manifests(chosen)
        users: dict[tuple[str, int], list[str]] = {}
        for manifest in manifests:
            for _, stored in manifest.contents():
                users.setdefault((stored.sha256, stored.size), []).append(f"{manifest.creator}/{manifest.scenario}")
        for (sha256, size), fixtures in sorted(users.items()):
            problems += self._blob_problems(StoredFile(sha256=sha256, size=size), tuple(dict.fromkeys(fixtures)))
        if chosen is None and not any(problem.kind == "manifest" for problem in problems):
            problems += [Problem(path, "orphan", f"{path}: no manifest names it") for path in self.orphans()]
        return problems + (self.fallback._verify(chosen) if self.fallback else [])

    def _manifest_files(self, creator: str = "") -> list[Path]:
        if Path(creator).name != creator:  # a specification: `../peft`
            return []
        files = self.folder.glob(f"{glob.escape(creator) or '*'}/*.json")
        return sorted(
            p for p in files if p.parent.name != BLOBS and not p.parent.name.startswith(".") and p.name[0] != "."
        )

    def _manifest_path(self, creator: str, scenario: str) -> Path:
        for name in (creator, scenario):
            try:
                checked_part(name)
            except ValueError as error:
                raise BadFixture(f"{name!r} can't name a fixture: {error}", "a plain name", "mend the name") from None
        return self.folder / creator / f"{scenario}.json"

    def _no_fixture(self, creator: str, scenario: str) -> NoFixture:
        creators, scenarios = self.creators(), self.scenarios(creator)
        asked, known = (scenario, scenarios) if scenarios else (creator, creators)
        what = (
            f"no scenario {scenario!r} by creator {creator!r}" if scenarios else f"no fixtures by creator {creator!r}"
        )
        close = difflib.get_close_matches(asked, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return NoFixture(
            f"{self.folder}: {what}{hint}",
            f"one of {', '.join(known)}" if known else "a fixture; the store holds none",
            "create the fixture, or mend the name",
        )

    def _all_manifests(self, creators: set[str] | None) -> tuple[list[Manifest], list[Problem]]:
        found, problems = [], []
        for path in self._manifest_files():
            if creators is None or path.parent.name in creators:
                try:
                    found.append(parse(path, path.read_bytes(), self._read_shared))
                except (HarnessError, OSError) as error:
                    problems.append(Problem(path, "manifest", str(error), (f"{path.parent.name}/{path.stem}",)))
        return found, problems

    def _find_blob(self, sha256: str) -> Path:
        own = self._blobs.path(sha256)
        return self.fallback._find_blob(sha256) if self.fallback and not own.exists() else own

    def _read_shared(self, stored: StoredFile) -> bytes:
        if stored.sha256 not in self._shared:
            self._shared[stored.sha256] = self._read_blob(stored, "many fixtures", "shared content")
        return self._shared[stored.sha256]

    def _read_blob(self, stored: StoredFile, fixture: str, name: str) -> bytes:
        path = self._find_blob(stored.sha256)
        try:
            data = blobs.content(path)
            if (now := stored_file(data)) == stored:
                return data
            found = f"{'altered' if now.size == stored.size else 'of another size'}: {now}"
        except blobs.UNPACKING as error:
            found = f"altered or cut short: {error}"
        except OSError as error:
            found = f"no such file, or not readable: {error.strerror}"
        raise BadFixture(
            f"{path} ({name} of {fixture}): {found}",
            str(stored),
            f"restore it with `git restore {path}`, or create the fixture again with a reason to replace it",
        )

    def _blob_problems(self, stored: StoredFile, fixtures: tuple[str, ...]) -> list[Problem]:
        try:
            self._read_blob(stored, ", ".join(fixtures), "content")
        except BadFixture as error:
            return [Problem(self._find_blob(stored.sha256), "blob", str(error), fixtures)]
        return []

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time. The lock goes with its process, so that a killed one blocks nobody."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ".lock"
        try:
            with filelock.FileLock(path, timeout=LOCK_TIMEOUT_S):
                yield
        except filelock.Timeout as error:
            raise HarnessError(
                f"{path}: another process has been writing fixtures for {LOCK_TIMEOUT_S:g} s",
                "one writer at a time, each for a moment",
                "look for a hanging peft-regress process, end it and try again",
            ) from error


def recorded_versions(store: Store, creator: str) -> Mapping[str, str]:
    """The versions in which a creator's fixtures were made, by one of them; empty where it has none that is sound."""
    for scenario in store.scenarios(creator):
        with contextlib.suppress(BadFixture):
            return store.manifest(creator, scenario).versions
    return {}


def _parsed_or_none(path: Path, text: bytes, read: ReadBlob) -> Manifest | None:
    try:
        return parse(path, text, read)
    except BadFixture:
        return None


def _read_or_none(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(relative POSIX name, content) of each file under a folder."""
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
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _refuse_strangers(target: Path, known: set[str]) -> None:
    for part in (*PARTS, "golden"):
        for path in sorted((target / part).rglob("*")):
            if (path.is_symlink() or not path.is_dir()) and path.relative_to(target).as_posix() not in known:
                raise HarnessError(f"{path} is in the way", "a folder with nothing else in it", "choose another folder")
