"""Checks a whole store: `verify`, and `prune` for files that nothing refers to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.core.errors import HarnessError
from harness.store.fixtures import Store
from harness.store.manifest import BadFixture, Manifest, StoredFile
from harness.store.manifests import Found


@dataclass(frozen=True)
class Problem:
    """Something that is wrong in a store.

    Attributes:
        kind: `orphan`: nothing refers to the file. It does no harm, and `prune` removes it.
        fixtures: `creator/scenario` of every fixture that cannot be used because of it.
    """

    path: Path
    kind: Literal["manifest", "blob", "orphan"]
    message: str
    fixtures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checked:
    """What `verify` found.

    Attributes:
        fixtures: how many there are, usable or not.
        size: of all manifests and blobs, in bytes.
    """

    problems: tuple[Problem, ...]
    fixtures: int
    creators: int
    size: int

    @property
    def broken(self) -> tuple[Problem, ...]:
        """Problems that make a fixture unusable."""
        return tuple(problem for problem in self.problems if problem.kind != "orphan")


def check(store: Store) -> Checked:
    """Verify a whole store, and count what is in it."""
    creators = store.creators()
    count = 0
    for creator in creators:
        with contextlib.suppress(BadFixture):  # its file is not readable, which `verify` reports
            count += len(store.scenarios(creator))
    return Checked(tuple(verify(store)), count, len(creators), size(store))


def verify(store: Store, creators: Iterable[str] | None = None) -> list[Problem]:
    """Read every manifest and every blob, of these creators or of all, and return what is wrong.

    A creator without fixtures is a problem too. Orphans are looked for only if all creators are verified and every
    manifest is readable.
    """
    chosen = None if creators is None else set(creators)
    unknown = sorted((chosen or set()).difference(store.creators()))
    missing = [Problem(store.folder / name, "manifest", str(store.no_fixture(name, ""))) for name in unknown]
    return missing + _verify(store, chosen)


def orphans(store: Store) -> list[Path]:
    """Files that no manifest refers to: replaced content, and what a killed process left.

    Raises:
        BadFixture: a manifest cannot be read, so nobody knows which blobs it needs.
    """
    manifests, problems = _manifests(store, None)
    if problems:
        raise BadFixture(
            f"{problems[0].path}: cannot be read, so nobody knows which blobs it needs",
            "readable manifests only",
            "see `verify`; restore or remove the manifest first",
        )
    named = {store.blobs.path(stored.sha256) for manifest in manifests for _, stored in manifest.contents()}
    return sorted({*store.blobs.files()} - named | {*store.manifests.temporary()} | {*_leftovers(store)})


def prune(store: Store, dry_run: bool = True) -> list[Path]:
    """Remove the orphans, or only return them if `dry_run`. Nothing can be saved meanwhile."""
    if dry_run or not store.folder.is_dir():
        return orphans(store)
    with store.locked():
        found = orphans(store)
        for path in found:
            path.unlink()
            with contextlib.suppress(OSError):  # the folder has other files
                path.parent.rmdir()
    return found


def size(store: Store) -> int:
    """Bytes of all manifests and blobs of the folder, without the fallback."""
    return sum(path.stat().st_size for path in (*store.manifests.files(), *store.blobs.files()) if path.is_file())


def _verify(store: Store, chosen: set[str] | None) -> list[Problem]:
    manifests, problems = _manifests(store, chosen)
    users: dict[tuple[str, int], list[str]] = {}
    for manifest in manifests:
        for _, stored in manifest.contents():
            users.setdefault((stored.sha256, stored.size), []).append(f"{manifest.creator}/{manifest.scenario}")
    for (sha256, length), fixtures in sorted(users.items()):
        problems += _blob_problems(store, StoredFile(sha256=sha256, size=length), tuple(dict.fromkeys(fixtures)))
    if chosen is None and not any(problem.kind == "manifest" for problem in problems):
        problems += [Problem(path, "orphan", f"{path}: no manifest refers to it") for path in orphans(store)]
    return problems + (_verify(store.fallback, chosen) if store.fallback else [])


def _manifests(store: Store, creators: set[str] | None) -> tuple[list[Manifest], list[Problem]]:
    """The usable manifests of a folder, and what is wrong with the others."""
    found: dict[tuple[str, str], Manifest] = {}
    problems = []
    for creator in sorted(store.manifests.creators()):
        if creators is not None and creator not in creators:
            continue
        try:
            for each in store.manifests.every(creator):
                problems += _manifest_problems(store, each, found)
        except (HarnessError, OSError) as error:  # the whole file
            problems.append(Problem(store.manifests.file(creator), "manifest", str(error)))
    return list(found.values()), _merged(problems)


def _merged(problems: list[Problem]) -> list[Problem]:
    """One problem for those that say the same, with the fixtures of all."""
    merged: dict[tuple[Path, str], Problem] = {}
    for each in problems:
        first = merged.setdefault((each.path, each.message), each)
        if first is not each:
            merged[each.path, each.message] = replace(first, fixtures=first.fixtures + each.fixtures)
    return list(merged.values())


def _manifest_problems(store: Store, each: Found, found: dict[tuple[str, str], Manifest]) -> list[Problem]:
    place = each.place
    fixtures = (f"{place.creator}/{place.scenario}",) if place.scenario else ()
    try:
        manifest = each.manifest(store.read_shared)
    except (HarnessError, OSError) as error:
        return [Problem(place.file, "manifest", str(error), fixtures)]
    line = found.setdefault((place.creator, place.scenario), manifest)
    if not same_fixture(line, manifest):
        other = store.manifests.file(place.creator)
        twice = place.bad(f"another manifest of this fixture is in {other}", "one manifest of each fixture")
        return [Problem(place.file, "manifest", str(twice), fixtures)]
    return []


def same_fixture(one: Manifest, other: Manifest) -> bool:
    """True if both manifests say the same, in whatever format they are stored."""
    return one.model_copy(update={"shared": {}}) == other.model_copy(update={"shared": {}})


def _leftovers(store: Store) -> list[Path]:
    """Manifests of older formats that were converted, and not removed because the process was killed."""
    found = []
    for creator in store.manifests.creators():
        lines = {each.place.scenario for each in store.manifests.every(creator) if each.place.line}
        found += [path for path in store.manifests.singles(creator) if path.stem in lines]
    return found


def _blob_problems(store: Store, stored: StoredFile, fixtures: tuple[str, ...]) -> list[Problem]:
    try:
        store.read_blob(stored, ", ".join(fixtures), "content")
    except BadFixture as error:
        return [Problem(store.find_blob(stored.sha256), "blob", str(error), fixtures)]
    return []
